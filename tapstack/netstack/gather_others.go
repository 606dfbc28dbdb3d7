//go:build !linux

package netstack

import "errors"

// canGather is false: pieces are copied together and written with one Write.
const canGather = false

func gather(int, [][]byte) (int, error) { return 0, errors.ErrUnsupported }
