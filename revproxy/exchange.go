package revproxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// An exchange follows the body of one request, to tell a client's fault from
// the app's when the transport gives up, and to carry its trailers over.
type exchange struct {
	in   *http.Request // as the server made it: its Trailer is filled at the end of the body
	body io.ReadCloser
	out  http.Header // the trailers of the request to the app

	fault atomic.Pointer[error] // why the client's body could not be read
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
	n, err := x.body.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		x.carryTrailers()
	case errors.Is(err, http.ErrBodyReadAfterClose): // the transport had enough; not the client's doing
	default:
		x.fault.CompareAndSwap(nil, &err)
	}
	return n, err
}

// carryTrailers copies the trailers, which the server has just parsed. The
// transport looks at them after this Read, in the same goroutine.
func (x *exchange) carryTrailers() {
	if x.out == nil {
		return
	}
	for field, values := range x.in.Trailer {
		if !isForwarding(field) {
			x.out[field] = values
		}
	}
}

// Close closes the client's body.
func (x *exchange) Close() error { return x.body.Close() }
