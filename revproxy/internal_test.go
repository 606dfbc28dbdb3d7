package revproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBufferPoolAllocatesNothing(t *testing.T) {
	var p bufferPool
	p.Put(p.Get())
	// AllocsPerRun rounds down, which forgives a collection that empties the
	// pool, and the race detector, under which a pool drops one value in four.
	if allocs := testing.AllocsPerRun(200, func() { p.Put(p.Get()) }); allocs != 0 {
		t.Fatalf("Get and Put allocate %v times", allocs)
	}
	p.Put(nil) // not ours: forgotten
	if b := p.Get(); len(b) != bufferSize {
		t.Fatalf("Get gave %d bytes", len(b))
	}
}

// What cannot be provoked on one machine in a test's time is classified here.
func TestAppFailure(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	tests := []struct {
		name   string
		err    error
		status int
		cause  Cause
	}{
		{"dial timeout", dial(os.ErrDeadlineExceeded), 504, ConnectionTimeout},
		{"no route", dial(syscall.EHOSTUNREACH), 502, Unavailable},
		{"no socket", dial(syscall.ENOENT), 502, ConnectionRefused},
		{"refused", dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), 502, ConnectionRefused},
		{"reset", &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, 502, ConnectionTerminated},
		{"broken pipe", &net.OpError{Op: "write", Err: syscall.EPIPE}, 502, ConnectionTerminated},
		{"idle connection closed", errors.New("http: server closed idle connection"), 502, ConnectionTerminated},
		{"anything else", errors.New("malformed"), 502, ProtocolError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if f := appFailure(tt.err); f.status != tt.status || f.cause != tt.cause || f.reason == "" {
				t.Fatalf("%v is %+v; want %d %s", tt.err, f, tt.status, tt.cause)
			}
		})
	}
}

func TestClientFailure(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name   string
		ctx    context.Context
		fault  error
		status int // 0: not the client's
	}{
		{"nothing wrong", t.Context(), nil, 0},
		{"went away", canceled, nil, statusClientGone},
		{"connection reset", t.Context(), syscall.ECONNRESET, statusClientGone},
		{"stream reset", canceled, errors.New("client disconnected"), statusClientGone},
		{"half-closed", canceled, io.ErrUnexpectedEOF, 400},
		{"malformed", t.Context(), errors.New("invalid byte in chunk length"), 400},
		{"slow", t.Context(), os.ErrDeadlineExceeded, 408},
		{"large", t.Context(), &http.MaxBytesError{Limit: 1}, 413},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := &exchange{Context: tt.ctx, body: io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{tt.fault}))}
			if tt.fault != nil {
				if _, err := io.ReadAll(x); err == nil {
					t.Fatal("the fault was swallowed")
				}
			}
			if f, ok := clientFailure(x); f.status != tt.status || ok != (tt.status != 0) {
				t.Fatalf("%+v, %t; want %d", f, ok, tt.status)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzTarget checks that whatever target net/http's server accepts reaches the
// app as the same bytes.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"/a?b;c", "/%2F|", "/?", "/a/../b", "/\xff?\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		in, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil || in.RequestURI != target || !strings.HasPrefix(target, "/") {
			return // refused before us, or in absolute form, which TestTargets looks at
		}
		u := *in.URL
		setTarget(&u, target, true)
		got := u.Opaque
		if u.RawQuery != "" || u.ForceQuery {
			got += "?" + u.RawQuery
		}
		if got != target {
			t.Fatalf("target %q became %q", target, got)
		}
	})
}

// Pieces of an answer to HTTP/2 fit into one TLS record each, with a frame's head.
func TestWritesInPieces(t *testing.T) {
	t.Parallel()
	var sizes []int
	w := writerFunc(func(p []byte) (int, error) { sizes = append(sizes, len(p)); return len(p), nil })
	if err := writeIn(w, make([]byte, 2*recordSize+1), recordSize); err != nil || !slices.Equal(sizes, []int{16375, 16375, 1}) {
		t.Errorf("%v, %v", sizes, err)
	}
	if err := writeIn(writerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }), make([]byte, 1), 1); err != io.ErrClosedPipe {
		t.Errorf("error %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
