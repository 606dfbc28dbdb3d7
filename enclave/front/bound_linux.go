package front

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long ago the last bytes were received and sent on a TCP connection, to
// some milliseconds. One on which nothing was counts from its beginning.
func silence(c net.Conn) (received, sent time.Duration, ok bool) {
	var info *unix.TCPInfo
	err := errors.ErrUnsupported
	control(c, func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || info == nil {
		return 0, 0, false
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond, time.Duration(info.Last_data_sent) * time.Millisecond, true
}

// shutDown ends both directions, if the peer was not faster.
func shutDown(c net.Conn) {
	control(c, func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}

// control calls f with the socket of a connection, if it is one and open.
func control(c net.Conn, f func(fd uintptr)) {
	if s, ok := c.(interface{ Control(func(fd uintptr)) error }); ok { // on an event loop
		_ = s.Control(f)
		return
	}
	if raw, err := syscallConn(c); err == nil {
		_ = raw.Control(f)
	}
}

// descriptors is how many files this process may have open.
func descriptors() (uint64, bool) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return limit.Cur, err == nil
}
