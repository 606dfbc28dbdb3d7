// This file imports unsafe to call read(2), write(2), writev(2) and ioctl(2) past the runtime;
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
	return call(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p))
}

// Write writes what the descriptor takes, which must not block. The error is EAGAIN
// if that is nothing now.
func Write(fd int, p []byte) (int, error) {
	return call(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(p)), len(p))
}

// Writev is Write of up to MaxPieces pieces in their order; of more it panics.
func Writev(fd int, pieces [][]byte) (int, error) {
	var vector [MaxPieces]syscall.Iovec
	for i, p := range pieces {
		vector[i].Base = unsafe.SliceData(p)
		vector[i].SetLen(len(p))
	}
	return call(syscall.SYS_WRITEV, fd, unsafe.Pointer(&vector), len(pieces))
}

// Waiting is how many bytes of a stream Read would return now; 0 if that is not known.
func Waiting(fd int) int {
	var n int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

func call(number uintptr, fd int, what unsafe.Pointer, n int) (int, error) {
	for {
		done, _, errno := syscall.RawSyscall(number, uintptr(fd), uintptr(what), uintptr(n))
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
