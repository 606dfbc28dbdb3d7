package vsockconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// descriptors are two ends of a stream, as a loop gives them back. They stand for those
// of AF_VSOCK, which bench/vm has.
func descriptors(t *testing.T) (a, b *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(pair[0]), "a"), os.NewFile(uintptr(pair[1]), "b")
}

// rebuilt is a connection of ours on a descriptor.
func rebuilt(t *testing.T, file *os.File) net.Conn {
	t.Helper()
	was := &conn{local: Addr{CID: 16, Port: 1443}, remote: Addr{CID: CIDParent, Port: 40000}, writeMax: kernelWriteMax}
	c, err := was.Rebuild(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRebuiltIsAConn(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := descriptors(t)
		c1, c2 = rebuilt(t, a), rebuilt(t, b)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// TestRebuiltTellsEnds: errors are those of a connection, with its addresses, and each
// direction has an end of its own.
func TestRebuiltTellsEnds(t *testing.T) {
	t.Parallel()
	a, b := descriptors(t)
	c, peer := rebuilt(t, a).(*conn), rebuilt(t, b).(*conn)
	defer peer.Close()
	if c.RemoteAddr().String() != "vsock:3:40000" || c.LocalAddr().String() != "vsock:16:1443" || c.WriteMax() != kernelWriteMax {
		t.Errorf("from %s to %s, writes of %d", c.LocalAddr(), c.RemoteAddr(), c.WriteMax())
	}
	_ = c.SetReadDeadline(time.Unix(1, 0))
	var ne net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() || ne.Error() != err.Error() {
		t.Errorf("a Read that is late: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read at the end: %v", err)
	}
	if err := peer.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(nil); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write to a peer that takes nothing: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, readErr := c.Read(make([]byte, 1))
	for name, err := range map[string]error{"Read": readErr, "Close": c.Close(), "CloseWrite": c.CloseWrite()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of what is closed: %v", name, err)
		}
	}
}
