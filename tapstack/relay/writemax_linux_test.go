package relay_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// A limited connection takes small writes only. Each of them is a packet of its own.
type limited struct{ *net.UnixConn }

const limit = 1000

func (limited) WriteMax() int { return limit }
func (limited) Socketed()     {}

// TestWritesKeepToTheLimit: on goroutines and on a loop, no write is larger than the
// destination allows, and nothing is lost.
func TestWritesKeepToTheLimit(t *testing.T) {
	t.Parallel()
	var engine relay.Engine
	for name, start := range map[string]func(context.Context, net.Conn, net.Conn, relay.Options) (relay.Result, error){
		"goroutines": relay.Relay, "loop": engine.Relay,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, a := pair(t, "tcp")
			b, server := packets(t)
			relayed := make(chan error, 1)
			go func() {
				_, err := start(t.Context(), a, limited{b}, relay.Options{})
				relayed <- err
			}()
			sent := make([]byte, 300<<10)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			go func() {
				_, _ = client.Write(sent)
				_ = client.(*net.TCPConn).CloseWrite()
			}()
			var got []byte
			packet := make([]byte, relay.DefaultBufferSize)
			for {
				n, err := server.Read(packet)
				if n > limit {
					t.Errorf("a write of %d bytes", n)
				}
				got = append(got, packet[:n]...)
				if err == io.EOF || n == 0 {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, sent) {
				t.Errorf("%d bytes arrived, and are not the %d that were sent", len(got), len(sent))
			}
			server.Close()
			client.Close()
			<-relayed
		})
	}
}

// packets is a pair of connections that keep the borders of writes.
func packets(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	at := &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(t.TempDir(), "p")}
	l, err := net.ListenUnix("unixpacket", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.DialUnix("unixpacket", nil, at); err != nil {
		t.Fatal(err)
	}
	if far, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	return near, far
}
