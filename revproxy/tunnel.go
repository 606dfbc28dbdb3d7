package revproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// tunnel switches protocols: what follows are bytes, both ways, until both sides
// have said their last or one connection fails. A side that has said its last is
// still listened to.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, x *exchange, res *http.Response) {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		_ = res.Body.Close()
		p.fail(w, r, x, errors.New("revproxy: the connection to the app cannot switch protocols"))
		return
	}
	defer app.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.fail(w, r, x, fmt.Errorf("revproxy: the client's connection cannot switch protocols: %w", err))
		return
	}
	defer conn.Close()
	if s, ok := conn.(interface{ unwatch() }); ok {
		s.unwatch()
	}
	release := context.AfterFunc(x, func() { _, _ = conn.Close(), app.Close() })
	defer release()

	if err := writeSwitch(buffered.Writer, res); err != nil {
		return // the client is gone
	}
	var both sync.WaitGroup
	carry := func(to io.Writer, from io.Reader) {
		if _, err := io.Copy(to, from); err != nil || closeWrite(to) != nil {
			_, _ = conn.Close(), app.Close()
		}
	}
	both.Go(func() { carry(app, early(buffered.Reader, conn)) })
	both.Go(func() { carry(conn, app) })
	both.Wait()
}

// closeWrite says the last word to a connection. One that cannot say it alone
// ends.
func closeWrite(w io.Writer) error {
	if half, ok := w.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// early reads what the client has sent already, then what it sends.
func early(r *bufio.Reader, conn io.Reader) io.Reader {
	n := r.Buffered()
	if n == 0 {
		return conn
	}
	return io.MultiReader(io.LimitReader(r, int64(n)), conn)
}

// writeSwitch sends the head of a 101.
func writeSwitch(w *bufio.Writer, res *http.Response) error {
	head := http.Response{StatusCode: res.StatusCode, ProtoMajor: 1, ProtoMinor: 1, Header: res.Header}
	if err := head.Write(w); err != nil {
		return err
	}
	return w.Flush()
}
