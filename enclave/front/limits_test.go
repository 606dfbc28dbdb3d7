package front_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/enclave/front"
)

// overPipes runs a Front in plain HTTP over in-memory connections, for tests in a
// bubble of their own time, and returns how to connect and how to stop it.
func overPipes(t *testing.T, app http.HandlerFunc, drain time.Duration) (dial func() net.Conn, stop func() error) {
	t.Helper()
	l := newPipeListener()
	stop = run(t, front.Config{Listeners: []net.Listener{l}, Strict: true, Proxy: app, DrainTimeout: drain})
	return func() net.Conn {
		c, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}, stop
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("writing %q: %v", text, err)
	}
}

// TestSlowHeader: a client that never ends its header loses its connection.
func TestSlowHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial, _ := overPipes(t, echoPath, time.Minute)
		c, start := dial(), time.Now()
		say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n")
		_, _ = io.ReadAll(c)
		if got := time.Since(start); got < 10*time.Second || got > 11*time.Second {
			t.Errorf("cut after %s; want 10s", got)
		}
	})
}

// TestLargeHeader: a header without end is refused, not kept.
func TestLargeHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial, _ := overPipes(t, echoPath, time.Minute)
		c := dial()
		go func() { // until the other end closes
			_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 80<<10))
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Fatalf("got %v, %v; want 431", resp, err)
		}
	})
}

// TestIdle: a connection on which nobody asks is closed.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial, _ := overPipes(t, echoPath, time.Minute)
		c := dial()
		say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		start := time.Now()
		if _, err := r.ReadByte(); err == nil {
			t.Fatal("the server spoke unasked")
		}
		if got := time.Since(start); got != 2*time.Minute {
			t.Errorf("idle connection closed after %s; want 2m", got)
		}
	})
}

// TestBody: a body that stops coming is given up, one that is merely long is not,
// and a long answer to a short body is left in peace.
func TestBody(t *testing.T) {
	t.Parallel()
	type outcome struct {
		n    int64
		err  error
		took time.Duration
	}
	tests := []struct {
		name   string
		send   func(c net.Conn)
		answer time.Duration // the app takes after the body
		check  func(o outcome, status int) bool
	}{
		{
			name: "stops",
			send: func(c net.Conn) { _, _ = io.WriteString(c, "half") },
			check: func(o outcome, _ int) bool {
				return errors.Is(o.err, os.ErrDeadlineExceeded) && o.took == 30*time.Second
			},
		},
		{
			name: "slow and steady",
			send: func(c net.Conn) {
				for range 8 {
					time.Sleep(20 * time.Second)
					_, _ = io.WriteString(c, "x")
				}
			},
			check: func(o outcome, status int) bool { return o.n == 8 && o.err == nil && status == 200 },
		},
		{
			name:   "slow answer",
			send:   func(c net.Conn) { _, _ = io.WriteString(c, "complete") },
			answer: time.Hour,
			check:  func(o outcome, status int) bool { return o.n == 8 && o.err == nil && status == 200 },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outcomes := make(chan outcome, 1)
				dial, _ := overPipes(t, func(w http.ResponseWriter, r *http.Request) {
					start := time.Now()
					n, err := io.Copy(io.Discard, r.Body)
					outcomes <- outcome{n, err, time.Since(start)}
					if tt.answer == 0 {
						return
					}
					select {
					case <-time.After(tt.answer):
					case <-r.Context().Done():
						t.Errorf("the request was cancelled: %v", context.Cause(r.Context()))
					}
				}, time.Minute)
				c := dial()
				say(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n")
				go tt.send(c)
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				if o := <-outcomes; !tt.check(o, resp.StatusCode) {
					t.Errorf("outcome %+v, status %d", o, resp.StatusCode)
				}
			})
		})
	}
}

// TestClientStopsReading: a write that nobody takes fails, however long the
// answer may be.
func TestClientStopsReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failed := make(chan error, 1)
		app := func(w http.ResponseWriter, r *http.Request) {
			chunk := make([]byte, 32<<10)
			for {
				if _, err := w.Write(chunk); err != nil {
					failed <- err
					return
				}
			}
		}
		dial, _ := overPipes(t, app, time.Minute)
		c := dial()
		say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		buf := make([]byte, 16<<10)
		for range 20 { // slowly, for five minutes
			if _, err := io.ReadFull(c, buf); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
		}
		start := time.Now()
		err := <-failed
		if got := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || got < 30*time.Second || got > time.Minute {
			t.Errorf("write failed after %s with %v; want a deadline within a minute", got, err)
		}
	})
}
