// This file imports unsafe to call read(2), write(2) and their like past the runtime;
// the package says why.

package nonblock

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Possible says whether this package works here.
const Possible = true

// MaxPieces is how many pieces one Writev takes.
const MaxPieces = 8

// Read reads what the descriptor has, which must not block. The error is EAGAIN if
// that is nothing yet; no bytes without an error are the end.
func Read(fd int, p []byte) (int, error) {
	return call(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p), 0)
}

// Write writes what the descriptor takes, which must not block. The error is EAGAIN
// if that is nothing now.
func Write(fd int, p []byte) (int, error) {
	return call(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p), 0)
}

// Receive is Read of a socket, past what the kernel does for files: of 150 bytes sent and
// received on loopback that is 6 %.
func Receive(fd int, p []byte) (int, error) {
	return call(syscall.SYS_RECVFROM, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p), unix.MSG_DONTWAIT)
}

// Send is Write to a socket, as Receive is Read.
func Send(fd int, p []byte) (int, error) {
	return call(syscall.SYS_SENDTO, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// Writev is Write of up to MaxPieces pieces in their order; of more it panics.
func Writev(fd int, pieces [][]byte) (int, error) {
	var vector [MaxPieces]syscall.Iovec
	for i, p := range pieces {
		vector[i].Base = unsafe.SliceData(p)
		vector[i].SetLen(len(p))
	}
	return call(syscall.SYS_WRITEV, fd, unsafe.Pointer(&vector), len(pieces), 0)
}

// Waiting is how many bytes of a stream Receive would return now; 0 if that is not known.
func Waiting(fd int) int {
	var n int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// call leaves zero what its last arguments are of calls that have so many: the address
// of a peer.
func call(number uintptr, fd int, what unsafe.Pointer, n int, flags uintptr) (int, error) {
	for {
		done, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(what), uintptr(n), flags, 0, 0)
		switch errno {
		case 0:
			return int(done), nil
		case unix.EAGAIN:
			return 0, unix.EAGAIN // a constant, where the conversion allocates nothing
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
