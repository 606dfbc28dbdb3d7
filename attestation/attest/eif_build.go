package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/attestation/eif"
)

// A recipe is the command line of attest eif build.
type recipe struct {
	kernel, commandLine, out string
	app                      string
	ramdisks                 []string
	words, environment       []string
	name, version            string
	arm64                    bool
	certificate, key         string
	built                    time.Time
}

func parseRecipe(args []string) (recipe, []error) {
	var r recipe
	var given [8]bool
	list := func(into *[]string) func(string) error {
		return func(value string) error {
			*into = append(*into, value)
			return nil
		}
	}
	arch := func(value string) error {
		r.arm64 = value == "arm64"
		if value != "x86_64" && value != "arm64" {
			return fmt.Errorf("%q is neither x86_64 nor arm64", value)
		}
		return nil
	}
	others, mistakes := parseArguments(args, []flag{
		{name: "kernel", set: once(&r.kernel, &given[0])},
		{name: "cmdline", set: once(&r.commandLine, &given[1])},
		{name: "out", set: once(&r.out, &given[2])},
		{name: "app", set: once(&r.app, &given[3])},
		{name: "sign-certificate", set: once(&r.certificate, &given[4])},
		{name: "sign-key", set: once(&r.key, &given[5])},
		{name: "name", set: once(&r.name, &given[6])},
		{name: "version", set: once(&r.version, &given[7])},
		{name: "ramdisk", set: list(&r.ramdisks)},
		{name: "cmd", set: list(&r.words)},
		{name: "env", set: list(&r.environment)},
		{name: "arch", set: arch},
	})
	must := func(holds bool, format string, a ...any) {
		if !holds {
			mistakes = append(mistakes, fmt.Errorf(format, a...))
		}
	}
	must(len(others) == 0, "%q is not understood", others)
	must(given[0] && given[1] && given[2], "--kernel, --cmdline and --out are needed")
	must(given[3] || len(r.ramdisks) > 0, "give --ramdisk or --app: an image without either starts nothing")
	must(given[3] || len(r.words)+len(r.environment) == 0, "--cmd and --env need --app")
	must(given[4] == given[5], "--sign-certificate and --sign-key go together")
	var err error
	r.built, err = sourceDate(os.Getenv("SOURCE_DATE_EPOCH"))
	must(err == nil, "SOURCE_DATE_EPOCH: %v", err)
	return r, mistakes
}

// sourceDate is the time in the metadata: the one that reproducible builds agree
// on, or the beginning of time.
func sourceDate(value string) (time.Time, error) {
	if value == "" {
		return time.Unix(0, 0), nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no number of seconds", value)
	}
	return time.Unix(seconds, 0), nil
}

func (c command) eifBuild(args []string) int {
	r, mistakes := parseRecipe(args)
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	m, err := r.build()
	var b []byte
	if err == nil {
		b, err = m.Encode()
	}
	if err == nil {
		err = c.write(r.out, b)
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: eif build: %v\n", err)
		return exitNotDone
	}
	return c.eifPCR([]string{r.out})
}

func (r recipe) build() (*eif.Image, error) {
	kernel, err := os.ReadFile(r.kernel)
	if err != nil {
		return nil, err
	}
	parts := eif.Parts{Kernel: kernel, CommandLine: r.commandLine, ARM64: r.arm64, Name: r.name, Version: r.version, Built: r.built}
	for _, name := range r.ramdisks {
		ramdisk, err := readRamdisk(name)
		if err != nil {
			return nil, err
		}
		parts.Ramdisks = append(parts.Ramdisks, ramdisk)
	}
	if r.app != "" {
		ramdisk, err := r.appRamdisk()
		if err != nil {
			return nil, err
		}
		parts.Ramdisks = append(parts.Ramdisks, ramdisk)
	}
	m, err := eif.New(parts)
	if err != nil || r.key == "" {
		return m, err
	}
	certificate, key, err := readSigner(r.certificate, r.key)
	if err != nil {
		return nil, err
	}
	return m, m.Sign(certificate, key)
}

// appRamdisk packs the app: a root file system, or a container image, which
// brings a command and an environment of its own.
func (r recipe) appRamdisk() ([]byte, error) {
	source := os.DirFS(r.app)
	app := &eif.App{Root: eif.Files{}}
	var err error
	if eif.IsOCI(source) {
		app, err = eif.ReadOCI(source, r.arm64)
	} else {
		err = app.Root.AddTree(source, ".")
	}
	if err != nil {
		return nil, err
	}
	if len(r.words) > 0 {
		app.Command = r.words
	}
	if len(app.Command) == 0 {
		return nil, errors.New("--app: nothing says what to start: give --cmd")
	}
	app.Environment = append(app.Environment, r.environment...)
	files := eif.Files{}
	if err := files.AddApp(*app); err != nil {
		return nil, err
	}
	return files.Pack()
}

// readRamdisk reads a ramdisk, or packs a folder.
func readRamdisk(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeDir {
		return os.ReadFile(name)
	}
	files := eif.Files{}
	if err := files.AddTree(os.DirFS(name), "."); err != nil {
		return nil, err
	}
	return files.Pack()
}

func readSigner(certificateFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certificates, err := readRoots(certificateFile, true)
	if err != nil {
		return nil, nil, fmt.Errorf("--sign-certificate: %w", err)
	}
	text, err := readFile(keyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("--sign-key: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, nil, fmt.Errorf("--sign-key %s: %w", keyFile, err)
	}
	return certificates[0], key, nil
}

// parseKey reads a private key in PEM, of PKCS #8 or SEC 1. Its errors say
// nothing of the content.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("holds no ECDSA key in PEM, unencrypted")
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if key, ok := parsed.(*ecdsa.PrivateKey); err == nil && ok {
			return key, nil
		}
	}
}
