package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// The numbers of SOCKS5 (RFC 1928). Of its authentication methods only "none" is
// spoken, since whoever reaches the listener is inside, and of its commands only
// CONNECT.
const (
	socksVersion     = 5
	socksNoAuth      = 0
	socksNoMethod    = 0xff
	socksConnect     = 1
	socksIPv4        = 1
	socksName        = 3
	socksIPv6        = 4
	socksSucceeded   = 0
	socksFailure     = 1
	socksNotAllowed  = 2
	socksUnreachable = 4
	socksRefused     = 5
	socksTTLExpired  = 6
	socksNoCommand   = 7
	socksNoAddress   = 8
)

// errSOCKS reports bytes that are not SOCKS5 as we speak it.
var errSOCKS = errors.New("egress: not a SOCKS5 request")

// A socksError also says what the client is told.
type socksError struct {
	code byte
	text string
}

func (e *socksError) Error() string   { return "egress: SOCKS5: " + e.text }
func (e *socksError) Unwrap() error   { return errSOCKS }
func (e *socksError) reply() (b byte) { return e.code }

// socks speaks SOCKS5 with one client:
//
//	client  05 n methods…          05 01 00 kind address port
//	we               05 00                                    05 code 00 01 0.0.0.0:0
//
// Every message is read to its end and not further: what follows is the
// connection's own.
type socks struct{}

func (socks) hear(conn net.Conn) (Destination, []byte, error) {
	to, err := hearSOCKS(conn)
	var told *socksError
	if errors.As(err, &told) {
		_, _ = conn.Write(socksReply(told.reply())) // the error is the client's own
	}
	return to, nil, err
}

func hearSOCKS(rw io.ReadWriter) (Destination, error) {
	head := make([]byte, 2, 2+255)
	if _, err := io.ReadFull(rw, head); err != nil {
		return Destination{}, err
	}
	if head[0] != socksVersion {
		return Destination{}, fmt.Errorf("%w: version %d", errSOCKS, head[0])
	}
	methods := head[2 : 2+int(head[1])]
	if _, err := io.ReadFull(rw, methods); err != nil {
		return Destination{}, cutShort(err)
	}
	method := byte(socksNoMethod)
	for _, m := range methods {
		if m == socksNoAuth {
			method = socksNoAuth
		}
	}
	if _, err := rw.Write([]byte{socksVersion, method}); err != nil {
		return Destination{}, err
	}
	if method != socksNoAuth {
		return Destination{}, fmt.Errorf("%w: it wants to authenticate", errSOCKS)
	}
	return hearSOCKSRequest(rw)
}

func hearSOCKSRequest(r io.Reader) (Destination, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return Destination{}, cutShort(err)
	}
	if head[0] != socksVersion || head[2] != 0 {
		return Destination{}, &socksError{socksFailure, "a malformed request"}
	}
	if head[1] != socksConnect {
		return Destination{}, &socksError{socksNoCommand, fmt.Sprintf("command %d is not spoken", head[1])}
	}
	size := 0
	switch head[3] {
	case socksIPv4:
		size = 4
	case socksIPv6:
		size = 16
	case socksName:
		one := make([]byte, 1)
		if _, err := io.ReadFull(r, one); err != nil {
			return Destination{}, cutShort(err)
		}
		size = int(one[0])
	default:
		return Destination{}, &socksError{socksNoAddress, fmt.Sprintf("address of kind %d", head[3])}
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(r, rest); err != nil {
		return Destination{}, cutShort(err)
	}
	host := string(rest[:size])
	if head[3] != socksName {
		addr, _ := netip.AddrFromSlice(rest[:size]) // of a size that it takes
		host = addr.String()
	}
	to, err := ParseDestination(host, binary.BigEndian.Uint16(rest[size:]))
	if err != nil {
		return Destination{}, &socksError{socksFailure, err.Error()}
	}
	return to, nil
}

// cutShort makes an end within a message an error.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (socks) answer(conn net.Conn, err error) error {
	_, werr := conn.Write(socksReply(socksCode(err)))
	return werr
}

// socksReply names no address of ours: there is none that would mean anything.
func socksReply(code byte) []byte {
	return []byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0}
}

// socksCode is what RFC 1928, section 6, has for the error.
func socksCode(err error) byte {
	var host *HostError
	var late interface{ Timeout() bool }
	switch {
	case err == nil:
		return socksSucceeded
	case errors.Is(err, ErrDenied), errors.As(err, &host) && host.Status == stream.Denied:
		return socksNotAllowed
	case errors.Is(err, syscall.ECONNREFUSED):
		return socksRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), host != nil && host.Status == stream.NoSuchName:
		return socksUnreachable
	case errors.As(err, &late) && late.Timeout():
		return socksTTLExpired // there is none for time; others use this one too
	}
	return socksFailure
}
