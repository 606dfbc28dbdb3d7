package egress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/corridor-enclave/corridor/tapstack/stream"
)

// maxHead bounds a CONNECT request, in bytes.
const maxHead = 8 << 10

// errCONNECT reports bytes that are no CONNECT request.
var errCONNECT = errors.New("egress: not a CONNECT request")

// A connectError also says what the client is told.
type connectError struct {
	status int
	text   string
}

func (e *connectError) Error() string { return "egress: CONNECT: " + e.text }
func (e *connectError) Unwrap() error { return errCONNECT }

// connect speaks HTTP CONNECT (RFC 9110, section 9.3.6) with one client. Nothing
// but CONNECT is served: a plain request would have to be rewritten, and sent by
// someone who reads it; that is egressproxy's business.
type connect struct{}

func (connect) hear(conn net.Conn) (Destination, []byte, error) {
	to, behind, err := hearCONNECT(conn)
	var told *connectError
	if errors.As(err, &told) {
		_ = writeStatus(conn, told.status, told.text) // the error is the client's own
	}
	return to, behind, err
}

// hearCONNECT returns what was read behind the request too: a client may begin to
// speak before it is answered.
func hearCONNECT(r io.Reader) (to Destination, behind []byte, err error) {
	limited := &io.LimitedReader{R: r, N: maxHead}
	buffered := bufio.NewReader(limited)
	if _, err := buffered.Peek(1); err != nil {
		return to, nil, err
	}
	req, err := http.ReadRequest(buffered)
	switch {
	case err == nil:
	case limited.N <= 0:
		return to, nil, &connectError{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("more than %d bytes", maxHead)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return to, nil, io.ErrUnexpectedEOF
	default:
		var op *net.OpError
		if errors.As(err, &op) { // of the connection: nobody is there to be told
			return to, nil, err
		}
		return to, nil, &connectError{http.StatusBadRequest, "the request is malformed"}
	}
	if to, err = connectTarget(req); err != nil {
		return Destination{}, nil, err
	}
	behind, err = buffered.Peek(buffered.Buffered()) // never more than there is
	return to, behind, err
}

func connectTarget(req *http.Request) (Destination, error) {
	if req.Method != http.MethodConnect {
		return Destination{}, &connectError{http.StatusMethodNotAllowed, "only CONNECT is served here"}
	}
	if req.ContentLength > 0 || len(req.TransferEncoding) > 0 {
		return Destination{}, &connectError{http.StatusBadRequest, "CONNECT has no content"}
	}
	host, port, err := net.SplitHostPort(req.RequestURI)
	if err != nil || strings.ContainsAny(host, "/@?#") {
		return Destination{}, &connectError{http.StatusBadRequest, "the target is not HOST:PORT"}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Destination{}, &connectError{http.StatusBadRequest, "the target's port is none"}
	}
	to, err := ParseDestination(host, uint16(n))
	if err != nil {
		return Destination{}, &connectError{http.StatusBadRequest, "the target is not HOST:PORT"}
	}
	return to, nil
}

func (connect) answer(conn net.Conn, err error) error {
	if err == nil {
		_, err := io.WriteString(conn, "HTTP/1.1 200 Connected\r\n\r\n")
		return err
	}
	status, text := http.StatusBadGateway, "the destination was not reached"
	var host *HostError
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrDenied):
		status, text = http.StatusForbidden, "the enclave's policy refuses the destination"
	case errors.Is(err, ErrCrowded):
		status, text = http.StatusServiceUnavailable, "too many connections are open"
	case errors.As(err, &host) && host.Status == stream.Denied:
		status, text = http.StatusForbidden, "the host's policy refuses the destination"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nothing listens at the destination"
	case errors.As(err, &late) && late.Timeout():
		status, text = http.StatusGatewayTimeout, "the destination did not answer in time"
	}
	return writeStatus(conn, status, text)
}

// writeStatus writes an answer behind which the connection ends.
func writeStatus(w io.Writer, status int, text string) error {
	allow := ""
	if status == http.StatusMethodNotAllowed {
		allow = "Allow: CONNECT\r\n"
	}
	_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), allow, len(text)+1, text)
	return err
}
