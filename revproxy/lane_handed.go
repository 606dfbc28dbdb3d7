package revproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// A handedConn gives the server what the lane has read, then what comes.
type handedConn struct {
	net.Conn
	early []byte // only the server's one reader looks at it
	begun *begunAnswer
}

// Read reads what the client sent.
func (c *handedConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	if c.early = c.early[n:]; len(c.early) == 0 {
		c.early = nil
	}
	return n, nil
}

// Close closes the connection, and an answer that nobody has asked for.
func (c *handedConn) Close() error {
	c.begun.drop()
	return c.Conn.Close()
}

// CloseWrite ends this direction alone, so that the client reads the answer before
// it meets a reset.
func (c *handedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *handedConn) begunAnswer() *begunAnswer { return c.begun }

// A handedTLS is a handedConn that the server can ask about TLS.
type handedTLS struct {
	handedConn
	tls *tls.Conn
}

// ConnectionState is what net/http makes Request.TLS of.
func (c *handedTLS) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// begunKey is the context key of a connection's begunAnswer.
type begunKey struct{}

// A begunAnswer is an exchange whose request the lane has sent, and whose answer
// is for the ordinary way to pass back. The client's connection begins with the
// same request once more, for the server to parse.
type begunAnswer struct {
	lane   *Lane
	line   *upstream.Line
	early  []byte // what has come of the answer
	id     string
	limit  time.Time // of all of it; zero: none
	app    *member
	client netip.Addr // as the admission knows it
	sight  sighting
	once   sync.Once
}

// take returns the answer to the first who asks, and else nil.
func (a *begunAnswer) take() (first *begunAnswer) {
	if a != nil {
		a.once.Do(func() { first = a })
	}
	return first
}

// drop ends an exchange that the server has not asked for.
func (a *begunAnswer) drop() {
	if a = a.take(); a != nil {
		a.line.Close()
		a.app.under.Add(-1)
		a.lane.proxy.admission.leave(a.client)
		a.lane.running.Done()
	}
}

// begunAnswerOf returns the answer that a request has already, if it has.
func begunAnswerOf(ctx context.Context) *begunAnswer {
	a, _ := ctx.Value(begunKey{}).(*begunAnswer)
	return a.take()
}

// resume passes an answer back that the lane could not. The request was counted
// and admitted there.
func (p *Proxy) resume(w http.ResponseWriter, r *http.Request, a *begunAnswer) {
	defer a.lane.running.Done()
	defer p.admission.leave(a.client)
	x := &exchange{Context: r.Context(), in: r, id: a.id, app: a.app}
	if x.sight = a.sight; x.sight.on {
		defer p.tell(x, r, false)
	}
	x.ended.Store(true) // the app has the body; the server reads it once more
	defer x.end()
	if !a.limit.IsZero() {
		var cancel context.CancelFunc
		x.Context, cancel = context.WithDeadline(x.Context, a.limit)
		defer cancel()
	}
	req := r.WithContext(x)
	req.Body = nil
	res, err := a.line.Adopt(req, a.early, informer(w))
	p.judge(w, r, x, res, err)
}
