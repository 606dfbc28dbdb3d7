// Package simvsock simulates VSOCK by unix sockets, for machines without it. It
// is part of the host, of tests and of the simulated enclave, and never of the
// production enclave: whoever may open the sockets may claim any CID.
package simvsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// DefaultGuest is the CID of an enclave that did not say which it has.
	DefaultGuest vsockconn.CID = 16
	// dialTimeout bounds Dial together with its context, as on AF_VSOCK.
	dialTimeout = 2 * time.Second
	// maxSocketPath is the longest name of a unix socket (sun_path in
	// linux/un.h, without its final zero).
	maxSocketPath = 107
	// maxSocketName is the longest name of ours below the directory.
	maxSocketName = len("/.4294967295_4294967295.sock")
	// abstractFolder begins names that are in no file system (unix(7)).
	abstractFolder = "@corridor/"
	// firstEphemeral is the lowest port of one's own that Dial binds.
	firstEphemeral = 49152
	// bindAttempts is how many ports Dial tries for its own end.
	bindAttempts = 16
	// busyDelay is the pause before a listener with a full queue is tried again.
	busyDelay = time.Millisecond
)

// A dir is the transport "dir:PATH" of WIRE.md, section 7:
//
//	PATH/CID_PORT.sock   where (CID, PORT) listens
//	.CID_n.sock          the last part of the name of a connecting socket
type dir struct {
	path  string
	local vsockconn.CID
}

// Dir returns the transport on which this process has the CID local and the
// endpoint (CID, port) is the unix socket PATH/CID_PORT.sock. A peer that does
// not say who it is counts as DefaultGuest at the parent (CID 3), and as the
// parent at everybody else.
func Dir(path string, local vsockconn.CID) (vsockconn.Transport, error) {
	if path == "" {
		return nil, errors.New("simvsock: dir: no path given")
	}
	if local == vsockconn.CIDAny {
		return nil, fmt.Errorf("simvsock: dir:%s: the CID of this end must be one, not any", path)
	}
	if limit := maxSocketPath - maxSocketName; len(path) > limit {
		return nil, fmt.Errorf("simvsock: dir:%s: path has %d bytes, at most %d fit into the name of a unix socket (use a shorter one)", path, len(path), limit)
	}
	return &dir{path: filepath.Clean(path), local: local}, nil
}

// String returns "dir:PATH".
func (d *dir) String() string { return "dir:" + d.path }

func (d *dir) Dial(ctx context.Context, to vsockconn.Addr) (net.Conn, error) {
	if to.CID == vsockconn.CIDLocal {
		to.CID = d.local
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for range bindAttempts {
		from := vsockconn.Addr{CID: d.local, Port: firstEphemeral + rand.Uint32N(1<<32-1-firstEphemeral)}
		c, err := dialUnix(ctx, d.peerName(from), d.listenName(to))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue // another connection of ours, or what a crash left behind
		}
		if err != nil {
			return nil, explainDial(to, err)
		}
		return newConn(c, from, to), nil
	}
	return nil, fmt.Errorf("simvsock: dial %s: no free port in %s after %d attempts", to, d.path, bindAttempts)
}

func (d *dir) Listen(port uint32) (net.Listener, error) {
	at := vsockconn.Addr{CID: d.local, Port: port}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("simvsock: listen on %s: %w", at, err)
	}
	l, err := listenUnix(d.listenName(at))
	if err != nil {
		return nil, fmt.Errorf("simvsock: listen on %s: %w", at, err)
	}
	return &listener{UnixListener: l, addr: at, peer: d.peer}, nil
}

// Adopt makes a listener of a socket of another process.
func (d *dir) Adopt(file *os.File, port uint32) (net.Listener, error) {
	l, err := adopt(file)
	if err != nil {
		return nil, err
	}
	return &listener{UnixListener: l, addr: vsockconn.Addr{CID: d.local, Port: port}, peer: d.peer}, nil
}

// peer tells who connected, by the name that its socket has or had.
func (d *dir) peer(name string) vsockconn.Addr {
	if addr, ok := parsePeerName(filepath.Base(name)); ok {
		return addr
	}
	if d.local == vsockconn.CIDParent {
		return vsockconn.Addr{CID: DefaultGuest}
	}
	return vsockconn.Addr{CID: vsockconn.CIDParent}
}

func (d *dir) listenName(a vsockconn.Addr) string {
	return filepath.Join(d.path, fmt.Sprintf("%d_%d.sock", uint32(a.CID), a.Port))
}

// peerName names a connecting socket, where it costs least: a file takes an inode,
// whose search is more than all the rest of connecting.
func (d *dir) peerName(a vsockconn.Addr) string {
	name := fmt.Sprintf(".%d_%d.sock", uint32(a.CID), a.Port)
	if runtime.GOOS == "linux" {
		return abstractFolder + name
	}
	return filepath.Join(d.path, name)
}

// parsePeerName parses ".CID_n.sock". Any process may choose the name.
func parsePeerName(name string) (vsockconn.Addr, bool) {
	name, dotted := strings.CutPrefix(name, ".")
	name, socket := strings.CutSuffix(name, ".sock")
	left, right, both := strings.Cut(name, "_")
	cid, errCID := parseNumber(left)
	port, errPort := parseNumber(right)
	if !dotted || !socket || !both || errCID != nil || errPort != nil || vsockconn.CID(cid) == vsockconn.CIDAny {
		return vsockconn.Addr{}, false
	}
	return vsockconn.Addr{CID: vsockconn.CID(cid), Port: port}, true
}

// parseNumber parses a decimal number as it is printed: no sign, no leading
// zero.
func parseNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = strconv.ErrSyntax
	}
	return uint32(n), err
}

// dialUnix connects to the socket named to from one named from, or from an
// unnamed one if that is empty. The own name is gone when it returns. While the
// listener's queue is full, which connect(2) reports at once on unix sockets, it
// tries again.
func dialUnix(ctx context.Context, from, to string) (*net.UnixConn, error) {
	var dialer net.Dialer
	var local *net.UnixAddr
	if from != "" {
		local = &net.UnixAddr{Name: from, Net: "unix"}
	}
	remote := &net.UnixAddr{Name: to, Net: "unix"}
	for {
		// Not DialContext: it leaves garbage behind for ways to a host that a name does not have.
		c, err := dialer.DialUnix(ctx, "unix", local, remote)
		if from != "" && !strings.HasPrefix(from, abstractFolder) && !errors.Is(err, syscall.EADDRINUSE) {
			// The acceptor knows the name from the kernel; the file is of no use.
			_ = os.Remove(from)
		}
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-time.After(busyDelay):
		case <-ctx.Done():
			return nil, fmt.Errorf("the listener's queue stays full: %w", ctx.Err())
		}
	}
}

// explainDial says what an error of a unix socket means for the endpoint.
func explainDial(to vsockconn.Addr, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("simvsock: dial %s: nobody listens there (start the other end, or check that both name the same path): %w", to, rootCause(err))
	}
	return fmt.Errorf("simvsock: dial %s: %w", to, rootCause(err))
}

// rootCause strips the names of the sockets off: that of the own end differs in
// each attempt, and would make each error of an outage look new.
func rootCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
