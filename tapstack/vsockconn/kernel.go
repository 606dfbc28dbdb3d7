package vsockconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
)

const (
	// DefaultDialTimeout bounds Dial where the options and the context do not.
	DefaultDialTimeout = 2 * time.Second
	// DefaultBuffer is the socket buffer, in bytes, where the options name none.
	// It bounds what may be on its way in one direction of one connection; the
	// kernel's own default of 256 KiB throttles bulk, and more delays small
	// messages behind it.
	DefaultBuffer = 1 << 20
)

// KernelOptions are the knobs of the kernel's transport. The zero value is good.
type KernelOptions struct {
	// Buffer is the size of each socket's buffer in bytes; 0 is DefaultBuffer.
	Buffer uint64
	// DialTimeout bounds each Dial, together with its context; 0 is
	// DefaultDialTimeout.
	DialTimeout time.Duration
}

// Kernel returns the transport over the kernel's AF_VSOCK. It opens nothing: a
// machine without VSOCK shows at the first Dial or Listen, whose errors say
// what to do. They wrap the kernel's errno.
func Kernel(o KernelOptions) Transport {
	if o.Buffer == 0 {
		o.Buffer = DefaultBuffer
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	return &kernel{options: o, writeMax: kernelWriteMax, sockets: afVSOCK{}}
}

// sockets is the operating system, as far as the transport needs it.
type sockets interface {
	dial(ctx context.Context, to Addr) (rawConn, error)
	listen(on Addr) (net.Listener, error)
	setBuffer(c rawConn, bytes uint64) error
}

// A rawConn is a connection as package vsock makes it.
type rawConn interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

type kernel struct {
	options  KernelOptions
	writeMax int
	sockets  sockets
}

// String returns "kernel".
func (*kernel) String() string { return "kernel" }

func (k *kernel) Dial(ctx context.Context, to Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, k.options.DialTimeout)
	defer cancel()
	raw, err := k.sockets.dial(ctx, to)
	if err != nil {
		return nil, explain("dial", to, err, dialRemedies())
	}
	return k.newConn(raw, to), nil
}

func (k *kernel) Listen(port uint32) (net.Listener, error) {
	// Not the machine's own CID: on a host with several transports, and on
	// loopback, connections arrive for others.
	on := Addr{CID: CIDAny, Port: port}
	l, err := k.sockets.listen(on)
	if err != nil {
		return nil, explain("listen on", on, err, listenRemedies())
	}
	return &listener{Listener: l, kernel: k}, nil
}

// Adopt makes a listener of a socket of another process.
func (k *kernel) Adopt(file *os.File, port uint32) (net.Listener, error) {
	l, err := adoptVSOCK(file)
	if err != nil {
		return nil, fmt.Errorf("vsockconn: adopt the socket of port %d: %w", port, err)
	}
	return &listener{Listener: l, kernel: k}, nil
}

// A listener gives accepted connections their buffer and our addresses.
type listener struct {
	net.Listener
	kernel *kernel
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	raw, ok := c.(rawConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("vsockconn: accept on %s: a %T is no VSOCK connection", l.Addr(), c)
	}
	return l.kernel.newConn(raw, toAddr(raw.RemoteAddr())), nil
}

// SyscallConn gives the socket, where the system has one.
func (l *listener) SyscallConn() (syscall.RawConn, error) {
	if c, ok := l.Listener.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, fmt.Errorf("vsockconn: socket of %s: %w", l.Addr(), errors.ErrUnsupported)
}

// Addr returns the Addr that is listened on.
func (l *listener) Addr() net.Addr { return toAddr(l.Listener.Addr()) }

// A conn is a rawConn with addresses of ours.
type conn struct {
	rawConn
	local, remote net.Addr // made once: an Addr in an interface allocates
	writeMax      int
}

// newConn raises the buffer of raw and gives it our addresses. A buffer that
// cannot be raised keeps the kernel's size, and a connection that is slower than
// it could be is better than none.
func (k *kernel) newConn(raw rawConn, remote Addr) *conn {
	_ = k.sockets.setBuffer(raw, k.options.Buffer)
	return &conn{rawConn: raw, local: toAddr(raw.LocalAddr()), remote: remote, writeMax: k.writeMax}
}

// WriteMax is what one write to the socket should not exceed, 0 if it may be of any size.
// Those who relay ask; a link is told by who makes it.
func (c *conn) WriteMax() int { return c.writeMax }

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Rebuild makes a connection like this one of a descriptor of its socket, which it
// owns, also after an error.
func (c *conn) Rebuild(file *os.File) (net.Conn, error) {
	raw, err := fileConn(file, c.local, c.remote)
	if err != nil {
		return nil, fmt.Errorf("vsockconn: rebuild the connection to %s: %w", c.remote, err)
	}
	return &conn{rawConn: raw, local: c.local, remote: c.remote, writeMax: c.writeMax}, nil
}

// toAddr turns an address of package vsock into ours; one of another kind
// becomes that of nobody.
func toAddr(a net.Addr) Addr {
	if a, ok := a.(*vsock.Addr); ok {
		return Addr{CID: CID(a.ContextID), Port: a.Port}
	}
	return Addr{CID: CIDAny}
}

// afVSOCK is the real operating system.
type afVSOCK struct{}

func (afVSOCK) dial(ctx context.Context, to Addr) (rawConn, error) {
	// Not returned directly: a nil *vsock.Conn is no nil rawConn.
	c, err := vsock.DialContext(ctx, uint32(to.CID), to.Port, nil)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (afVSOCK) listen(on Addr) (net.Listener, error) { return listenVSOCK(on) }
