package vsockconn

import (
	"net"
	"os"
	"syscall"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// A filed listener keeps a descriptor of its socket, because package vsock shows
// none, and another process may be given it.
type filed struct {
	*vsock.Listener
	file *os.File
}

// SyscallConn gives the socket.
func (l *filed) SyscallConn() (syscall.RawConn, error) { return l.file.SyscallConn() }

// Close closes the socket.
func (l *filed) Close() error {
	l.file.Close()
	return l.Listener.Close()
}

func listenVSOCK(on Addr) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), on.String())
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: uint32(on.CID), Port: on.Port}); err != nil {
		file.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		file.Close()
		return nil, os.NewSyscallError("listen", err)
	}
	return newFiled(file)
}

// adoptVSOCK does not keep the file.
func adoptVSOCK(file *os.File) (net.Listener, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return newFiled(os.NewFile(uintptr(fd), file.Name()))
}

// newFiled takes the file, which does not block.
func newFiled(file *os.File) (net.Listener, error) {
	l, err := vsock.FileListener(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &filed{l, file}, nil
}
