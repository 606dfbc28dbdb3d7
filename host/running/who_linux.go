package running

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// whoKey is under which a context says who connected.
type whoKey struct{}

// WithPeer keeps, for By, which process of which user is at the other end of a
// unix socket.
func WithPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var who *unix.Ucred
	_ = raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || who == nil {
		return ctx
	}
	return context.WithValue(ctx, whoKey{}, fmt.Sprintf("user %d, process %d", who.Uid, who.Pid))
}
