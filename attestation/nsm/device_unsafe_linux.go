//go:build amd64 || arm64

package nsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"unsafe" // drivers take their messages by address
)

// nsmMessage is struct nsm_raw of linux/nsm.h on 64-bit systems: 32 bytes.
type nsmMessage struct {
	request  syscall.Iovec
	response syscall.Iovec
}

// ioctlNSM is _IOWR(0x0A, 0, struct nsm_raw).
const ioctlNSM = 0xC0200A00

// ioctlAddEntropy is RNDADDENTROPY, _IOW('R', 3, int[2]).
const ioctlAddEntropy = 0x40085203

// device is the open /dev/nsm. The descriptor is not pollable, so Close returns
// at once and the file is really closed when a pending Send is back.
type device struct {
	conn syscall.RawConn
	file *os.File
}

func openDevice(path string) (Module, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("nsm: no security module: %w (it exists only inside a Nitro Enclave, with the kernel module nsm loaded)", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("nsm: security module not accessible: %w (run as root, or make the device readable and writable)", err)
	case err != nil:
		return nil, fmt.Errorf("nsm: security module: %w", err)
	}
	d, err := newDevice(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("nsm: security module: %w", err)
	}
	return d, nil
}

func newDevice(file *os.File) (*device, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeCharDevice == 0 {
		return nil, fmt.Errorf("%s is not a character device", file.Name())
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &device{conn: conn, file: file}, nil
}

// Send blocks until the module has answered or the driver has given up (120 s);
// the kernel offers no way to call a request back, so ctx is not looked at.
func (d *device) Send(_ context.Context, request []byte) ([]byte, error) {
	if len(request) == 0 || len(request) > MaxRequest {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrInput, len(request), MaxRequest)
	}
	answer := make([]byte, MaxAnswer)
	var n uint64
	var errno syscall.Errno
	err := d.conn.Control(func(fd uintptr) { n, errno = exchange(fd, request, answer) })
	switch {
	case err != nil: // the only reason to fail that Control has
		return nil, fmt.Errorf("security module: %w", fs.ErrClosed)
	case errno == syscall.EMSGSIZE:
		return nil, InputTooLarge
	case errno == syscall.ENOTTY:
		return nil, fmt.Errorf("%s is not a security module: %w", d.file.Name(), errno)
	case errno != 0:
		return nil, fmt.Errorf("security module: ioctl: %w", errno)
	case n > uint64(len(answer)):
		return nil, fmt.Errorf("%w: the driver claims %d bytes in a buffer of %d", ErrMalformedAnswer, n, len(answer))
	}
	return answer[:n], nil
}

// exchange runs the ioctl. The buffers are pinned because the kernel finds their
// addresses inside the message, where the runtime does not look for them.
func exchange(fd uintptr, request, answer []byte) (uint64, syscall.Errno) {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&request[0])
	pin.Pin(&answer[0])
	message := &nsmMessage{
		request:  syscall.Iovec{Base: &request[0], Len: uint64(len(request))},
		response: syscall.Iovec{Base: &answer[0], Len: uint64(len(answer))},
	}
	pin.Pin(message)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, ioctlNSM, uintptr(unsafe.Pointer(message)))
	return message.response.Len, errno
}

// addEntropy runs the ioctl with a struct rand_pool_info.
func addEntropy(fd uintptr, info []byte) syscall.Errno {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, ioctlAddEntropy, uintptr(unsafe.Pointer(&info[0])))
	return errno
}

func (d *device) Close() error { return d.file.Close() }
