// This file imports unsafe to call recv(2), send(2) and epoll_wait(2) past the
// runtime: a socket that does not block, or a wait of no time, is over at once, and
// to tell the scheduler before and after costs as much as a tenth of a small request.
// read(2) and write(2) do for files what no socket needs: 6 % of a message on loopback.

package eventloop

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// read reads what a socket has, without waiting.
func read(fd int, p []byte) (int, error) { return transfer(syscall.SYS_RECVFROM, fd, p) }

// write writes what a socket takes, without waiting.
func write(fd int, p []byte) (int, error) { return transfer(syscall.SYS_SENDTO, fd, p) }

func transfer(call uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, unix.EAGAIN // a constant, where the conversion allocates nothing
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// glance returns how many events there are, without waiting.
func glance(poll int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0 // interrupted: there are no other errors
	}
	return int(n)
}
