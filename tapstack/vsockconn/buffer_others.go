//go:build !linux

package vsockconn

import (
	"errors"
	"fmt"
	"runtime"
)

func (afVSOCK) setBuffer(rawConn, uint64) error {
	return fmt.Errorf("AF_VSOCK on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
