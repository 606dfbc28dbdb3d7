//go:build !linux

package demo

import (
	"errors"
	"fmt"
	"runtime"
)

func (d *Demo) permitted() error {
	return fmt.Errorf("demo: network namespaces on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
