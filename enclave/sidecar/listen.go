package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/corridor-enclave/corridor/enclave/config"
)

// A listenFunc opens one endpoint.
type listenFunc func(context.Context, config.Endpoint) (net.Listener, error)

// listenAll opens every endpoint of the named setting, or none.
func listenAll(ctx context.Context, setting string, es []config.Endpoint, open listenFunc) ([]net.Listener, error) {
	var ls []net.Listener
	for _, e := range es {
		l, err := open(ctx, e)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--%s %s: %w", setting, e, explain(err)), closeAll(ls))
		}
		ls = append(ls, l)
	}
	return ls, nil
}

func listen(ctx context.Context, e config.Endpoint) (net.Listener, error) {
	if e.Network != "unix" {
		return new(net.ListenConfig).Listen(ctx, e.Network, e.Address)
	}
	if err := os.MkdirAll(filepath.Dir(e.Address), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, e.Address); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", e.Address)
	if err != nil {
		return nil, err
	}
	// The app may run as anybody; whoever is inside the enclave is the app.
	if err := os.Chmod(e.Address, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on any more. Anything else at
// that path is left alone, and listening says that it is in the way.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(syscall.EADDRINUSE, c.Close())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// explain says what to do about the errors of listening that users meet.
func explain(err error) error {
	var remedy string
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "the address is in use: stop what listens there, or choose another"
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		remedy = "not permitted: a port below 1024 needs CAP_NET_BIND_SERVICE, a socket file a folder that may be written to"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "this machine has no such address: the link has 192.168.127.2, and no HOST at all means every address"
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", remedy, err)
}
