//go:build !linux

package vsockconn

import (
	"errors"
	"net"
	"os"
)

func fileConn(file *os.File, _, _ net.Addr) (rawConn, error) {
	file.Close()
	return nil, errors.ErrUnsupported
}
