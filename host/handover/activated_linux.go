package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// firstActivated is the descriptor of the first socket that a service manager
// leaves (sd_listen_fds(3)).
const firstActivated = 3

// maxActivated is more sockets than a service of ours has.
const maxActivated = 1024

// Activated returns the listening sockets that a service manager has opened for
// this process, by the names that NewSockets wants: "tcp:ADDR" with the address as
// it is published, which for every address of the machine is ":PORT". Nil is none:
// the process was started by other means. Sockets of other kinds are an error.
func Activated(environ []string, pid int) (map[string]*os.File, error) {
	n, err := activatedCount(environ, pid)
	if n == 0 || err != nil {
		return nil, err
	}
	sockets := map[string]*os.File{}
	for fd := firstActivated; fd < firstActivated+n; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "activated")
		name, err := socketName(f)
		if err == nil && sockets[name] != nil {
			err = errors.New(name + " is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("handover: descriptor %d of the service manager: %w", fd, err)
		}
		sockets[name] = f
	}
	return sockets, nil
}

// activatedCount is how many sockets were left for the process with that number.
func activatedCount(environ []string, pid int) (int, error) {
	values := map[string]string{}
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		values[key] = value
	}
	if values["LISTEN_PID"] != strconv.Itoa(pid) {
		return 0, nil // for another process, whose child this is
	}
	n, err := strconv.Atoi(values["LISTEN_FDS"])
	if err != nil || n < 0 || n > maxActivated {
		return 0, fmt.Errorf("handover: LISTEN_FDS=%s is no number of sockets", values["LISTEN_FDS"])
	}
	return n, nil
}

// socketName is what a listening socket is called here.
func socketName(f *os.File) (string, error) {
	l, err := net.FileListener(f) // of a copy
	if err != nil {
		return "", err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer l.Close()
	a, ok := l.Addr().(*net.TCPAddr)
	switch {
	case !ok:
		return "", fmt.Errorf("%s %s is no TCP port", l.Addr().Network(), l.Addr())
	case a.IP.IsUnspecified():
		return "tcp::" + strconv.Itoa(a.Port), nil
	}
	return "tcp:" + a.String(), nil
}
