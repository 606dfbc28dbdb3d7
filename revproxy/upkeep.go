package revproxy

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Run looks after the ways to the apps until ctx ends: it keeps MinConns connections
// to each ready, notices when one that did not accept connections does again, and
// asks HealthPath. Requests are served without it as well. It returns nil when
// everything that it started is gone.
func (p *Proxy) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, m := range p.apps.members {
		all.Go(func() { p.lookAfter(ctx, m) })
	}
	all.Wait()
	return nil
}

func (p *Proxy) lookAfter(ctx context.Context, m *member) {
	ticker := time.NewTicker(p.config.HealthInterval)
	defer ticker.Stop()
	for {
		p.warm(ctx, m)
		if p.config.HealthPath != "" && ctx.Err() == nil {
			m.probed(p.probe(ctx, m))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// warm connects to an app as often as is wanted, and at least once if it did not
// accept the last connection.
func (p *Proxy) warm(ctx context.Context, m *member) {
	if m.refuses() {
		conn, err := m.dial(ctx)
		if err != nil {
			return // it is as it was
		}
		_ = conn.Close()
	}
	if m.lines == nil {
		return
	}
	least := min(p.config.MinConns, p.config.MaxIdleConns)
	for _, l := range p.lanes.all() {
		least -= l.loops.idle(m)
	}
	_ = m.lines.Warm(ctx, least-int(m.under.Load())) // a refusal has been taken down
}

// probe reports whether an app answers, and not that it has failed.
func (p *Proxy) probe(ctx context.Context, m *member) bool {
	ctx, cancel := context.WithTimeout(ctx, p.config.DialTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.host+p.config.HealthPath, nil)
	if err != nil {
		return false // New has seen to it that this is not so
	}
	req.URL.Opaque, _, _ = cutBefore(p.config.HealthPath, "?")
	res, err := m.Exchange(req, unmoved)
	if err != nil {
		return ctx.Err() == context.Canceled // the end of Run says nothing
	}
	_ = res.Body.Close()
	return res.StatusCode < http.StatusInternalServerError
}

// unmoved wants no informational answers.
func unmoved(int, http.Header) error { return nil }
