package tapstack_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
)

// serve starts an HTTP server whose handler is h, and returns its address.
func serve(t *testing.T, h http.HandlerFunc) net.Addr {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadTimeout: time.Minute, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve = %v", err)
		}
	})
	return listener.Addr()
}

func connectTo(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(context.Background(), addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestHijackRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		request string
		status  string
	}{
		{name: "GET", request: "GET /connect HTTP/1.1\r\nHost: x\r\n\r\n", status: "HTTP/1.1 405 "},
		{name: "a body", request: "POST /connect HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", status: "HTTP/1.1 400 "},
		{name: "a body of unknown length", request: "POST /connect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: "HTTP/1.1 400 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refused := make(chan error, 1)
			addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				conn, err := tapstack.Hijack(w, r)
				if conn != nil {
					conn.Close()
				}
				refused <- err
			})
			conn := connectTo(t, addr)
			if _, err := io.WriteString(conn, tt.request); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), tt.status) {
				t.Errorf("answer is %q, %v; want %q", answer, err, tt.status)
			}
			if err := <-refused; err == nil {
				t.Error("Hijack returned no error")
			}
		})
	}
}

func TestHijackNeedsAConnection(t *testing.T) {
	t.Parallel()
	w := &plainWriter{header: http.Header{}}
	r, err := http.NewRequest(http.MethodPost, tapstack.ConnectPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tapstack.Hijack(w, r); err == nil || w.status != http.StatusInternalServerError {
		t.Errorf("Hijack = %v with status %d, want an error with 500", err, w.status)
	}
}

// A plainWriter is a response without a connection, as in HTTP/2.
type plainWriter struct {
	header http.Header
	status int
}

func (w *plainWriter) Header() http.Header         { return w.header }
func (w *plainWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *plainWriter) WriteHeader(status int)      { w.status = status }

// TestHijackLosesNoBytes is the trap of stock hosts: frames in the very segment
// of the request are in the HTTP server's buffer when the handler takes over.
func TestHijackLosesNoBytes(t *testing.T) {
	t.Parallel()
	all := vector(t, "request-and-frames.hex")
	request := vector(t, "connect-request.hex")
	for _, behind := range []int{0, 1, 2, 3, 16, 17, 59, 60} { // bytes in the request's own write
		frames := make(chan []byte, 1)
		addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
			conn, err := tapstack.Hijack(w, r)
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			defer conn.Close()
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Errorf("read: %v", err)
			}
			frames <- got
		})
		conn := connectTo(t, addr)
		if _, err := conn.Write(all[:len(request)+behind]); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(all[len(request)+behind:]); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, want := <-frames, vector(t, "frames-two.hex"); !bytes.Equal(got, want) {
			t.Errorf("%d bytes behind the request: stream is % x, want % x", behind, got, want)
		}
		if answer, err := io.ReadAll(conn); err != nil || len(answer) != 0 {
			t.Errorf("host answered %q, %v; want nothing", answer, err)
		}
	}
}

// A stock host, for comparison: it is why the enclave probes.
func TestStockHostLosesBytes(t *testing.T) {
	t.Parallel()
	lost := make(chan int, 1)
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Errorf("Hijack: %v", err)
			return
		}
		conn.Close()
		lost <- rw.Reader.Buffered()
	})
	if _, err := connectTo(t, addr).Write(vector(t, "request-and-frames.hex")); err != nil {
		t.Fatal(err)
	}
	if got, want := <-lost, len(vector(t, "frames-two.hex")); got != want {
		t.Errorf("the HTTP server had read %d bytes ahead, want %d", got, want)
	}
}
