package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/client"
	"github.com/corridor-enclave/corridor/attestation/findings"
)

// decode prints a document that nobody has verified.
func (c command) decode(args []string) int {
	var asJSON bool
	others, mistakes := parseArguments(args, []flag{boolFlag("json", &asJSON)})
	if len(others) != 1 {
		mistakes = append(mistakes, fmt.Errorf("%d files are given instead of one (- is standard input)", len(others)))
	}
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	input, err := c.read(others[0])
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: %v\n", err)
		return exitNotDone
	}
	u, err := parse(input)
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: %s: %v\n", others[0], err)
		return exitNotGenuine
	}
	p := findings.Printable(u.Claims)
	if asJSON {
		err = findings.WriteJSON(c.stdout, p)
	} else {
		_, err = fmt.Fprint(c.stdout, text(p, u))
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: write the result: %v\n", err)
		return exitNotDone
	}
	return exitVerified
}

func (c command) read(name string) ([]byte, error) {
	if name == "-" {
		return readAll(c.stdin, "standard input")
	}
	return readFile(name)
}

// parse takes a document as it is, or as the enclave serves it: in base64, or as
// evidence in JSON.
func parse(input []byte) (*attestation.Unverified, error) {
	text := bytes.TrimSpace(input)
	switch {
	case bytes.HasPrefix(text, []byte("{")):
		e, err := attestation.ParseEvidence(text)
		if err != nil {
			return nil, err
		}
		input = e.Document
	case len(input) > 0 && input[0] < 0x80: // text; a document begins with an array or a tag
		raw, err := client.DecodeText(text)
		if err != nil {
			return nil, err
		}
		input = raw
	}
	return attestation.Parse(input)
}

func text(c *findings.Claims, u *attestation.Unverified) string {
	var b strings.Builder
	b.WriteString("UNVERIFIED: anybody may have written this\n")
	findings.WriteLine(&b, "module", c.ModuleID)
	findings.WriteLine(&b, "made at", c.Timestamp.Format(time.RFC3339Nano))
	findings.WriteLine(&b, "debug mode", fmt.Sprint(c.Debug))
	for _, f := range []struct {
		name  string
		value []byte
	}{{"nonce", u.Nonce}, {"public key", u.PublicKey}, {"user data", u.UserData}} {
		if f.value == nil {
			findings.WriteLine(&b, f.name, "none")
			continue
		}
		findings.WriteLine(&b, f.name, fmt.Sprintf("%d bytes %s", len(f.value), hex.EncodeToString(f.value)))
	}
	writeUserData(&b, u.UserData)
	c.WritePCRs(&b)
	return b.String()
}

// writeUserData explains user data of a form that is known.
func writeUserData(b *strings.Builder, userData []byte) {
	if cert, app, err := attestation.ParseNitridingUserData(userData); err == nil {
		findings.WriteLine(b, "binds", hex.EncodeToString(cert[:])+", SHA-256 of a certificate")
		findings.WriteLine(b, "app hash", hex.EncodeToString(app[:]))
		return
	}
	s, err := attestation.ParseStatement(userData)
	if err != nil {
		return
	}
	findings.WriteLine(b, "purpose", s.Purpose.String())
	for _, key := range s.Keys {
		findings.WriteLine(b, "key", hex.EncodeToString(key[:]))
	}
	for _, cert := range s.Certificates {
		findings.WriteLine(b, "certificate", hex.EncodeToString(cert[:]))
	}
	if s.App != (attestation.Digest{}) {
		findings.WriteLine(b, "app hash", hex.EncodeToString(s.App[:]))
	}
	if s.Config != (attestation.Digest{}) {
		findings.WriteLine(b, "config", hex.EncodeToString(s.Config[:]))
	}
	if s.Tree.Size > 0 {
		findings.WriteLine(b, "tree", fmt.Sprintf("%d nonces, root %x", s.Tree.Size, s.Tree.Root))
	}
}
