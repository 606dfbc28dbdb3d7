package revproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// Strict puts a guard behind a listener of connections to an http.Server. It refuses,
// with 400 and the end of the connection, what other readers of HTTP/1 may understand
// differently from net/http, though RFC 9112 allows to accept it:
//
//   - LF alone as the end of a line, in heads, chunks and trailers (section 2.2);
//   - Content-Length together with Transfer-Encoding, and Transfer-Encoding in
//     HTTP/1.0 (section 6.1);
//   - chunks whose extensions or trailers are longer than 4 KiB (section 7.1.1).
//
// In exchange one empty line before a request is passed over, which net/http refuses
// (section 2.2). HTTP/2 and what follows an upgrade are not looked at.
//
// It belongs above TLS: connections that are *tls.Conn are given on when they have
// agreed upon a protocol, within the timeout. Those that have not when the listener is
// closed are closed with it.
func Strict(source net.Listener, handshake time.Duration) net.Listener {
	s := &strictListener{Listener: source, timeout: handshake, ready: make(chan accepted)}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.accepting.Go(s.loop)
	return s
}

// A strictListener accepts ahead, because handshakes take as long as clients like.
type strictListener struct {
	net.Listener
	timeout   time.Duration
	ready     chan accepted
	ctx       context.Context // ends when the listener is closed
	end       context.CancelFunc
	accepting sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

// Accept returns a connection that is looked at, or the listener's error.
func (s *strictListener) Accept() (net.Conn, error) {
	select {
	case a := <-s.ready:
		return a.conn, a.err
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener and ends handshakes. Connections that were accepted go on.
func (s *strictListener) Close() error {
	s.end()
	err := s.Listener.Close()
	s.accepting.Wait()
	return err
}

func (s *strictListener) loop() {
	for s.ctx.Err() == nil {
		c, err := s.Listener.Accept()
		if t, ok := c.(*tls.Conn); ok {
			s.accepting.Go(func() { s.shakeHands(t) })
			continue
		}
		if c != nil {
			c = strict(c)
		}
		s.give(c, err)
	}
}

func (s *strictListener) give(c net.Conn, err error) {
	select {
	case s.ready <- accepted{c, err}:
	case <-s.ctx.Done():
		if c != nil {
			_ = c.Close()
		}
	}
}

// shakeHands finds out what is spoken. A handshake that fails is the server's, which
// gets the same error and knows what to say.
func (s *strictListener) shakeHands(c *tls.Conn) {
	_ = c.SetDeadline(time.Now().Add(s.timeout))
	err := c.HandshakeContext(s.ctx)
	if err == nil {
		_ = c.SetDeadline(time.Time{})
	}
	if p := c.ConnectionState().NegotiatedProtocol; err != nil || p != "" && p != "http/1.1" {
		s.give(c, nil)
		return
	}
	s.give(strict(c), nil)
}

// strict wraps a connection of HTTP/1.
func strict(c net.Conn) net.Conn {
	s := strictConn{Conn: c}
	if t, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return &strictTLS{s, t.ConnectionState}
	}
	return &s
}

// A strictConn looks at what its one reader reads.
type strictConn struct {
	net.Conn
	scanner strictScanner
	bad     bool // something came that must not be; what follows it is thrown away
}

// Read reads what the client sent. Its error stands in the place of what must not be.
//
// While a request is under way, net/http reads one byte to notice that the client goes.
// Then the error waits, because that request is well-formed, and is to be answered.
func (c *strictConn) Read(p []byte) (int, error) {
	for {
		if c.bad && len(p) > 1 {
			return 0, errNotStrict
		}
		n, err := c.Conn.Read(p)
		if !c.bad {
			n, c.bad = c.scanner.scan(p[:n])
		} else {
			n = 0
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// CloseWrite ends this direction alone, so that the client reads the answer before it
// meets a reset.
func (c *strictConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// unwatch ends the looking: what follows is of another protocol, which no client may
// speak before it has been told so (RFC 9110 section 7.8).
func (c *strictConn) unwatch() { c.scanner.step = strictUnwatched }

func (c *strictConn) begunAnswer() *begunAnswer {
	if h, ok := c.Conn.(interface{ begunAnswer() *begunAnswer }); ok {
		return h.begunAnswer()
	}
	return nil
}

// A strictTLS is a strictConn that the server can ask about TLS.
type strictTLS struct {
	strictConn
	state func() tls.ConnectionState
}

// ConnectionState is what net/http makes Request.TLS of.
func (c *strictTLS) ConnectionState() tls.ConnectionState { return c.state() }
