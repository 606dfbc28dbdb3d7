//go:build !linux

package revproxy

import "errors"

func (c *laneConn) readRaw() error { return errors.ErrUnsupported }
