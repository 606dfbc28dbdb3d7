package revproxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// How long an app that cannot be connected to is left alone: twice as long after
// each failure, up to a limit. Then one request tries it.
const (
	firstRest = 50 * time.Millisecond
	maxRest   = 5 * time.Second
)

// apps are the places where the app listens. A request goes to the one with the
// fewest under way that is not resting; if it cannot be connected to, to the
// next, since nothing has been sent. A request that was sent is never sent to
// another app: it may be what killed the first.
type apps struct {
	members []*member
	next    atomic.Uint32 // where the search begins, so that equals share
	// patience is how long to try again while nothing accepts connections.
	patience time.Duration
}

// A member is one of them.
type member struct {
	carrier
	dial  func(context.Context) (net.Conn, error)
	host  string              // what an HTTP/1.0 request without Host is taken for
	exact bool                // targets are sent byte by byte
	lines *upstream.Transport // the carrier, if it lends its connections; else nil
	under atomic.Int64        // requests

	mu       sync.Mutex
	failures int       // to connect, in a row
	rests    time.Time // until when it is left alone
}

func newApps(c Config) (*apps, error) {
	if len(c.Apps) == 0 {
		return nil, errors.New("revproxy: no app given")
	}
	a := &apps{patience: c.ForwardTimeout}
	for _, u := range c.Apps {
		m, err := newMember(c, u)
		if err != nil {
			return nil, err
		}
		a.members = append(a.members, m)
	}
	return a, nil
}

func newMember(c Config, app *url.URL) (*member, error) {
	network, address, err := appAddress(app)
	if err != nil {
		return nil, err
	}
	m := &member{host: address, exact: !c.NetHTTP && app.Scheme != "h2c"}
	if network == "unix" {
		m.host = "localhost"
	}
	dial := dialer(c, network, address)
	m.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if ctx.Err() == nil { // else it says nothing about the app
			m.note(err)
		}
		return conn, err
	}
	m.carrier = newCarrier(c, m.dial, app.Scheme == "h2c")
	m.lines, _ = m.carrier.(*upstream.Transport)
	return m, nil
}

// note takes down whether the app could be connected to.
func (m *member) note(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.failures, m.rests = 0, time.Time{}
		return
	}
	rest := maxRest
	if m.failures < 7 {
		rest = min(firstRest<<m.failures, maxRest)
	}
	m.failures++
	m.rests = time.Now().Add(rest)
}

func (m *member) resting(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.Before(m.rests)
}

// take picks the app for a request and counts the request there, preferring
// those that were not tried yet. The caller leaves it in the end.
func (a *apps) take(tried map[*member]bool) *member {
	best := a.members[0]
	if len(a.members) > 1 {
		best = a.best(tried)
	}
	best.under.Add(1)
	return best
}

func (a *apps) best(tried map[*member]bool) *member {
	now, begin := time.Now(), int(a.next.Add(1))
	var best *member
	var bestRank int64
	for i := range a.members {
		m := a.members[(begin+i)%len(a.members)]
		rank := m.under.Load()
		if m.resting(now) {
			rank += 1 << 32
		}
		if tried[m] {
			rank += 1 << 33
		}
		if best == nil || rank < bestRank {
			best, bestRank = m, rank
		}
	}
	return best
}

// exchange sends a request to an app. x remembers which.
func (a *apps) exchange(req *http.Request, x *exchange, inform func(int, http.Header) error) (res *http.Response, err error) {
	err = a.reach(x, func(m *member) (err error) {
		if req.URL.Host = m.host; req.Host == "" {
			req.Host = m.host
		}
		setTarget(req.URL, x.in.RequestURI, m.exact)
		res, err = m.Exchange(req, inform)
		return err
	})
	return res, err
}

// reach has one app asked, and goes from one to the next until one accepts a
// connection. x remembers which.
func (a *apps) reach(x *exchange, ask func(*member) error) error {
	var tried map[*member]bool
	begin, pause := time.Now(), 5*time.Millisecond
	for {
		m := a.take(tried)
		x.move(m)
		err := ask(m)
		if err == nil || !unreached(err) || x.Err() != nil {
			return err
		}
		if tried == nil {
			tried = make(map[*member]bool)
		}
		tried[m] = true
		if len(tried) < len(a.members) {
			continue
		}
		if time.Since(begin)+pause > a.patience || !sleep(x, pause) {
			return err
		}
		clear(tried)
		pause = min(2*pause, firstRest)
	}
}

// unreached reports whether an error means that nothing has been sent.
func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// sleep waits, and reports whether it could to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// CloseIdleConnections closes the unused connections to all apps.
func (a *apps) CloseIdleConnections() {
	for _, m := range a.members {
		m.CloseIdleConnections()
	}
}
