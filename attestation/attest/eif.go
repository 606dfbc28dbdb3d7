package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/corridor-enclave/corridor/attestation/eif"
	"github.com/corridor-enclave/corridor/attestation/findings"
)

const exitDiffers = 1 // of attest eif diff, as of diff(1)

// eif runs the subcommands about images.
func (c command) eif(args []string) int {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "build":
		return c.eifBuild(args)
	case "inspect":
		return c.eifInspect(args)
	case "pcr":
		return c.eifPCR(args)
	case "diff":
		return c.eifDiff(args)
	}
	return c.misused(fmt.Errorf("eif: %q is none of build, inspect, pcr and diff", name))
}

// images reads the n files that the arguments name.
func images(n int, args []string, flags ...flag) (list []*eif.Image, mistakes []error, err error) {
	others, mistakes := parseArguments(args, flags)
	if len(others) != n {
		mistakes = append(mistakes, fmt.Errorf("%d images are given instead of %d", len(others), n))
	}
	if len(mistakes) > 0 {
		return nil, mistakes, nil
	}
	for _, name := range others {
		m, err := readImage(name)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, m)
	}
	return list, nil, nil
}

func readImage(name string) (*eif.Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, eif.MaxSize+1))
	if err != nil {
		return nil, err
	}
	return eif.Parse(b)
}

// show prints what make returns for the images, or why it cannot.
func (c command) show(list []*eif.Image, mistakes []error, err error, text func(list []*eif.Image) (string, error)) int {
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	var out string
	if err == nil {
		out, err = text(list)
	}
	if err == nil {
		err = c.write("", []byte(out))
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: %v\n", err)
		if errors.Is(err, eif.ErrMalformed) {
			return exitNotGenuine
		}
		return exitNotDone
	}
	return exitVerified
}

func (c command) eifInspect(args []string) int {
	list, mistakes, err := images(1, args)
	return c.show(list, mistakes, err, func(list []*eif.Image) (string, error) {
		m := list[0]
		pcrs, err := m.Measurements()
		if err != nil {
			return "", err
		}
		var b strings.Builder
		architecture := "x86_64"
		if m.ARM64 {
			architecture = "arm64"
		}
		fmt.Fprintf(&b, "%s, by default %d MiB and %d CPUs\n", architecture, m.Memory>>20, m.CPUs)
		for i, s := range m.Sections {
			fmt.Fprintf(&b, "%2d  %-12v  %10d bytes  SHA-256 %x\n", i, s.Kind, len(s.Content), sha256.Sum256(s.Content))
			if s.Kind == eif.CommandLine || s.Kind == eif.Metadata {
				fmt.Fprintf(&b, "    %.2000q\n", s.Content)
			}
		}
		signer, err := m.Signer()
		if err != nil {
			return "", err
		}
		if signer != nil {
			fmt.Fprintf(&b, "signed by %q, SHA-256 %x\n", signer.Subject, sha256.Sum256(signer.Raw))
		}
		for _, i := range slices.Sorted(maps.Keys(pcrs)) {
			fmt.Fprintf(&b, "PCR%d  %x\n", i, pcrs[i])
		}
		return b.String(), nil
	})
}

// eifPCR prints the registers as nitro-cli does, or as a policy.
func (c command) eifPCR(args []string) int {
	var policy string
	var asPolicy bool
	list, mistakes, err := images(1, args, flag{name: "policy", set: once(&policy, &asPolicy)})
	return c.show(list, mistakes, err, func(list []*eif.Image) (string, error) {
		pcrs, err := list[0].Measurements()
		if err != nil {
			return "", err
		}
		var b strings.Builder
		if asPolicy {
			fmt.Fprintf(&b, "[[accept]]\nname = %q\n[accept.pcrs]\n", policy)
			for _, i := range slices.Sorted(maps.Keys(pcrs)) {
				fmt.Fprintf(&b, "%d = \"%x\"\n", i, pcrs[i])
			}
			return b.String(), nil
		}
		measurements := map[string]string{"HashAlgorithm": "Sha384 { ... }"}
		for i, value := range pcrs {
			measurements[fmt.Sprintf("PCR%d", i)] = hex.EncodeToString(value)
		}
		err = findings.WriteJSON(&b, map[string]any{"Measurements": measurements})
		return b.String(), err
	})
}

func (c command) eifDiff(args []string) int {
	list, mistakes, err := images(2, args)
	differs := false
	code := c.show(list, mistakes, err, func(list []*eif.Image) (string, error) {
		var b bytes.Buffer
		for _, line := range eif.Diff(list[0], list[1]) {
			differs = true
			b.WriteString(line + "\n")
		}
		return b.String(), nil
	})
	if code == exitVerified && differs {
		return exitDiffers
	}
	return code
}
