package vsockconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A socket is a connection on a descriptor, of which package vsock makes none.
type socket struct {
	file          *os.File
	local, remote net.Addr
}

// fileConn takes a descriptor that does not block.
func fileConn(file *os.File, local, remote net.Addr) (rawConn, error) {
	return &socket{file, local, remote}, nil
}

func (s *socket) LocalAddr() net.Addr  { return s.local }
func (s *socket) RemoteAddr() net.Addr { return s.remote }

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.file.Read(b)
	return n, s.failed("read", err)
}

func (s *socket) Write(b []byte) (int, error) {
	n, err := s.file.Write(b)
	return n, s.failed("write", err)
}

func (s *socket) Close() error      { return s.failed("close", s.file.Close()) }
func (s *socket) CloseRead() error  { return s.shutDown(unix.SHUT_RD) }
func (s *socket) CloseWrite() error { return s.shutDown(unix.SHUT_WR) }

func (s *socket) shutDown(how int) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var shutErr error
	if raw.Control(func(fd uintptr) { shutErr = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), how)) }) != nil {
		shutErr = net.ErrClosed
	}
	return s.failed("close", shutErr)
}

func (s *socket) SyscallConn() (syscall.RawConn, error) {
	raw, err := s.file.SyscallConn()
	return raw, s.failed("raw", err)
}

func (s *socket) SetDeadline(t time.Time) error { return s.failed("set", s.file.SetDeadline(t)) }

func (s *socket) SetReadDeadline(t time.Time) error {
	return s.failed("set", s.file.SetReadDeadline(t))
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	return s.failed("set", s.file.SetWriteDeadline(t))
}

// failed says what failed as connections do, not as files.
func (s *socket) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var path *os.PathError
	switch {
	case errors.Is(err, os.ErrClosed):
		err = net.ErrClosed
	case errors.As(err, &path):
		err = path.Err
	}
	return &net.OpError{Op: op, Net: "vsock", Source: s.local, Addr: s.remote, Err: err}
}
