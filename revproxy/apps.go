package revproxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// apps are the places where the app listens. A request goes to the one with the
// fewest under way for its health; if it cannot be connected to, to the next,
// since nothing has been sent. A request that was sent may be what killed the
// first, so that it goes to another only if it may be repeated, and if Retries
// says more than once.
type apps struct {
	members []*member
	next    atomic.Uint32 // where the search begins, so that equals share
	most    int64         // requests with one of them; zero: any number
	// patience is how long to try again while nothing accepts connections.
	patience time.Duration
}

// errFull reports that all apps have as many requests as they may.
var errFull = errors.New("revproxy: all apps have as many requests as they may")

// A member is one of them.
type member struct {
	carrier
	dial  func(context.Context) (net.Conn, error)
	index int                 // among the members
	name  string              // its address
	host  string              // what an HTTP/1.0 request without Host is taken for
	exact bool                // targets are sent byte by byte
	lines *upstream.Transport // the carrier, if it lends its connections; else nil
	under atomic.Int64        // requests
	health
}

// surroundings are what a member is told of and by.
type surroundings struct {
	news  func(*member, error)   // it accepts connections no more, or again
	spare func(*member) net.Conn // a connection to it that is not used elsewhere, or nil
}

func newApps(c Config, around surroundings) (*apps, error) {
	if len(c.Apps) == 0 {
		return nil, errors.New("revproxy: no app given")
	}
	a := &apps{patience: c.ForwardTimeout, most: int64(c.MaxPerApp)}
	for _, u := range c.Apps {
		m, err := newMember(c, u, around)
		if err != nil {
			return nil, err
		}
		m.index = len(a.members)
		a.members = append(a.members, m)
	}
	return a, nil
}

func newMember(c Config, app *url.URL, around surroundings) (*member, error) {
	network, address, err := appAddress(app)
	if err != nil {
		return nil, err
	}
	m := &member{name: address, host: address, exact: !c.NetHTTP && app.Scheme != "h2c"}
	m.slowStart = c.SlowStart
	if network == "unix" {
		m.host = "localhost"
	}
	dial := dialer(c, network, address)
	m.dial = func(ctx context.Context) (net.Conn, error) {
		x, ours := ctx.(*exchange)
		if ours {
			ctx = x.Context
		}
		begin := time.Now()
		conn, err := dial(ctx)
		if ours {
			x.sight.connecting += time.Since(begin)
		}
		if ctx.Err() == nil && m.dialed(err) { // else it says nothing about the app
			around.news(m, err)
		}
		return conn, err
	}
	m.carrier = newCarrier(c, m.dial, func(context.Context) net.Conn { return around.spare(m) }, app.Scheme == "h2c")
	m.lines, _ = m.carrier.(*upstream.Transport)
	return m, nil
}

// take picks the app for a request and counts the request there, preferring
// those that were not tried yet. The caller leaves it in the end. It is nil if all
// are full.
func (a *apps) take(tried map[*member]bool) *member {
	best := a.members[0]
	if len(a.members) > 1 {
		best = a.best(tried)
	}
	if n := best.under.Add(1); a.most > 0 && n > a.most {
		best.under.Add(-1)
		return nil
	}
	return best
}

func (a *apps) best(tried map[*member]bool) *member {
	now, begin := time.Now(), int(a.next.Add(1))
	var best *member
	var bestRank int64
	for i := range a.members {
		m := a.members[(begin+i)%len(a.members)]
		n := m.under.Load()
		rank := (n + 1) * whole
		if share := m.share(now); share > 0 {
			rank = rank * whole / share
		} else {
			rank += 1 << 40
		}
		if tried[m] {
			rank += 1 << 41
		}
		if a.most > 0 && n >= a.most {
			rank += 1 << 42
		}
		if best == nil || rank < bestRank {
			best, bestRank = m, rank
		}
	}
	return best
}

// exchange sends a request to an app. x remembers which.
func (a *apps) exchange(req *http.Request, x *exchange, inform func(int, http.Header) error) (res *http.Response, err error) {
	err = a.reach(x, time.Now(), func(m *member) (err error) {
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
// connection. x remembers which. The patience of apps is counted from begin.
func (a *apps) reach(x *exchange, begin time.Time, ask func(*member) error) error {
	var tried map[*member]bool
	pause := 5 * time.Millisecond
	for {
		m := a.take(tried)
		if m == nil {
			return errFull
		}
		x.move(m)
		err := ask(m)
		if err == nil {
			m.answered(true)
			return nil
		}
		if x.Err() != nil || !a.mayTry(m, x, begin, err) {
			return err
		}
		if tried == nil {
			tried = make(map[*member]bool)
		}
		tried[m] = true
		if len(tried) < len(a.members) {
			continue
		}
		if time.Since(begin)+pause > a.patience || !x.sleep(pause) {
			return err
		}
		clear(tried)
		pause = min(2*pause, firstRest)
	}
}

// mayTry reports whether a request that has failed may be sent once more.
func (a *apps) mayTry(m *member, x *exchange, begin time.Time, err error) bool {
	if !errors.Is(err, upstream.ErrSilent) {
		return unreached(err)
	}
	m.answered(false)
	x.repeats--
	return x.repeats >= 0 && time.Since(begin) < a.patience
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
