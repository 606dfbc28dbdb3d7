// Command attest checks, from a client's side, that the other end of a TLS
// connection is the enclave it should be. What a document has to hold, package
// attestation says; this command fetches one, asks, and prints the answers.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/attestation/findings"
)

// Exit codes. Where a document fails several checks the lowest code counts.
const (
	exitVerified          = findings.Verified
	exitNotDone           = findings.NotDone
	exitUsage             = 2
	exitNotGenuine        = findings.NotGenuine
	exitNotExpected       = findings.NotExpected
	exitNotFresh          = findings.NotFresh
	exitNotThisConnection = findings.NotThisConnection
)

const usage = `usage:
  attest verify URL (--policy FILE | --pcr N=HEX ...) [flags]
      Fetches an attestation document from the enclave at URL (https://HOST[:PORT][/PATH])
      with a fresh nonce, and verifies it and the TLS connection it came over.
      --policy FILE   accept the images that this TOML file lists
      --pcr N=HEX     accept the image with this register; repeat it for more registers
      --root FILE     trust this root (PEM or DER) instead of AWS's
      --allow-debug   accept enclaves in debug mode, if their zeros are listed
      --max-age D     how far the document's time may be from now (default 5m)
      --timeout D     give up after this time (default 10s)
      --json          print the result as JSON
  attest fetch URL [--nonce HEX] [--out FILE] [--timeout D]
      Writes what the enclave at URL answers, document and proof, without verifying anything.
      --nonce HEX     16 to 64 bytes; without it the document may be a minute old
      --out FILE      where to (default: standard output)
  attest proxy URL (--policy FILE | --pcr N=HEX ...) [flags]
      Speaks plain HTTP on this machine and forwards every request to the enclave at URL
      over connections that it has verified, so that curl and browsers can use an enclave.
      --listen ADDR   address and port, of loopback only (default 127.0.0.1:8480)
      --root, --pcr, --policy, --allow-debug, --max-age, --timeout: as above
  attest policy FILE
      Checks a policy file and says what it accepts.
  attest decode FILE|- [--json]
      Prints a document (raw, base64 or JSON) without verifying anything.

  attest eif build --kernel FILE --cmdline TEXT --out FILE [flags]
      Makes an image for Nitro Enclaves, the same bytes for the same content, and prints its PCRs.
      --ramdisk FILE|DIR   a ramdisk, or a folder to pack as one; repeat it, the first counts to PCR1
      --app DIR            the app, as AWS's first ramdisk starts it: a root file system, or an OCI layout; comes last
      --cmd WORD           of the app's command line, if not the OCI image's own; repeat it
      --env NAME=VALUE     of the app's environment; repeat it
      --arch A             x86_64 (default) or arm64
      --name N, --version V   for people, in the metadata
      --sign-certificate FILE --sign-key FILE   sign it (P-384, PEM); sets PCR8
  attest eif inspect FILE             Prints an image's parts, registers and signer.
  attest eif pcr FILE [--policy NAME] Prints its registers as JSON, or as a policy that accepts it.
  attest eif diff FILE FILE           Says where two images differ (exit 1), down to files in ramdisks.

exit codes: 0 verified, 1 could not be done, 2 wrong usage, 3 not genuine, 4 not expected,
            5 not fresh, 6 not this connection
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // after the first signal, a second one kills
	c := command{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, now: time.Now}
	os.Exit(c.run(ctx, os.Args[1:]))
}

// command is everything that the command touches besides files and network.
type command struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
}

func (c command) run(ctx context.Context, args []string) int {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "verify":
		return c.verify(ctx, args)
	case "decode":
		return c.decode(args)
	case "eif":
		return c.eif(args)
	case "fetch":
		return c.fetch(ctx, args)
	case "policy":
		return c.policy(args)
	case "proxy":
		return c.proxy(ctx, args)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(c.stdout, usage)
		return exitVerified
	case "":
		return c.misused(fmt.Errorf("no subcommand"))
	}
	return c.misused(fmt.Errorf("unknown subcommand %q", name))
}

// misused reports every mistake of the command line and how it should be.
func (c command) misused(mistakes ...error) int {
	for _, err := range mistakes {
		fmt.Fprintf(c.stderr, "attest: %v\n", err)
	}
	fmt.Fprint(c.stderr, usage)
	return exitUsage
}
