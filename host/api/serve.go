package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/host/running"
)

const (
	requestTimeout = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeader      = 16 << 10
	// stopTimeout is how long requests may go on after Serve was asked to stop.
	stopTimeout = 2 * time.Second
)

// Listen opens the control address, "unix:PATH" or "tcp:HOST:PORT". A unix
// socket belongs to this user alone (mode 0600); its folder is made if it is
// missing, and a socket that nobody listens on any more is replaced.
func Listen(control string) (net.Listener, error) {
	kind, where, _ := strings.Cut(control, ":")
	if kind == "unix" {
		return listenUnix(where)
	}
	l, err := net.Listen("tcp", where)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("api: control address %s is in use by another program: stop it or choose another with --control", where)
	}
	if err != nil {
		return nil, fmt.Errorf("api: control address %s: %w", where, err)
	}
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("api: folder of the control socket: %w (choose another with --control)", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("api: control socket %s is in use: another host runs; stop it or choose another with --control", path)
	}
	// The socket gets its mode under another name: at no time can others open it.
	hidden := path + ".new"
	if err := os.Remove(hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("api: control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("api: control socket: %w (choose another with --control)", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(hidden, 0o600)
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		l.Close()
		os.Remove(hidden)
		return nil, fmt.Errorf("api: control socket: %w", err)
	}
	return &unixListener{UnixListener: l, path: path, unlink: true}, nil
}

// Adopt makes a listener of a control socket that another process opened, by
// Listen on the same address. It does not keep the file.
func Adopt(control string, file *os.File) (net.Listener, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("api: adopt the control socket: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		_, path, _ := strings.Cut(control, ":")
		return &unixListener{UnixListener: u, path: path}, nil
	}
	return l, nil
}

// A unixListener removes its socket by the name that it has now.
type unixListener struct {
	*net.UnixListener
	path   string
	unlink bool
}

// SetUnlinkOnClose says whether Close removes the socket.
func (l *unixListener) SetUnlinkOnClose(unlink bool) { l.unlink = unlink }

// Close stops listening and removes the socket, unless it is another process's.
func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	if err == nil && l.unlink {
		err = os.Remove(l.path)
	}
	return err
}

// Addr is the address that clients connect to.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Serve answers on l until ctx ends; then it lets requests finish, and returns
// nil. It closes l.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       running.WithPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("listening", "part", "control", "addr", l.Addr().String())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("api: %w", err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(patience); err != nil {
		srv.Close()
	}
	<-served
	return nil
}
