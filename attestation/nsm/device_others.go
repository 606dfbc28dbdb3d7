//go:build !linux || !(amd64 || arm64)

package nsm

import (
	"errors"
	"fmt"
	"runtime"
)

func openDevice(path string) (Module, error) {
	return nil, fmt.Errorf("nsm: %s on %s/%s: %w", path, runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}
