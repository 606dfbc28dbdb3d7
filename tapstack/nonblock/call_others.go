//go:build !unix

package nonblock

import "errors"

// Possible says whether this package works here.
const Possible = false

// MaxPieces is how many pieces one Writev takes.
const MaxPieces = 8

// Read does not work here.
func Read(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Write does not work here.
func Write(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Receive does not work here.
func Receive(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Send does not work here.
func Send(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Writev does not work here.
func Writev(int, [][]byte) (int, error) { return 0, errors.ErrUnsupported }

// Waiting does not know.
func Waiting(int) int { return 0 }
