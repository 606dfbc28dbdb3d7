package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/bench/vm"
)

// reportPort is the second serial port; the first is the console.
const reportPort = "/dev/ttyS1"

// mount puts the file systems in place that every Linux program expects.
func mount() error {
	for _, m := range []struct{ kind, at string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
	} {
		err := unix.Mount(m.kind, m.at, m.kind, 0, "")
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("guest: mount %s: %w", m.at, err)
		}
	}
	return nil
}

// loadModules loads what the initial file system brought, in its order.
func loadModules() error {
	list, err := os.ReadFile(vm.ModuleList)
	if err != nil {
		return fmt.Errorf("guest: read the list of modules: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		if err := loadModule(lines.Text()); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("guest: open module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("guest: load %s: %w", path, err)
	}
	return nil
}

// addAddress gives an interface of this network namespace an IPv4 address and
// raises it, by the old ioctls: they are all that a machine with one loopback
// interface needs. An alias such as "lo:1" adds to what is there.
func addAddress(name string, addr [4]byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("guest: control socket: %w", err)
	}
	defer unix.Close(fd)

	request, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("guest: interface %s: %w", name, err)
	}
	if err := request.SetInet4Addr(addr[:]); err != nil {
		return fmt.Errorf("guest: address of %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, request); err != nil {
		return fmt.Errorf("guest: set address of %s: %w", name, err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("guest: raise %s: %w", name, err)
	}
	return nil
}

// untilExists waits for a device's file, as long as what makes it has not ended.
func untilExists(path string, ended <-chan error) error {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	end := time.After(patience)
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-look.C:
		case <-end:
			return fmt.Errorf("guest: no %s", path)
		}
	}
}

// powerOff switches the machine off. It does not return.
func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // it cannot return, and nobody is left to tell
	select {}
}
