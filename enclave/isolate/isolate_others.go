//go:build sim && !linux

package isolate

import (
	"errors"
	"fmt"
	"runtime"
)

func enter(Options) (bool, int, error) {
	return false, 0, fmt.Errorf("isolate: namespaces on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
