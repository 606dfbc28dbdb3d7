package revproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/eventloop"
	"github.com/corridor-enclave/corridor/revproxy/head"
)

// An exchange follows one request, to tell a client's fault from the app's when
// the way to the app fails, and to carry its trailers over. It is the context of
// the request to the app, and its body if there is one.
type exchange struct {
	context.Context
	in   *http.Request // as the server made it: its Trailer is filled at the end of the body
	id   string        // X-Request-ID
	body io.ReadCloser // nil if there is none
	out  http.Header   // the trailers of the request to the app
	app  *member       // which app it is with; nil: none
	url  url.URL       // what of it the app gets

	again   bool // it may be sent twice
	repeats int  // how often more than that
	sight   sighting

	task    *eventloop.Task // nil: a goroutine of its own
	upgrade string          // the protocol that the client wants to switch to

	reading sync.Mutex            // held while the body is read
	ended   atomic.Bool           // the body has been read to its end
	over    atomic.Bool           // the handler has returned, and the body is the server's
	fault   atomic.Pointer[error] // why the client's body could not be read
}

// move takes the request from one app to another, which has counted it already.
func (x *exchange) move(to *member) {
	if x.app != nil {
		x.app.under.Add(-1)
	}
	if x.app = to; to != nil {
		x.sight.app = to.name
	}
}

// end leaves the app, and the body to the server.
func (x *exchange) end() {
	x.move(nil)
	x.over.Store(true)
}

// unread reports whether some of the body is still to come from the client.
func (x *exchange) unread() bool {
	return x.in.Body != nil && x.in.ContentLength != 0 && !x.ended.Load()
}

// letGo ends a Read of the body that is under way. The answer is whole, so nobody
// needs the rest of the request; but http.Transport's HTTP/2 waits for that Read
// when the answer is closed, and the client may wait for the end of the answer.
func (x *exchange) letGo(w http.ResponseWriter) {
	switch {
	case x.app == nil || x.app.exact || !x.unread():
	case x.in.ProtoMajor == 2:
		_ = x.in.Body.Close()
	default: // its Close would wait for the client too
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}
}

// trailer makes the trailers of the request to the app out of those that the
// client announced.
func (x *exchange) trailer(announced http.Header) http.Header {
	x.out = make(http.Header, len(announced)) // never nil: for those that the client does not announce
	for field := range announced {
		if mayTrail(field) {
			x.out[field] = nil
		}
	}
	return x.out
}

// Read reads the client's body.
func (x *exchange) Read(p []byte) (int, error) {
	x.reading.Lock()
	defer x.reading.Unlock()
	if x.over.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := x.body.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		x.carryTrailers()
		x.ended.Store(true)
	case errors.Is(err, http.ErrBodyReadAfterClose): // the way to the app had enough; not the client's doing
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
// way to the app looks at them after this Read, in the same goroutine.
func (x *exchange) carryTrailers() {
	if x.out == nil {
		return
	}
	for field, values := range x.in.Trailer {
		if mayTrail(field) {
			x.out[field] = values
		}
	}
}

// mayTrail reports whether a trailer is passed on. What frames or routes a
// message has no place there (RFC 9110 6.5.1).
func mayTrail(field string) bool { return head.KindOf(field).MayTrail() }

// Close leaves the client's body to the server, which closes it when the handler
// returns: before, that could wait for the client.
func (x *exchange) Close() error { return nil }
