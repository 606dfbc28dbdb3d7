package sidecar

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// maxStartup is the size of a configuration that is given at start, in bytes.
	maxStartup = 1 << 20
	// startupTimeout is how long giving it may take.
	startupTimeout = 30 * time.Second
)

// errStartup reports what is no configuration. Another try may bring one.
var errStartup = errors.New("no configuration")

// beginStartup waits for the parent to give the app's configuration: one VSOCK
// stream with all of it, ended by closing that direction, answered with its SHA-256
// in hexadecimal. The first one counts, and the port is closed behind it. It comes
// before the settings are measured, because its digest is among them.
func (s *Sidecar) beginStartup(ctx context.Context) error {
	port := s.cfg.Settings.StartupPort
	l, err := s.cfg.Transport.Listen(port)
	if err != nil {
		return fmt.Errorf("--startup-port %d: %w", port, err)
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	s.cfg.Log.Info("waiting for the app's configuration", "port", port)
	for {
		c, err := l.Accept()
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		content, err := s.receive(ctx, c)
		if err == nil {
			s.startup = content
			s.cfg.Log.Info("the app's configuration is here", "bytes", len(content), "sha256", fmt.Sprintf("%x", sha256.Sum256(content)))
			return nil
		}
		s.cfg.Log.Warn("the app's configuration was not taken", "error", err)
	}
}

// receive reads one configuration and answers.
func (s *Sidecar) receive(ctx context.Context, c net.Conn) ([]byte, error) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if peer, ok := vsockconn.PeerCID(c); !ok || peer != s.cfg.Settings.Link.Parent {
		return nil, fmt.Errorf("%w: from %s, not from the parent", errStartup, c.RemoteAddr())
	}
	if err := c.SetDeadline(s.cfg.Now().Add(startupTimeout)); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(c, maxStartup+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) == 0 || len(content) > maxStartup:
		return nil, fmt.Errorf("%w: it has no bytes, or more than %d", errStartup, maxStartup)
	}
	_, err = fmt.Fprintf(c, "%x\n", sha256.Sum256(content))
	return content, err
}

// published is what strangers may know of the settings and of what was given at
// start.
func (s *Sidecar) published() published {
	p := publish(s.cfg.Settings)
	if s.startup != nil {
		p.Startup = fmt.Sprintf("%x", sha256.Sum256(s.startup))
	}
	return p
}
