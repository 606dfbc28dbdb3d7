package vsockconn

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/vsock"
)

func TestAddr(t *testing.T) {
	t.Parallel()
	tests := []struct {
		addr Addr
		want string
	}{
		{addr: Addr{CID: CIDParent, Port: 1024}, want: "vsock:3:1024"},
		{addr: Addr{CID: CIDAny, Port: 1443}, want: "vsock:any:1443"},
		{addr: Addr{CID: 4294967294, Port: 4294967294}, want: "vsock:4294967294:4294967294"},
	}
	for _, tt := range tests {
		if got := tt.addr.String(); got != tt.want || tt.addr.Network() != "vsock" {
			t.Errorf("%#v is %s on %s, want %s on vsock", tt.addr, got, tt.addr.Network(), tt.want)
		}
	}
}

// A fakeSystem is an operating system whose answers the test makes.
type fakeSystem struct {
	dialed    func(ctx context.Context) (rawConn, error)
	accepted  chan net.Conn
	listenErr error
	buffers   []uint64
}

func (f *fakeSystem) dial(ctx context.Context, _ Addr) (rawConn, error) { return f.dialed(ctx) }

func (f *fakeSystem) listen(Addr) (net.Listener, error) {
	if f.listenErr != nil {
		return nil, f.listenErr
	}
	return fakeListener{f}, nil
}

func (f *fakeSystem) setBuffer(_ rawConn, bytes uint64) error {
	f.buffers = append(f.buffers, bytes)
	return syscall.EINVAL // does not cost the connection
}

type fakeListener struct{ f *fakeSystem }

func (l fakeListener) Accept() (net.Conn, error) {
	c, ok := <-l.f.accepted
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (fakeListener) Close() error { return nil }
func (fakeListener) Addr() net.Addr {
	return &vsock.Addr{ContextID: uint32(CIDAny), Port: 1024}
}

// A fakeConn has addresses and can be closed.
type fakeConn struct {
	rawConn
	remote *vsock.Addr
}

func (c *fakeConn) LocalAddr() net.Addr  { return &vsock.Addr{ContextID: 16, Port: 40000} }
func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }
func (c *fakeConn) Close() error         { return nil }

func (f *fakeSystem) transport() Transport {
	return &kernel{options: KernelOptions{Buffer: 1 << 20, DialTimeout: DefaultDialTimeout}, writeMax: kernelWriteMax, sockets: f}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	tests := []struct {
		errno error
		dial  string
		bind  string
	}{
		{errno: syscall.EAFNOSUPPORT, dial: "no AF_VSOCK (load the vsock module", bind: "no AF_VSOCK (load the vsock module"},
		{errno: syscall.ENODEV, dial: "no VSOCK device leads to that CID", bind: "no VSOCK device"},
		{errno: syscall.ENETUNREACH, dial: "no VSOCK device leads to that CID"},
		{errno: syscall.ECONNREFUSED, dial: "nobody listens there"},
		{errno: syscall.ECONNRESET, dial: "nobody listens there"},
		{errno: syscall.ETIMEDOUT, dial: "no answer"},
		{errno: context.DeadlineExceeded, dial: "no answer"},
		{errno: os.ErrDeadlineExceeded, dial: "no answer"},
		{errno: syscall.EADDRINUSE, bind: "another process listens on that port"},
		{errno: syscall.EACCES, dial: "not permitted", bind: "CAP_NET_BIND_SERVICE"},
		{errno: syscall.EMFILE, dial: "too many open files", bind: "too many open files"},
	}
	for _, tt := range tests {
		t.Run(tt.errno.Error(), func(t *testing.T) {
			t.Parallel()
			wrapped := &net.OpError{Op: "x", Net: "vsock", Err: os.NewSyscallError("x", tt.errno)}
			f := &fakeSystem{listenErr: wrapped, dialed: func(context.Context) (rawConn, error) { return nil, wrapped }}
			conn, err := f.transport().Dial(t.Context(), Addr{CID: 3, Port: 1024})
			if conn != nil || !errors.Is(err, tt.errno) || !strings.Contains(err.Error(), "dial vsock:3:1024: ") || !strings.Contains(err.Error(), tt.dial) {
				t.Errorf("Dial = %v, %v; want nil and %q", conn, err, tt.dial)
			}
			l, err := f.transport().Listen(1024)
			if l != nil || !errors.Is(err, tt.errno) || !strings.Contains(err.Error(), "listen on vsock:any:1024: ") || !strings.Contains(err.Error(), tt.bind) {
				t.Errorf("Listen = %v, %v; want nil and %q", l, err, tt.bind)
			}
		})
	}
}

