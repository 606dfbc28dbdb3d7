package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func noDeadline() time.Time { return time.Time{} }

// send sends the head, and starts to send the body if there is one. Its error is
// of interest only if no answer can be read: an app may refuse a request that
// it has not read.
func (x *exchange) send() error {
	x.writeHead()
	_ = x.c.SetReadDeadline(noDeadline())
	if err := x.c.bw.Flush(); err != nil {
		x.c.bw.Reset(x.c.Conn)
		closeBody(x.req)
		x.awaitHead()
		return err
	}
	if !hasBody(x.req) {
		x.awaitHead()
		return nil
	}
	x.sending = &sending{sent: make(chan struct{}), decided: make(chan bool, 1)}
	go x.sendBody()
	return nil
}

// awaitHead starts the time that the app has for the head of its answer.
func (x *exchange) awaitHead() {
	if t := x.t.cfg.HeaderTimeout; t > 0 {
		_ = x.c.SetReadDeadline(time.Now().Add(t))
	}
}

// writeHead writes the head into the connection's buffer.
func (x *exchange) writeHead() {
	req, w := x.req, x.c.bw
	_, _ = w.WriteString(req.Method)
	_ = w.WriteByte(' ')
	_, _ = w.WriteString(target(req))
	_, _ = w.WriteString(" HTTP/1.1\r\n")
	x.field("Host", host(req))
	for name, values := range req.Header {
		if written(name) {
			continue
		}
		for _, value := range values {
			if value != "" || name != "User-Agent" { // net/http's way to say that there is none
				x.field(name, value)
			}
		}
	}
	switch {
	case chunked(req):
		x.field("Transfer-Encoding", "chunked")
	case req.ContentLength > 0:
		x.field("Content-Length", strconv.FormatInt(req.ContentLength, 10))
	case req.Method == http.MethodPost, req.Method == http.MethodPut, req.Method == http.MethodPatch:
		x.field("Content-Length", "0")
	}
	if len(req.Trailer) > 0 && chunked(req) {
		names := make([]string, 0, len(req.Trailer))
		for name := range req.Trailer {
			names = append(names, name)
		}
		x.field("Trailer", strings.Join(names, ", "))
	}
	_, _ = w.WriteString("\r\n")
}

// field writes one field. Errors stay in the writer until Flush.
func (x *exchange) field(name, value string) {
	w := x.c.bw
	_, _ = w.WriteString(name)
	_, _ = w.WriteString(": ")
	_, _ = w.WriteString(value)
	_, _ = w.WriteString("\r\n")
}

// written reports whether a field is made from the request itself.
func written(name string) bool {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}

func chunked(req *http.Request) bool { return hasBody(req) && req.ContentLength <= 0 }

// target is the request target in origin form.
func target(req *http.Request) string {
	if req.URL.Opaque == "" {
		return req.URL.RequestURI()
	}
	if req.URL.RawQuery != "" || req.URL.ForceQuery {
		return req.URL.Opaque + "?" + req.URL.RawQuery
	}
	return req.URL.Opaque
}

func host(req *http.Request) string {
	if req.Host != "" {
		return req.Host
	}
	return req.URL.Host
}

// A sending is the body of a request on its way.
type sending struct {
	sent    chan struct{} // closed when nothing more will be sent
	err     error         // valid once sent is closed
	fault   atomic.Pointer[error]
	decided chan bool // whether the body is wanted at all, for Expect
	once    sync.Once

	mu       sync.Mutex
	answered bool
}

// complete reports whether the whole body has been sent by now.
func (s *sending) complete() bool {
	select {
	case <-s.sent:
		return s.err == nil
	default:
		return false
	}
}

// goAhead says that the app wants the body.
func (s *sending) goAhead() { s.once.Do(func() { s.decided <- true }) }

// stopWaiting says that the final answer is there: a body that was held back is
// not sent any more, and the head's deadline not set.
func (s *sending) stopWaiting() {
	s.mu.Lock()
	s.answered = true
	s.mu.Unlock()
	s.once.Do(func() { s.decided <- false })
}

var errUnwanted = errors.New("upstream: answered before the body was asked for")

func (x *exchange) sendBody() {
	s := x.sending
	s.err = x.copyBody()
	if x.t.cfg.BodyTimeout > 0 {
		_ = x.c.SetWriteDeadline(time.Time{})
	}
	_ = x.req.Body.Close()
	s.mu.Lock()
	switch {
	case s.fault.Load() != nil:
		_ = x.c.Close() // the app must not wait for the rest, nor take it for whole
	case !s.answered:
		x.awaitHead()
	}
	s.mu.Unlock()
	close(s.sent)
}

// A lentBuffer is what bodies are copied through.
type lentBuffer [32 << 10]byte

func (x *exchange) copyBody() error {
	if err := x.awaitContinue(); err != nil {
		return err
	}
	buf, ok := x.t.buffers.Get().(*lentBuffer)
	if !ok {
		buf = new(lentBuffer)
	}
	defer x.t.buffers.Put(buf)
	var sent int64
	for {
		n, err := x.req.Body.Read(buf[:])
		if n > 0 {
			sent += int64(n)
			if length := x.req.ContentLength; length > 0 && sent > length {
				return x.atFault(errors.New("upstream: the body is longer than it said"))
			}
			if err := x.writeBody(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && !chunked(x.req) && sent < x.req.ContentLength:
			return x.atFault(io.ErrUnexpectedEOF)
		case err == io.EOF:
			return x.writeEnd()
		case err != nil:
			return x.atFault(err)
		}
	}
}

// atFault notes that the body could not be read to its end.
func (x *exchange) atFault(err error) error {
	x.sending.fault.Store(&err)
	return err
}

// awaitContinue holds the body back while the client waits for a word of the app.
func (x *exchange) awaitContinue() error {
	wait := x.t.cfg.ContinueTimeout
	if wait == 0 || !strings.EqualFold(x.req.Header.Get("Expect"), "100-continue") {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case wanted := <-x.sending.decided:
		if !wanted {
			return errUnwanted
		}
	case <-timer.C: // an app that knows no Expect never says it
	case <-x.req.Context().Done():
		return x.req.Context().Err()
	}
	return nil
}

// writeBody sends a piece of the body at once: the client may wait for what the
// app says to it.
func (x *exchange) writeBody(p []byte) error {
	x.bear()
	w := x.c.bw
	if !chunked(x.req) {
		_, _ = w.Write(p)
		return w.Flush()
	}
	_, _ = fmt.Fprintf(w, "%x\r\n", len(p))
	_, _ = w.Write(p)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// bear gives the app some time to take the next piece.
func (x *exchange) bear() {
	if t := x.t.cfg.BodyTimeout; t > 0 {
		_ = x.c.SetWriteDeadline(time.Now().Add(t))
	}
}

// writeEnd sends what follows a body, which for chunks is the last one and the
// trailers.
func (x *exchange) writeEnd() error {
	if !chunked(x.req) {
		return nil
	}
	x.bear()
	_, _ = x.c.bw.WriteString("0\r\n")
	for name, values := range x.req.Trailer {
		for _, value := range values {
			if err := checkField(name, value); err != nil {
				return x.atFault(err)
			}
			x.field(name, value)
		}
	}
	_, _ = x.c.bw.WriteString("\r\n")
	return x.c.bw.Flush()
}
