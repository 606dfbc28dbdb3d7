//go:build !linux

package vsockconn

import (
	"errors"
	"net"
	"os"

	"github.com/mdlayher/vsock"
)

func listenVSOCK(on Addr) (net.Listener, error) {
	l, err := vsock.ListenContextID(uint32(on.CID), on.Port, nil)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func adoptVSOCK(*os.File) (net.Listener, error) { return nil, errors.ErrUnsupported }
