//go:build !unix

package relay

import "errors"

const canReadRaw = false

// readFD is not called.
func readFD(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
