package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/client"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/vm/nsmdevice"
)

// refusesWithoutModule: as long as there is no security module, the production
// enclave must say so and serve nobody.
func refusesWithoutModule(ctx context.Context) (values, error) {
	p, err := process.Start(process.Command{
		Path: "/bin/enclave", Args: []string{"--link", "off", "--app-api", "off", "--fqdn", fqdn, "--front", "tcp:127.0.0.1:0"},
	})
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-p.Done():
	case <-ctx.Done():
		return nil, errors.New("guest: the enclave runs without a security module")
	}
	if said := p.Tail(3); p.ExitCode() != 1 || !strings.Contains(said, "no security module") {
		return nil, fmt.Errorf("guest: without a module the enclave ended with %d: %s", p.ExitCode(), said)
	}
	return values{"exit": p.ExitCode()}, nil
}

// startModule puts a /dev/nsm into the machine. It lives as long as the machine.
func startModule() (*attestationtest.Module, error) {
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: fqdn})
	if err != nil {
		return nil, err
	}
	cuse, err := os.OpenFile("/dev/cuse", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("guest: open: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- nsmdevice.Serve(context.Background(), cuse, module) }()
	return module, untilExists("/dev/"+nsmdevice.Name, ended)
}

// verified asks the app, over connections whose other end has proven what it is,
// and to nobody who expects another image.
func (c *corridor) verified(ctx context.Context, module *attestationtest.Module) (values, error) {
	roots, err := attestation.ParseRoots(module.RootPEM())
	if err != nil {
		return nil, err
	}
	pcrs := module.PCRs()
	expected := map[int][]byte{0: pcrs[0], 1: pcrs[1], 2: pcrs[2]}
	get := func(expected map[int][]byte) (string, error) {
		policy, err := attestation.NewPolicy([]attestation.Accept{{Name: "the test's image", PCRs: expected}}, false)
		if err != nil {
			return "", err
		}
		dialer, err := client.NewDialer(client.Config{Roots: roots, Policy: policy, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", streamed)
		}})
		if err != nil {
			return "", err
		}
		transport := client.NewTransport(dialer)
		defer transport.CloseIdleConnections()
		return ask(ctx, transport, "https://"+fqdn+"/hello")
	}
	body, err := get(expected)
	if err != nil || body != "hello world\n" {
		return nil, fmt.Errorf("guest: the app by a verified connection: %q, %w", body, err)
	}
	expected[1] = make([]byte, len(pcrs[1]))
	expected[1][0] = 1
	if _, err := get(expected); !errors.Is(err, attestation.ErrNotExpected) {
		return nil, fmt.Errorf("guest: another image was expected, and the answer was %w", err)
	}
	return nil, nil
}

// ask gets a small body.
func ask(ctx context.Context, transport http.RoundTripper, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return string(body), err
}
