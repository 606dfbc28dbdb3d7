package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// A script is what the app does with one request, and what is asked of it.
type script struct {
	method, body string
	answer       []byte
	closes       bool // the app closes the connection behind its answer
}

// An outcome is everything of an exchange that a caller can see.
type outcome struct {
	Failed    bool // no answer
	Status    int
	Reason    string
	Proto     string
	Length    int64
	Coding    []string
	Close     bool
	Header    http.Header
	Informed  string
	Body      string
	Truncated bool
	Trailer   http.Header
}

// follow carries out one exchange by one of the implementations.
func follow(t *testing.T, tr http.RoundTripper, s *script) outcome {
	t.Helper()
	var o outcome
	req := request(t, s.method, s.body)
	req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			o.Informed += fmt.Sprint(code, h) // maps are printed in order
			return nil
		},
	}))
	res, err := tr.RoundTrip(req)
	if err != nil {
		return outcome{Failed: true}
	}
	defer res.Body.Close()
	o.Status, o.Reason, o.Proto, o.Close = res.StatusCode, res.Status, res.Proto, res.Close
	o.Length, o.Coding, o.Header = res.ContentLength, res.TransferEncoding, res.Header
	if res.StatusCode == http.StatusSwitchingProtocols {
		return o
	}
	content, err := io.ReadAll(res.Body)
	o.Body, o.Truncated = string(content), err != nil
	o.Trailer = maps.Clone(res.Trailer)
	return o
}

// A stage holds the app of the script that is being followed.
type stage struct {
	*app
	script atomic.Pointer[script]
}

func newStage(t testing.TB) *stage {
	t.Helper()
	s := &stage{}
	s.app = newApp(t, func(c net.Conn, r *bufio.Reader) {
		script := s.script.Load()
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if _, err := c.Write(script.answer); err != nil || script.closes {
				return
			}
		}
	})
	return s
}

// both makes the two implementations, configured alike.
func (s *stage) both() (ours *upstream.Transport, stock *http.Transport) {
	ours = upstream.New(upstream.Config{Dial: s.dial, MaxIdle: 1, HeaderTimeout: patience, MaxHeaderBytes: 8 << 10})
	stock = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) },
		MaxIdleConnsPerHost: 1, DisableCompression: true, ResponseHeaderTimeout: patience, MaxResponseHeaderBytes: 8 << 10,
	}
	return ours, stock
}

// compare follows a script by both implementations, and reports how they differ.
func (s *stage) compare(t *testing.T, sc script) {
	t.Helper()
	sc.closes = true // so that an answer without an end has one
	s.script.Store(&sc)
	ours, stock := s.both()
	got, want := follow(t, ours, &sc), follow(t, stock, &sc)
	ours.CloseIdleConnections()
	stock.CloseIdleConnections()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s %q answered by %q\n ours: %+v\nstock: %+v", sc.method, sc.body, sc.answer, got, want)
	}
	if got.Failed || got.Truncated || got.Close || got.Status == http.StatusSwitchingProtocols {
		return
	}

	open := sc
	open.closes = false
	s.script.Store(&open)
	opened := func(tr http.RoundTripper) int64 {
		before := s.conns.Load()
		for range 2 {
			follow(t, tr, &open)
		}
		return s.conns.Load() - before
	}
	ours, stock = s.both()
	defer ours.CloseIdleConnections()
	defer stock.CloseIdleConnections()
	if opened(ours) == 1 && opened(stock) != 1 {
		t.Fatalf("%s answered by %q: the connection is used again; stock does not", sc.method, sc.answer)
	}
}

func answers() []string {
	return []string{
		ok, "", "\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP/1.0 200 OK\r\n\r\nold", "HTTP/1.1 099 Odd\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok, "HTTP/1.1 100 Continue\r\n\r\n" + ok,
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 9<<10) + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + strings.Repeat("x", 70000), ok + ok, "HTTP/2.0 200 OK\r\n\r\n", "SSH-2.0-x\r\n",
	}
}

func methods() []string {
	return []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete, "PROPFIND"}
}

func TestSameAsStock(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, answer := range answers() {
		for _, method := range methods() {
			s.compare(t, script{method: method, answer: []byte(answer)})
		}
		s.compare(t, script{method: http.MethodPost, body: strings.Repeat("body", 3000), answer: []byte(answer)})
	}
}

// FuzzSameAsStock looks for an answer that net/http's Transport understands
// otherwise, or after which it does not use the connection again and ours does.
func FuzzSameAsStock(f *testing.F) {
	for _, answer := range answers() {
		f.Add(uint8(0), "", []byte(answer))
	}
	s := newStage(f)
	f.Fuzz(func(t *testing.T, method uint8, body string, answer []byte) {
		if bytes.Count(answer, []byte("HTTP/")) > 4 || len(body) > 1<<16 {
			return // how many informational answers are too many is not agreed on
		}
		s.compare(t, script{method: methods()[int(method)%len(methods())], body: body, answer: answer})
	})
}
