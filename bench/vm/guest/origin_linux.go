package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

const (
	// originAddress is on the host's side and no address of the link, so the only
	// way to it from the enclave is out through the host (RFC 5737, TEST-NET-3).
	originAddress = "203.0.113.10:80"
	// gatedBytes is what GET /gated sends, half of it before the gate.
	gatedBytes = 2 << 20
)

// An origin is the server outside. Beside what the sample app serves it has one
// download that stops in the middle until told to go on:
//
//	GET /gated   first half ── halfway ──► (the test does something) ── goOn ──► second half
type origin struct {
	app     http.Handler
	halfway chan struct{} // receives when a first half is written
	goOn    chan struct{} // lets one second half pass
	server  *http.Server
}

func startOrigin() (*origin, error) {
	listener, err := net.Listen("tcp", originAddress)
	if err != nil {
		return nil, fmt.Errorf("guest: origin: %w", err)
	}
	o := &origin{app: sampleapp.New(), halfway: make(chan struct{}, 1), goOn: make(chan struct{}, 1)}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	go func() { _ = o.server.Serve(listener) }() // it ends with the machine
	return o, nil
}

// ServeHTTP implements http.Handler.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/gated" {
		o.app.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(sampleapp.Pattern(gatedBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(gatedBytes))
	if _, err := io.Copy(w, bytes.NewReader(body[:gatedBytes/2])); err != nil {
		return
	}
	o.halfway <- struct{}{}
	select {
	case <-o.goOn:
		_, _ = io.Copy(w, bytes.NewReader(body[gatedBytes/2:])) // who downloads has the checksum
	case <-r.Context().Done():
	}
}

// reached waits until a gated download is in the middle.
func (o *origin) reached(ctx context.Context) error {
	select {
	case <-o.halfway:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("guest: the gated download did not begin: %w", ctx.Err())
	}
}
