package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// receive reads the head of the final answer, and passes the informational ones
// before it on. Their number is bounded by MaxHeaderBytes, which they share.
func (x *exchange) receive() (*http.Response, error) {
	x.c.expect(x.t.cfg.MaxHeaderBytes)
	if _, err := x.c.br.Peek(1); err != nil {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("upstream: waiting for the answer: %w", err)
		case x.c.kept:
			return nil, fmt.Errorf("%w: %w: %w", ErrSilent, errStale, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrSilent, err)
	}
	for {
		res, err := http.ReadResponse(x.c.br, x.req)
		if err != nil {
			if x.c.budget == 0 {
				err = ErrHead
			}
			return nil, fmt.Errorf("upstream: reading the head of the answer: %w", err)
		}
		switch {
		case res.StatusCode == http.StatusSwitchingProtocols:
			return x.tunnel(res)
		case res.StatusCode < 100 || res.StatusCode > 199:
			return x.final(res), nil
		}
		if x.inform != nil {
			if err := x.inform(res.StatusCode, res.Header); err != nil {
				return nil, err
			}
		}
		// Only now: who reads the body first would have net/http's server say 100
		// to the client, and inform would say it again.
		if res.StatusCode == http.StatusContinue && x.sending != nil {
			x.sending.goAhead()
		}
	}
}

// final prepares the body of an answer.
func (x *exchange) final(res *http.Response) *http.Response {
	if x.sending != nil {
		x.sending.stopWaiting()
	}
	keep := !res.Close && res.StatusCode >= 200 // below 100 nothing is defined
	if res.Body == http.NoBody {
		x.end(keep)
		return res
	}
	x.c.body()
	res.Body = &answerBody{ReadCloser: res.Body, x: x, keep: keep}
	return res
}

// tunnel hands the connection over: what follows is not HTTP.
func (x *exchange) tunnel(res *http.Response) (*http.Response, error) {
	if x.sending != nil {
		<-x.sending.sent // the old protocol goes on to the end of the request (RFC 9110 7.8)
		if !x.sending.complete() {
			return nil, errors.New("upstream: the app switched protocols within the request")
		}
	}
	if !x.release() {
		return nil, fmt.Errorf("upstream: switching protocols: %w", io.ErrUnexpectedEOF)
	}
	x.c.body()
	_ = x.c.SetReadDeadline(noDeadline())
	x.c.quiet = 0 // whoever tunnels knows what silence means
	res.Body = tunnel{x.c}
	return res, nil
}

// A tunnel reads what the buffer holds first.
type tunnel struct{ *conn }

func (t tunnel) Read(p []byte) (int, error) { return t.br.Read(p) }

// CloseWrite tells the app that the client sends no more. Where the connection
// cannot say that alone, it says it by ending.
func (t tunnel) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return t.Close()
}
