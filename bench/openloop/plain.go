package openloop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// inlineRequest is up to which size a request is written before its answer is
// read. A larger one might not fit into the buffers between here and a server
// that answers while it reads, and both would wait for ever.
const inlineRequest = 32 << 10

// plain speaks HTTP/1.1 on a connection of its own. The request's bytes are made
// once, and reader and writer are one goroutine: http.Transport would spend more
// on handing over between its goroutines than on the exchange.
type plain struct {
	d       *dialer
	message []byte
	conn    net.Conn // nil until there is one
	reader  *bufio.Reader
	release func() bool // ends the watch over conn's context
}

func newPlain(d *dialer) *plain {
	var b bytes.Buffer
	request := d.request.Clone(context.Background())
	if d.Body != nil {
		request.Body = io.NopCloser(bytes.NewReader(d.Body))
		request.ContentLength = int64(len(d.Body))
	}
	request.Close = d.Fresh
	// A request that was checked, written into memory: it cannot fail.
	_ = request.Write(&b)
	return &plain{d: d, message: b.Bytes(), reader: bufio.NewReader(nil)}
}

func (p *plain) exchange(ctx context.Context) (int64, error) {
	deadline := time.Now().Add(p.d.Timeout)
	if p.conn == nil {
		if err := p.open(ctx, deadline); err != nil {
			return 0, err
		}
	}
	n, keep, err := p.ask(deadline)
	if broken(err) || !keep || p.d.Fresh {
		p.close()
	}
	return n, err
}

// broken reports whether a failure is the connection's: one with an answer that is no 2xx
// goes on, as with any client, or an overload would be measured as one of connecting.
func broken(err error) bool { return err != nil && classOf(err) != BadStatus }

// open connects. From then on the end of ctx closes the connection, which ends
// whatever is under way on it.
func (p *plain) open(ctx context.Context, deadline time.Time) error {
	bounded, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := p.d.Dial(bounded)
	if err != nil {
		return failed(DialFailed, err)
	}
	if p.d.tls != nil {
		secure := tls.Client(conn, p.d.tls)
		if err := secure.HandshakeContext(bounded); err != nil {
			_ = conn.Close()
			return failed(HandshakeFailed, err)
		}
		conn = secure
	}
	p.conn = conn
	p.reader.Reset(conn)
	p.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return nil
}

// ask sends the request and reads the answer to its end. keep says whether the
// connection may carry another one.
func (p *plain) ask(deadline time.Time) (n int64, keep bool, err error) {
	if err := p.conn.SetDeadline(deadline); err != nil {
		return 0, false, failed(Broken, err)
	}
	written := make(chan error, 1)
	if len(p.message) <= inlineRequest {
		_, err := p.conn.Write(p.message)
		written <- err
	} else {
		conn := p.conn
		go func() {
			_, err := conn.Write(p.message)
			written <- err
		}()
	}
	n, keep, err = p.answer()
	if broken(err) {
		_ = p.conn.Close() // so that a write under way ends too
	}
	if wrote := <-written; wrote != nil {
		keep = false // answered before it was sent whole, which is an answer still
	}
	return n, keep, err
}

func (p *plain) answer() (n int64, keep bool, err error) {
	var response *http.Response
	for response == nil || response.StatusCode < 200 { // skips what is only informational
		if response, err = http.ReadResponse(p.reader, p.d.request); err != nil {
			return 0, false, failed(Broken, err)
		}
		if response.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	defer response.Body.Close()
	if n, err = io.Copy(io.Discard, response.Body); err != nil {
		return n, false, failed(Broken, err)
	}
	return n, !response.Close, statusError(response)
}

func statusError(r *http.Response) error {
	if r.StatusCode/100 == 2 {
		return nil
	}
	return &failure{BadStatus, fmt.Errorf("answered %q", r.Status)}
}

func (p *plain) close() {
	if p.conn != nil {
		p.release()
		_ = p.conn.Close()
		p.conn = nil
	}
}
