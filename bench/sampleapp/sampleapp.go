// Package sampleapp is the app that the demonstration, the tests and the
// measurements put behind the corridor. It is a plain HTTP server that knows
// neither enclave nor VSOCK, as a real app would be; it is no example of how to
// write one.
package sampleapp

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// MaxBytes bounds what /bytes serves and /fetch reads.
	MaxBytes = 1 << 30
	// fetchTimeout bounds one outgoing request.
	fetchTimeout = time.Minute
	// maxWork bounds what one request may cost.
	maxWork = 10 * time.Millisecond
)

// An App serves:
//
//	GET  /               what the request looked like from here, as JSON
//	GET  /hello          12 bytes, the small answer of measurements; counted
//	GET  /hello?work=50us  the same, after so much work of a core
//	GET  /count          how often /hello was asked for
//	GET  /bytes?n=N      N bytes of a fixed pattern
//	GET  /slow?for=1s    an answer in two halves with a pause between
//	POST /echo           the body
//	GET  /fetch?url=URL  length and SHA-256 of what URL answers: egress
//
// The zero value is ready to use.
type App struct {
	hellos atomic.Uint64
	client http.Client
}

// New returns an App.
func New() *App {
	return &App{client: http.Client{Timeout: fetchTimeout, Transport: &http.Transport{
		DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 10 * time.Second,
	}}}
}

// Hellos returns how often /hello was served.
func (a *App) Hellos() uint64 { return a.hellos.Load() }

// ServeHTTP implements http.Handler.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/hello":
		a.serveHello(w, r)
	case "/count":
		fmt.Fprintf(w, "%d\n", a.hellos.Load())
	case "/bytes":
		a.serveBytes(w, r)
	case "/slow":
		a.serveSlow(w, r)
	case "/echo":
		// Without it the server of HTTP/1.1 stops reading at the first byte written,
		// and a large body would come back cut. HTTP/2 has it anyway and refuses.
		_ = http.NewResponseController(w).EnableFullDuplex()
		// A client that went away is not this app's trouble.
		_, _ = io.Copy(w, http.MaxBytesReader(w, r.Body, MaxBytes))
	case "/fetch":
		a.serveFetch(w, r)
	case "/":
		serveSeen(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (a *App) serveHello(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery != "" {
		d, err := time.ParseDuration(r.URL.Query().Get("work"))
		if err != nil || d < 0 || d > maxWork {
			http.Error(w, "work: a duration of up to 10ms is needed", http.StatusBadRequest)
			return
		}
		for end := time.Now().Add(d); time.Now().Before(end); {
			continue // it is to cost a core, which waiting does not
		}
	}
	a.hellos.Add(1)
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprint(w, "hello world\n")
}

// Seen is what GET / answers: the request as the app saw it.
type Seen struct {
	Method string      `json:"method"`
	Host   string      `json:"host"`
	URI    string      `json:"uri"`
	Remote string      `json:"remote"` // the peer of the app's own connection
	Header http.Header `json:"header"`
}

func serveSeen(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, Seen{Method: r.Method, Host: r.Host, URI: r.RequestURI, Remote: r.RemoteAddr, Header: r.Header})
}

// Fetched is what GET /fetch answers.
type Fetched struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // of the body, hexadecimal
}

func (a *App) serveFetch(w http.ResponseWriter, r *http.Request) {
	url := r.URL.Query().Get("url")
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	resp, err := a.client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(resp.Body, MaxBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	writeJSON(w, Fetched{URL: url, Status: resp.StatusCode, Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))})
}

func (a *App) serveSlow(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil || d < 0 || d > fetchTimeout {
		http.Error(w, "for: a duration up to a minute", http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, "first half")
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		fmt.Fprintln(w, "second half")
	case <-r.Context().Done():
	}
}

func (a *App) serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 || n > MaxBytes {
		http.Error(w, fmt.Sprintf("n: a number up to %d", MaxBytes), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.Copy(w, Pattern(n))
}

// Pattern returns n bytes in which every 8-byte group differs from its
// neighbours, so that a lost, doubled or swapped piece changes the checksum.
func Pattern(n int64) io.Reader { return io.LimitReader(&pattern{}, n) }

type pattern struct{ at uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		// A multiplicative hash of the group's number (Knuth, TAOCP 6.4). Whole groups
		// at a time, or the app makes bytes for longer than anybody carries them.
		group := (p.at >> 3) * 0x9e3779b97f4a7c15
		if p.at&7 == 0 && len(b) >= 8 {
			binary.LittleEndian.PutUint64(b, group)
			p.at, b = p.at+8, b[8:]
			continue
		}
		b[0] = byte(group >> (8 * (p.at & 7)))
		p.at, b = p.at+1, b[1:]
	}
	return n, nil
}

// PatternSHA256 returns the checksum of Pattern(n), hexadecimal.
func PatternSHA256(n int64) string {
	sum := sha256.New()
	// Neither a hash nor the pattern fails.
	_, _ = io.Copy(sum, Pattern(n))
	return hex.EncodeToString(sum.Sum(nil))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}
