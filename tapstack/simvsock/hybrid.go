package simvsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// maxAnswer bounds the line with which a VMM answers CONNECT: "OK ", ten
// digits, and room for a VMM that pads.
const maxAnswer = 32

// A hybrid is the transport "hybrid:PATH" of WIRE.md, section 7, at the host:
//
//	guest -> host, port P:   the VMM connects to the unix socket PATH_P
//	host -> guest, port P:   host                         VMM
//	                          |---- connect to PATH ------>|
//	                          |---- "CONNECT P\n" -------->|
//	                          |<--- "OK n\n" --------------|  or it closes
//	                          |<--- the guest's bytes ---->|
type hybrid struct {
	path  string
	guest vsockconn.CID
}

// Hybrid returns the host's transport to the one guest of a VMM that follows
// the convention of Firecracker. The VMM does not pass CIDs on: every peer
// counts as guest.
func Hybrid(path string, guest vsockconn.CID) (vsockconn.Transport, error) {
	if path == "" {
		return nil, errors.New("simvsock: hybrid: no path given")
	}
	if limit := maxSocketPath - len("_4294967295"); len(path) > limit {
		return nil, fmt.Errorf("simvsock: hybrid:%s: path has %d bytes, at most %d fit into the name of a unix socket (use a shorter one)", path, len(path), limit)
	}
	return &hybrid{path: path, guest: guest}, nil
}

// String returns "hybrid:PATH".
func (h *hybrid) String() string { return "hybrid:" + h.path }

func (h *hybrid) Dial(ctx context.Context, to vsockconn.Addr) (net.Conn, error) {
	if to.CID != h.guest {
		return nil, fmt.Errorf("simvsock: dial %s: %s leads to CID %s alone", to, h, h.guest)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := dialUnix(ctx, "", h.path)
	if err != nil {
		return nil, explainDial(to, err)
	}
	port, err := shakeHands(ctx, c, to.Port)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("simvsock: dial %s: %w", to, err)
	}
	return newConn(c, vsockconn.Addr{CID: vsockconn.CIDHost, Port: port}, to), nil
}

func (h *hybrid) Listen(port uint32) (net.Listener, error) {
	at := vsockconn.Addr{CID: vsockconn.CIDHost, Port: port}
	l, err := listenUnix(fmt.Sprintf("%s_%d", h.path, port))
	if err != nil {
		return nil, fmt.Errorf("simvsock: listen on %s: %w", at, err)
	}
	return h.listener(l, port), nil
}

// Adopt makes a listener of a socket of another process.
func (h *hybrid) Adopt(file *os.File, port uint32) (net.Listener, error) {
	l, err := adopt(file)
	if err != nil {
		return nil, err
	}
	return h.listener(l, port), nil
}

func (h *hybrid) listener(l *net.UnixListener, port uint32) net.Listener {
	peer := func(string) vsockconn.Addr { return vsockconn.Addr{CID: h.guest} }
	return &listener{UnixListener: l, addr: vsockconn.Addr{CID: vsockconn.CIDHost, Port: port}, peer: peer}
}

// shakeHands asks the VMM for the guest's port and returns the port number that
// it gave our end. It reads not one byte behind the answer, and leaves c without
// a deadline.
func shakeHands(ctx context.Context, c net.Conn, port uint32) (own uint32, err error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(time.Unix(1, 0)) // wakes the read and the write
		close(interrupted)
	})
	_, err = fmt.Fprintf(c, "CONNECT %d\n", port)
	if err == nil {
		own, err = readAnswer(c)
	}
	if !stop() {
		<-interrupted
		return 0, fmt.Errorf("the VMM does not answer CONNECT: %w", ctx.Err())
	}
	return own, err
}

// readAnswer reads the VMM's answer byte by byte, because what is behind it
// belongs to the guest.
func readAnswer(r io.Reader) (uint32, error) {
	var line [maxAnswer]byte
	for n := range line {
		if _, err := io.ReadFull(r, line[n:n+1]); err == io.EOF && n == 0 {
			return 0, errors.New("nobody listens there in the guest: the VMM closed the connection")
		} else if err != nil {
			return 0, fmt.Errorf("read the VMM's answer: %w", err)
		}
		if line[n] == '\n' {
			return parseAnswer(string(line[:n]))
		}
	}
	return 0, fmt.Errorf("the VMM's answer %q is longer than %d bytes", line, maxAnswer)
}

// parseAnswer parses "OK n", without the line's end.
func parseAnswer(line string) (uint32, error) {
	digits, ok := strings.CutPrefix(line, "OK ")
	if !ok {
		return 0, fmt.Errorf("the VMM answered %q, not OK and a port", line)
	}
	port, err := parseNumber(digits)
	if err != nil {
		return 0, fmt.Errorf("the VMM answered %q, which has no port number", line)
	}
	return port, nil
}
