package netstack

import "golang.org/x/sys/unix"

const canGather = true

// gather writes the pieces with one call. The error is EAGAIN while there is no
// room for any.
func gather(fd int, pieces [][]byte) (int, error) {
	for {
		n, err := unix.Writev(fd, pieces)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
