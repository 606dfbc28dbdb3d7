package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/policyfile"
)

const (
	defaultTimeout = 10 * time.Second
	maxFile        = policyfile.MaxSize
)

// options is a valid command line of attest verify.
type options struct {
	target  *url.URL // https, with a host, and nothing behind its path
	roots   []*x509.Certificate
	accept  []attestation.Accept
	policy  *attestation.Policy
	maxAge  time.Duration
	timeout time.Duration
	json    bool
}

// parseOptions returns the options or every mistake at once. more are flags of
// one subcommand alone.
func parseOptions(args []string, more ...flag) (options, []error) {
	o := options{maxAge: attestation.DefaultMaxAge, timeout: defaultTimeout}
	var root, policy string
	var allowDebug, hasRoot, hasPolicy, hasPCR bool
	pcrs := make(map[int][]byte)
	others, mistakes := parseArguments(args, append([]flag{
		{name: "root", set: once(&root, &hasRoot)},
		{name: "policy", set: once(&policy, &hasPolicy)},
		{name: "pcr", set: func(value string) error {
			hasPCR = true
			return addPCR(pcrs, value)
		}},
		{name: "max-age", set: func(value string) error { return setDuration(&o.maxAge, value) }},
		{name: "timeout", set: func(value string) error { return setDuration(&o.timeout, value) }},
		boolFlag("allow-debug", &allowDebug),
		boolFlag("json", &o.json),
	}, more...))
	bad := func(err error) {
		if err != nil {
			mistakes = append(mistakes, err)
		}
	}
	var err error
	o.target, err = parseTarget(others)
	bad(err)
	o.roots, err = readRoots(root, hasRoot)
	bad(err)
	switch {
	case hasPolicy && hasPCR:
		bad(errors.New("--policy and --pcr are both given: put the registers into the file"))
	case hasPolicy:
		o.accept, err = readPolicy(policy)
		bad(err)
	case len(pcrs) > 0:
		o.accept = []attestation.Accept{{Name: "--pcr", PCRs: pcrs}}
	case !hasPCR:
		bad(errors.New("no expectation: give --policy or --pcr, or every enclave of anybody would be accepted"))
	}
	if len(o.accept) > 0 {
		o.policy, err = attestation.NewPolicy(o.accept, allowDebug)
		bad(err)
	}
	return o, mistakes
}

func once(into *string, given *bool) func(string) error {
	return func(value string) error {
		if *given {
			return errors.New("given twice")
		}
		if value == "" {
			return errors.New("a file is missing")
		}
		*into, *given = value, true
		return nil
	}
}

func addPCR(pcrs map[int][]byte, value string) error {
	index, digits, ok := strings.Cut(value, "=")
	if !ok {
		return fmt.Errorf("%q is not of the form N=HEX", value)
	}
	i, b, err := policyfile.ParsePCR(index, digits)
	if err != nil {
		return err
	}
	if _, twice := pcrs[i]; twice {
		return fmt.Errorf("PCR%d is given twice", i)
	}
	pcrs[i] = b
	return nil
}

func setDuration(into *time.Duration, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a duration above zero, such as 10s or 5m", value)
	}
	*into = d
	return nil
}

func parseTarget(others []string) (*url.URL, error) {
	if len(others) != 1 {
		return nil, fmt.Errorf("%d URLs are given instead of one: %q", len(others), others)
	}
	u, err := url.Parse(others[0])
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("%q is not a URL of the form https://HOST[:PORT][/PATH]", others[0])
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%q has more than host, port and path", others[0])
	}
	return u, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, name)
}

func readAll(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, maxFile)
	}
	return b, nil
}

func readPolicy(name string) ([]attestation.Accept, error) {
	file, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	accept, err := policyfile.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("--policy %s: %w", name, err)
	}
	return accept, nil
}

func readRoots(name string, given bool) ([]*x509.Certificate, error) {
	if !given {
		root, err := attestation.AWSRoot()
		if err != nil {
			return nil, err
		}
		return []*x509.Certificate{root}, nil
	}
	file, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("--root: %w", err)
	}
	roots, err := attestation.ParseRoots(file)
	if err != nil {
		return nil, fmt.Errorf("--root %s: %w", name, err)
	}
	return roots, nil
}
