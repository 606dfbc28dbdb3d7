package sidecar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// give sends a configuration as the machine of that CID, and returns the answer.
func give(t *testing.T, dir string, from vsockconn.CID, content []byte) string {
	t.Helper()
	transport, err := simvsock.Dir(dir, from)
	if err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	for ctx, tick := t.Context(), time.NewTicker(10*time.Millisecond); ; <-tick.C { // until the enclave listens
		if c, err = transport.Dial(ctx, vsockconn.Addr{CID: 16, Port: 1027}); err == nil {
			tick.Stop()
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	defer c.Close()
	_, _ = c.Write(content) // refused in the middle, perhaps; the answer tells
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// TestStartup: the parent's configuration is taken once, measured with the settings,
// and nothing else is.
func TestStartup(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "s-") // short: it becomes the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := newTestSidecar(t, "--link", "off", "--fqdn", "a", "--startup-port", "1027")
	if s.cfg.Transport, err = simvsock.Dir(dir, 16); err != nil {
		t.Fatal(err)
	}
	begun := make(chan error, 1)
	go func() { begun <- s.beginStartup(t.Context()) }()
	for name, content := range map[string][]byte{"nothing": nil, "too much": make([]byte, maxStartup+1)} {
		if answer := give(t, dir, vsockconn.CIDParent, content); answer != "" {
			t.Errorf("%s: answered %q", name, answer)
		}
	}
	if answer := give(t, dir, 17, []byte("another enclave's")); answer != "" {
		t.Errorf("from another enclave: answered %q", answer)
	}
	content := bytes.Repeat([]byte("x"), maxStartup)
	want := fmt.Sprintf("%x", sha256.Sum256(content))
	if answer := give(t, dir, vsockconn.CIDParent, content); answer != want+"\n" {
		t.Errorf("answered %q, want %s", answer, want)
	}
	if err := <-begun; err != nil || !bytes.Equal(s.startup, content) {
		t.Fatalf("%d bytes, %v", len(s.startup), err)
	}
	if err := s.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	published, err := front.Publish(s.published())
	if err != nil || !bytes.Contains(published, []byte(want)) || s.config != sha256.Sum256(published) {
		t.Errorf("%s, %v", published, err)
	}
	if register, err := s.session.DescribePCR(t.Context(), 16); err != nil || !bytes.Equal(register.Value, attestation.Measure(published)) {
		t.Errorf("PCR16: %v", err)
	}
}

// TestStartupIsCalledOff: who is to stop waits for nobody.
func TestStartupIsCalledOff(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "s-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := newTestSidecar(t, "--link", "off", "--fqdn", "a", "--startup-port", "1027")
	if s.cfg.Transport, err = simvsock.Dir(dir, 16); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.beginStartup(ctx); err == nil {
		t.Error("there is a configuration")
	}
}
