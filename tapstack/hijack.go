package tapstack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Hijack takes the stream of a POST that opens the link away from the HTTP
// server. The connection that it returns first yields the bytes that the server
// had read ahead, which a stock host loses (WIRE.md, section 3.1); it has no
// deadline, and the caller must close it. Nothing is answered: the next byte in
// either direction belongs to a frame.
//
// If the request does not open a link, Hijack answers it (405, 400, 500) and
// returns an error; there is then nothing to close.
func Hijack(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("the link is opened by POST, not %q", r.Method))
	}
	if r.ContentLength != 0 {
		return nil, refuse(w, http.StatusBadRequest, "the request that opens the link has no body")
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return nil, refuse(w, http.StatusInternalServerError, "the link needs HTTP/1.1 on a connection of its own")
	}
	conn, rw, err := hijacker.Hijack()
	if err != nil {
		return nil, refuse(w, http.StatusInternalServerError, fmt.Sprintf("take over the connection: %v", err))
	}
	return openHijacked(conn, rw.Reader)
}

// openHijacked returns conn with what r holds of it in front, or closes it.
func openHijacked(conn net.Conn, r *bufio.Reader) (net.Conn, error) {
	// The deadlines are those of the server for its requests, not of the link.
	err := conn.SetDeadline(time.Time{})
	ahead := make([]byte, r.Buffered())
	if err == nil {
		_, err = io.ReadFull(r, ahead)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("tapstack: take over the connection: %w", err)
	}
	return withAhead(conn, ahead), nil
}

// withAhead returns conn with the bytes that were read of it already in front.
func withAhead(conn net.Conn, ahead []byte) net.Conn {
	if len(ahead) == 0 {
		return conn
	}
	return &aheadConn{Conn: conn, from: StreamReader(conn), ahead: ahead}
}

// refuse answers a request that opens no link, and returns why.
func refuse(w http.ResponseWriter, status int, reason string) error {
	http.Error(w, reason, status)
	return errors.New("tapstack: refuse link: " + reason)
}

// An aheadConn is a connection of which some bytes were read already.
type aheadConn struct {
	net.Conn
	from  io.Reader // of Conn
	ahead []byte    // only the one reader of the stream touches it
}

// Read yields the bytes that were read ahead, then those of the connection.
func (c *aheadConn) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.from.Read(b)
	}
	n := copy(b, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil // let it be collected: the link lives for days
	}
	return n, nil
}

// WriteSocket is that of the connection below: nothing was written ahead.
func (c *aheadConn) WriteSocket() syscall.RawConn { return WriteSocket(c.Conn) }

// NetConn returns the connection below. It is of use only once the bytes that
// were read ahead have been read.
func (c *aheadConn) NetConn() net.Conn { return c.Conn }
