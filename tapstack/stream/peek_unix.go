//go:build unix

package stream

import "syscall"

// nothingYet reports whether a read of the socket would have to wait.
func nothingYet(fd int) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(fd, one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN
}
