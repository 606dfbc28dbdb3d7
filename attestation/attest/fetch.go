package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/client"
)

// fetch writes what an enclave answers, as it came.
func (c command) fetch(ctx context.Context, args []string) int {
	var nonce []byte
	var out string
	var hasOut bool
	timeout := defaultTimeout
	others, mistakes := parseArguments(args, []flag{
		{name: "nonce", set: func(value string) (err error) {
			nonce, err = parseNonce(value)
			return err
		}},
		{name: "out", set: once(&out, &hasOut)},
		{name: "timeout", set: func(value string) error { return setDuration(&timeout, value) }},
	})
	target, err := parseTarget(others)
	if err != nil {
		mistakes = append(mistakes, err)
	}
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := client.Fetch(ctx, nil, target, nonce)
	if err == nil {
		err = c.write(out, answer.Body)
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: %v\n", err)
		return exitNotDone
	}
	fmt.Fprintf(c.stderr, "attest: not verified: %d bytes at %s\n", len(answer.Body), c.now().UTC().Format(time.RFC3339))
	return exitVerified
}

func parseNonce(value string) ([]byte, error) {
	nonce, err := hex.DecodeString(value)
	if err != nil || len(nonce) < attestation.MinTreeNonce || len(nonce) > attestation.MaxTreeNonce {
		return nil, fmt.Errorf("%q is not %d to %d bytes in hexadecimal", value, attestation.MinTreeNonce, attestation.MaxTreeNonce)
	}
	return nonce, nil
}

// write writes to a file, or to standard output if it has no name.
func (c command) write(name string, content []byte) error {
	if name == "" {
		_, err := c.stdout.Write(content)
		return err
	}
	return os.WriteFile(name, content, 0o644)
}
