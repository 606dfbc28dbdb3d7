package vsockconn

import (
	"os"

	"golang.org/x/sys/unix"
)

// setBuffer raises the maximum first, because the kernel cuts the size to it
// (vsock_update_buffer_size in net/vmw_vsock/af_vsock.c). It works on connected
// sockets too: the transport then announces the new credit to its peer.
func (afVSOCK) setBuffer(c rawConn, bytes uint64) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_VM_SOCKETS_BUFFER_MAX_SIZE, unix.SO_VM_SOCKETS_BUFFER_SIZE} {
			if setErr = unix.SetsockoptUint64(int(fd), unix.AF_VSOCK, option, bytes); setErr != nil {
				setErr = os.NewSyscallError("setsockopt", setErr)
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return setErr
}