func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSystem{dialed: func(ctx context.Context) (rawConn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		start := time.Now()
		if _, err := f.transport().Dial(t.Context(), Addr{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, want a deadline", err)
		}
		if took := time.Since(start); took != DefaultDialTimeout {
			t.Errorf("Dial took %v, want %v", took, DefaultDialTimeout)
		}
	})
}

func TestConnectionsCarryAddresses(t *testing.T) {
	t.Parallel()
	f := &fakeSystem{
		dialed: func(context.Context) (rawConn, error) {
			return &fakeConn{remote: &vsock.Addr{ContextID: 3, Port: 1024}}, nil
		},
		accepted: make(chan net.Conn, 3),
	}
	conn, err := f.transport().Dial(t.Context(), Addr{CID: CIDParent, Port: 1024})
	if err != nil {
		t.Fatal(err)
	}
	if cid, ok := PeerCID(conn); !ok || cid != CIDParent || conn.LocalAddr() != (Addr{CID: 16, Port: 40000}) {
		t.Errorf("dialed %v from %v, want CID 3 from vsock:16:40000", conn.RemoteAddr(), conn.LocalAddr())
	}
	l, err := f.transport().Listen(1024)
	if err != nil {
		t.Fatal(err)
	}
	f.accepted <- &fakeConn{remote: &vsock.Addr{ContextID: 16, Port: 5}}
	conn, err = l.Accept()
	if err != nil || conn.RemoteAddr() != (Addr{CID: 16, Port: 5}) {
		t.Errorf("accepted %v, %v; want the one from vsock:16:5", conn, err)
	}
	foreign, other := net.Pipe()
	defer other.Close()
	f.accepted <- foreign
	close(f.accepted)
	if _, err := l.Accept(); err == nil || !strings.Contains(err.Error(), "no VSOCK connection") {
		t.Errorf("Accept of a pipe = %v, want an error", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end = %v, want net.ErrClosed", err)
	}
	if l.Addr() != (Addr{CID: CIDAny, Port: 1024}) {
		t.Errorf("Addr = %v, want vsock:any:1024", l.Addr())
	}
	for _, buffer := range f.buffers {
		if buffer != 1<<20 {
			t.Errorf("buffer is %d, want %d", buffer, 1<<20)
		}
	}
	if len(f.buffers) != 2 {
		t.Errorf("%d buffers raised, want 2", len(f.buffers))
	}
}

func TestPeerCIDOfAnotherKind(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if cid, ok := PeerCID(a); ok {
		t.Errorf("PeerCID of a pipe = %v, want none", cid)
	}
}

func TestKernelDefaults(t *testing.T) {
	t.Parallel()
	tr := Kernel(KernelOptions{})
	if tr.String() != "kernel" {
		t.Errorf("String = %q, want kernel", tr)
	}
	if got := tr.(*kernel).writeMax; got != 31<<10 {
		t.Errorf("writes of %d, want those that are known to be good", got)
	}
	if got, want := tr.(*kernel).options, (KernelOptions{Buffer: DefaultBuffer, DialTimeout: DefaultDialTimeout}); got != want {
		t.Errorf("options are %+v, want %+v", got, want)
	}
}

// What the transport is told, each of its connections says; where nothing was, it is
// what is known to be good.
func TestConnectionsSayTheirLimit(t *testing.T) {
	t.Parallel()
	f := &fakeSystem{dialed: func(context.Context) (rawConn, error) { return &fakeConn{}, nil }}
	for _, tt := range []struct {
		name string
		on   Transport
		want int
	}{
		{"not told", f.transport(), 31 << 10},
		{"less", Limited(f.transport(), 512), 512},
		{"none", Limited(f.transport(), 0), 0},
	} {
		c, err := tt.on.Dial(t.Context(), Addr{CID: CIDParent, Port: 1024})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*conn).WriteMax(); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	other := &struct{ Transport }{}
	if Limited(other, 512) != Transport(other) {
		t.Error("a transport that is not the kernel's has changed")
	}
}
