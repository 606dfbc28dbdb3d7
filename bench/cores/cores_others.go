//go:build !linux

// Package cores keeps processes to some of the machine's cores, on Linux.
package cores

import (
	"errors"
	"fmt"
	"runtime"
)

// Allowed fails here.
func Allowed() ([]int, error) {
	return nil, fmt.Errorf("cores: pinning to cores on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Pin does nothing: there are no cores to name.
func Pin([]int) error { return nil }

// PinThread does nothing either.
func PinThread([]int) error { return nil }
