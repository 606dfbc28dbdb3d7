package netstack_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestSilentEnclaveIsNoticed: one that said it answers pings, and is gone without
// an end of its stream. One that never said so may be silent for ever.
func TestSilentEnclaveIsNoticed(t *testing.T) {
	t.Parallel()
	s, err := netstack.New(netstack.Config{PulseEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	attach := func(ctx context.Context, ping bool) error {
		host, enclave := net.Pipe()
		drained := make(chan struct{})
		go func() {
			io.Copy(io.Discard, enclave)
			close(drained)
		}()
		takes := tapstack.Capabilities{Offload: true, Ping: ping, MaxFrame: tapstack.MaxFrame, MTU: 1500}
		err := s.Attach(ctx, host, netstack.Peer{Framing: tapstack.Extended, Takes: takes})
		<-drained
		return err
	}
	if err := attach(t.Context(), true); !errors.Is(err, tapstack.ErrSilent) {
		t.Errorf("an enclave that says nothing: %v, want ErrSilent", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := attach(ctx, false); err != nil {
		t.Errorf("one that answers no pings: %v, want it to live", err)
	}
}

// TestStackAnswersPings, of an enclave that asks before anything else.
func TestStackAnswersPings(t *testing.T) {
	t.Parallel()
	s, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	host, enclave := net.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Attach(t.Context(), host, netstack.Peer{Framing: tapstack.Extended, Takes: tapstack.PlainPeer()})
	}()
	want := tapstacktest.Vector(t, "../testdata/control-answer.hex")
	ping := append([]byte(nil), want...)
	ping[4] = 1
	if _, err := enclave.Write(ping); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(enclave, got); err != nil || string(got) != string(want) {
		t.Errorf("a ping is answered by % x, %v; want % x", got, err, want)
	}
	enclave.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("Attach = %v, want io.EOF", err)
	}
}
