package revproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// An exchange follows one request, to tell a client's fault from the app's when
// the transport gives up, and to carry its trailers over. It is the context of
// the request to the app, and the body if there is one.
type exchange struct {
	context.Context
	in   *http.Request // as the server made it: its Trailer is filled at the end of the body
	id   string        // X-Request-ID
	body io.ReadCloser // nil if there is none
	out  http.Header   // the trailers of the request to the app
	app  *member       // which app it is with; nil: none

	reading sync.Mutex            // held while the body is read
	ended   atomic.Bool           // the body has been read to its end
	fault   atomic.Pointer[error] // why the client's body could not be read
}

// exchangeKey is the context key of an *exchange.
type exchangeKey struct{}

// Value finds the exchange itself, and else what the server put there.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

// exchangeOf finds the exchange that a request to the app belongs to.
func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// move takes the request from one app to another, which has counted it already.
func (x *exchange) move(to *member) {
	if x.app != nil {
		x.app.under.Add(-1)
	}
	x.app = to
}

// unread reports whether some of the body is still to come from the client.
func (x *exchange) unread() bool {
	return x.in.Body != nil && x.in.ContentLength != 0 && !x.ended.Load()
}

// trailer makes the trailers of the request to the app out of those that the
// client announced.
func (x *exchange) trailer(announced http.Header) http.Header {
	dropForwarding(announced)
	if announced == nil {
		announced = http.Header{} // for those that the client does not announce
	}
	x.out = announced
	return x.out
}

// Read reads the client's body.
func (x *exchange) Read(p []byte) (int, error) {
	x.reading.Lock()
	defer x.reading.Unlock()
	n, err := x.body.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		x.carryTrailers()
		x.ended.Store(true)
	case errors.Is(err, http.ErrBodyReadAfterClose): // the transport had enough; not the client's doing
	default:
		x.fault.CompareAndSwap(nil, &err)
	}
	return n, err
}

// settle waits for a Read under way if the client's connection has failed, which
// ends it: the server cancels a request a moment before the Read says why.
func (x *exchange) settle() {
	if errors.Is(x.Err(), context.Canceled) {
		x.reading.Lock()
		defer x.reading.Unlock()
	}
}

// carryTrailers copies the trailers, which the server has just parsed. The
// transport looks at them after this Read, in the same goroutine. What frames or
// routes a message has no place there (RFC 9110 6.5.1).
func (x *exchange) carryTrailers() {
	if x.out == nil {
		return
	}
	for field, values := range x.in.Trailer {
		switch field {
		case "Content-Length", "Transfer-Encoding", "Trailer", "Host", "Connection", "Upgrade", "Te", "Keep-Alive":
		default:
			if !isForwarding(field) {
				x.out[field] = values
			}
		}
	}
}

// Close closes the client's body.
func (x *exchange) Close() error { return x.body.Close() }
