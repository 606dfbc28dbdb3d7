package front

import (
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// counted keeps the tally of requests under way.
func (f *Front) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.requests.add()
		defer f.requests.done()
		defer occupied(r)()
		next.ServeHTTP(w, r)
	})
}

// recovered answers a panic with 500. If the answer has begun, the connection is
// aborted instead, lest half an answer be taken for a whole one.
func (f *Front) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := &begunWriter{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v) // somebody means it
			}
			f.cfg.Log.Error("a handler panicked", "part", "front", "panic", v, "stack", string(debug.Stack()))
			if begun.begun {
				panic(http.ErrAbortHandler)
			}
			http.Error(w, "the enclave failed to handle the request", http.StatusInternalServerError)
		}()
		next.ServeHTTP(begun, r)
	})
}

// A begunWriter knows whether the final answer has begun. Everything else of the
// wrapped writer is found through Unwrap, as http.ResponseController does.
type begunWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *begunWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *begunWriter) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		w.begun = true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *begunWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

func (w *begunWriter) FlushError() error {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// watchBody makes reading r's body fail once nothing has come for the timeout.
// http.Server's ReadTimeout cannot: it would bound the whole upload. The caller
// calls unwatch before the handler returns.
func watchBody(w http.ResponseWriter, r *http.Request, timeout time.Duration) (unwatch func()) {
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}
	}
	b := &watchedBody{ReadCloser: r.Body, control: http.NewResponseController(w), timeout: timeout}
	b.arm()
	r.Body = b
	return b.unwatch
}

// A watchedBody moves the connection's read deadline along with the body. At its
// end the deadline is taken off, because the server then waits on the same
// connection to notice that the client leaves, however long the answer takes.
//
// A proxy's transport may still read when the handler has returned. Then the
// connection is no longer the request's (and net/http's HTTP/2 writer no longer
// there), so the deadline must not be touched any more: mu makes that certain.
type watchedBody struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration

	mu    sync.Mutex
	armed time.Time
	over  bool // the handler has returned
}

// arm moves the deadline, but only if that is worth it: moving it costs a timer
// operation, for HTTP/2 a message to the connection's own goroutine.
func (b *watchedBody) arm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.over || now.Sub(b.armed) < b.timeout/8 {
		return
	}
	b.armed = now
	// Writers without deadlines are those of tests, which need none.
	_ = b.control.SetReadDeadline(now.Add(b.timeout))
}

func (b *watchedBody) disarm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.armed = time.Time{}
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

func (b *watchedBody) unwatch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.arm()
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.disarm()
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.arm() // the server reads a small rest here
	err := b.ReadCloser.Close()
	b.disarm()
	return err
}

// newErrorLog sorts what http.Server says: a failing accept is the operator's
// business, a client's broken handshake is not.
func newErrorLog(l *slog.Logger) *log.Logger { return log.New(&errorLog{l}, "", 0) }

type errorLog struct{ log *slog.Logger }

func (e *errorLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: Accept error") {
		e.log.Warn("cannot accept connections, trying again", "part", "front", "error", text)
	} else {
		e.log.Debug("client", "part", "front", "error", text)
	}
	return len(line), nil
}
