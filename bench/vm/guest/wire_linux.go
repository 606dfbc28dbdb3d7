package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	echoPort = 9999
	// wirePort is where the enclave is told that its host is. Between it and the
	// host's own port is a wire, so that the stream can be cut while both live.
	wirePort = 2024
)

// echo proves that AF_VSOCK itself works here: a mebibyte to the loopback CID and
// back, a half-close, and the end of the stream.
func echo(ctx context.Context, vsock vsockconn.Transport) (values, error) {
	listener, err := vsock.Listen(echoPort)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	answered := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			answered <- err
			return
		}
		defer conn.Close()
		_, err = io.Copy(conn, conn)
		answered <- err
	}()

	conn, err := vsock.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDLocal, Port: echoPort})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	peer, ok := vsockconn.PeerCID(conn)
	if !ok || peer != vsockconn.CIDLocal {
		return nil, fmt.Errorf("guest: echo: the peer is %v, want CID 1", conn.RemoteAddr())
	}
	const n = 1 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, sampleapp.Pattern(n))
		sent <- errors.Join(err, conn.(interface{ CloseWrite() error }).CloseWrite())
	}()
	sum := sha256.New()
	got, err := io.Copy(sum, conn)
	if err := errors.Join(err, <-sent, <-answered); err != nil {
		return nil, fmt.Errorf("guest: echo: %w", err)
	}
	if hex := fmt.Sprintf("%x", sum.Sum(nil)); got != n || hex != sampleapp.PatternSHA256(n) {
		return nil, fmt.Errorf("guest: echo: %d bytes with SHA-256 %s came back", got, hex)
	}
	return values{"bytes": got, "transport": vsock.String()}, nil
}

// A wire joins VSOCK streams to the host's link port, until it is cut.
type wire struct {
	vsock vsockconn.Transport

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// newWire starts to listen; the wire ends with the machine.
func newWire(vsock vsockconn.Transport) (*wire, error) {
	listener, err := vsock.Listen(wirePort)
	if err != nil {
		return nil, err
	}
	w := &wire{vsock: vsock, conns: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go w.join(conn)
		}
	}()
	return w, nil
}

// join carries one stream. A host that is not there shows as a stream that ends
// at once, like that of a host that has just died.
func (w *wire) join(enclave net.Conn) {
	defer w.drop(enclave)
	host, err := w.vsock.Dial(context.Background(), vsockconn.Addr{CID: vsockconn.CIDLocal, Port: tapstack.LinkPort})
	if err != nil {
		return
	}
	defer w.drop(host)
	w.keep(enclave)
	w.keep(host)
	uplink := make(chan struct{})
	go func() {
		defer close(uplink)
		_, _ = io.Copy(host, enclave) // however it ends, both are closed
		w.drop(host)
	}()
	_, _ = io.Copy(enclave, host)
	w.drop(enclave)
	<-uplink
}

func (w *wire) keep(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = true
}

func (w *wire) drop(c net.Conn) {
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// cut ends every stream and returns how many connections that took.
func (w *wire) cut() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
	return len(w.conns)
}
