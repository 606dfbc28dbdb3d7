package front

import (
	"bytes"
	"context"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// newLane makes the fast lane, which serves the common requests to the app itself,
// and leaves all others to the server: those for the enclave, and all while
// the app is not ready.
func (f *Front) newLane() (*revproxy.Lane, error) {
	return f.cfg.Fast.NewLane(revproxy.LaneConfig{
		Server: f.server,
		TLS:    f.server.TLSConfig,
		Enter:  f.enter,
		Leave: func(took time.Duration) {
			f.requests.done()
			if f.cfg.Took != nil {
				f.cfg.Took(took)
			}
		},
	})
}

// enter lets a request into the fast lane, and counts it.
func (f *Front) enter(target []byte) bool {
	if forEnclave(target) || !f.cfg.App.Ready() {
		return false
	}
	f.requests.add()
	return true
}

// forEnclave reports whether a target is reserved, or what it is cannot be said.
func forEnclave(target []byte) bool {
	path, _, _ := bytes.Cut(target, []byte("?"))
	if bytes.IndexByte(path, '%') < 0 && !bytes.Contains(path, []byte("enclave")) {
		return false // nothing that reserved does makes the word
	}
	p, ok := revproxy.PathOf(target)
	return !ok || reserved(p)
}

// drainLane waits until nothing is under way in the fast lane. The server goes on
// meanwhile, because the lane may still hand a connection on to it; but none is
// kept when its answer has been sent.
func (f *Front) drainLane(ctx context.Context) error {
	if f.lane == nil {
		return nil
	}
	f.server.SetKeepAlivesEnabled(false)
	if f.http2 != nil {
		f.http2.GoAway()
	}
	return f.lane.Shutdown(ctx)
}
