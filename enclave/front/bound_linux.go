package front

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long ago the last bytes were received and sent on a connection, to some
// milliseconds. One on which nothing was counts from its beginning.
func silence(c *net.TCPConn) (received, sent time.Duration, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	var info *unix.TCPInfo
	if err := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || info == nil {
		return 0, 0, false
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond, time.Duration(info.Last_data_sent) * time.Millisecond, true
}

// descriptors is how many files this process may have open.
func descriptors() (uint64, bool) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return limit.Cur, err == nil
}
