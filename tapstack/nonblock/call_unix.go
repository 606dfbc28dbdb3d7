//go:build unix && !linux

package nonblock

import (
	"bytes"
	"syscall"
)

// Possible says whether this package works here.
const Possible = true

// MaxPieces is how many pieces one Writev takes.
const MaxPieces = 8

// Read is what it is on Linux.
func Read(fd int, p []byte) (int, error) { return again(syscall.Read, fd, p) }

// Write is what it is on Linux.
func Write(fd int, p []byte) (int, error) { return again(syscall.Write, fd, p) }

// Receive is Read.
func Receive(fd int, p []byte) (int, error) { return Read(fd, p) }

// Send is Write.
func Send(fd int, p []byte) (int, error) { return Write(fd, p) }

// Writev writes the pieces as one.
func Writev(fd int, pieces [][]byte) (int, error) { return Write(fd, bytes.Join(pieces, nil)) }

// Waiting does not know.
func Waiting(int) int { return 0 }

func again(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
