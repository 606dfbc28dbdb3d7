//go:build unix

package relay

import "syscall"

const canReadRaw = true

// readFD reads what there is. The error is EAGAIN if there is nothing.
func readFD(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
