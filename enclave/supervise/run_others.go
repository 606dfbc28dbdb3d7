//go:build !linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func (*Process) run(context.Context) error {
	return fmt.Errorf("supervise: running an app on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
