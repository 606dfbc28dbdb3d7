package tap

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	tests := []struct {
		errno     unix.Errno
		open      string
		configure string
	}{
		{errno: unix.ENOENT, open: "load the tun module"},
		{errno: unix.ENODEV, open: "load the tun module"},
		{errno: unix.EPERM, open: "CAP_NET_ADMIN", configure: "CAP_NET_ADMIN"},
		{errno: unix.EACCES, open: "access to /dev/net/tun", configure: "CAP_NET_ADMIN"},
		{errno: unix.EBUSY, open: "another process has it"},
		{errno: unix.EINVAL, open: "is no TAP device like ours"},
		{errno: unix.EMFILE, open: "too many open files", configure: "too many open files"},
	}
	for _, tt := range tests {
		err := explainOpen("tap0", os.NewSyscallError("x", tt.errno))
		if !errors.Is(err, tt.errno) || !strings.Contains(err.Error(), "tap: open tap0: ") || !strings.Contains(err.Error(), tt.open) {
			t.Errorf("explainOpen(%v) = %v, want %q", tt.errno, err, tt.open)
		}
		err = explainConfigure("tap0", "bring it up", tt.errno)
		if !errors.Is(err, tt.errno) || !strings.Contains(err.Error(), "tap: configure tap0: bring it up: ") || !strings.Contains(err.Error(), tt.configure) {
			t.Errorf("explainConfigure(%v) = %v, want %q", tt.errno, err, tt.configure)
		}
	}
}
