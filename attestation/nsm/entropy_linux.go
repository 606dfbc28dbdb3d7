//go:build amd64 || arm64

package nsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

type kernel struct{ current, random string }

func kernelPool(current, random string) Pool { return kernel{current, random} }

// Source reads what the hw_random framework has chosen: "none" where there is
// nothing to choose from.
func (k kernel) Source() (string, error) {
	name, err := os.ReadFile(k.current)
	if err != nil {
		return "", fmt.Errorf("nsm: hardware generator: %w", err)
	}
	return strings.TrimSpace(string(name)), nil
}

// Credit is RNDADDENTROPY of random(4): a write to /dev/random alone would mix the
// seed in and count nothing.
func (k kernel) Credit(seed []byte, bits int) error {
	random, err := os.OpenFile(k.random, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer random.Close()
	conn, err := random.SyscallConn()
	if err != nil {
		return err
	}
	// struct rand_pool_info of linux/random.h: both numbers are of type int.
	info := binary.NativeEndian.AppendUint32(nil, uint32(bits))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(seed)))
	info = append(info, seed...)
	var errno syscall.Errno
	if err := conn.Control(func(fd uintptr) { errno = addEntropy(fd, info) }); err != nil {
		return err
	}
	switch {
	case errors.Is(errno, syscall.EPERM):
		return fmt.Errorf("%s: %w (it takes CAP_SYS_ADMIN)", k.random, errno)
	case errno != 0:
		return fmt.Errorf("%s: ioctl: %w", k.random, errno)
	}
	return nil
}
