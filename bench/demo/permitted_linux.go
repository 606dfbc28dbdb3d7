package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// permitted says, before anything is started, what the machine would have to
// allow.
func (d *Demo) permitted() error {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("demo: no /dev/net/tun: load the tun module (modprobe tun), or in a container add the device (--device /dev/net/tun)")
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("demo: may not open /dev/net/tun: run as root, or chmod 0666 /dev/net/tun")
	case err != nil:
		return fmt.Errorf("demo: /dev/net/tun: %w", err)
	}
	tun.Close()
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	remedy := "run in a container that has CAP_SYS_ADMIN and CAP_NET_ADMIN"
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
		remedy = "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
	}
	probe := exec.Command("/proc/self/exe", "version")
	probe.SysProcAttr = attr
	if err := probe.Run(); err != nil {
		return fmt.Errorf("demo: this machine allows no new network namespace (%w): %s", err, remedy)
	}
	return nil
}
