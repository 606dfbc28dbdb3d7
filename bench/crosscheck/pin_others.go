//go:build !linux

package crosscheck

import (
	"errors"
	"fmt"
	"runtime"
)

func allowed() ([]int, error) {
	return nil, fmt.Errorf("crosscheck: pinning to cores on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func pin([]int) error { return nil } // nothing was pinned
