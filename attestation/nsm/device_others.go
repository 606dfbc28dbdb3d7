//go:build !linux || !(amd64 || arm64)

package nsm

import (
	"errors"
	"fmt"
	"runtime"
)

type noPool struct{}

func kernelPool(string, string) Pool { return noPool{} }

func (noPool) Source() (string, error)  { return "", errors.ErrUnsupported }
func (noPool) Credit([]byte, int) error { return errors.ErrUnsupported }

func openDevice(path string) (Module, error) {
	return nil, fmt.Errorf("nsm: %s on %s/%s: %w", path, runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}
