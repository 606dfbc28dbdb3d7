package publish

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/corridor-enclave/corridor/host/route"
)

// A Port is a published port with the names that lead to enclaves of their own.
// With routes, clients are asked for a name before they are carried, and the
// Spec's enclaves get those whose name has no route; if the Spec names none, such
// clients are refused.
type Port struct {
	Spec
	Routes []route.Route
}

// A Change leads from the ports that are published to others. What can fail has
// been done, and nothing has changed yet: Commit or Abort it.
type Change struct {
	publisher *Publisher
	added     []*port // not yet accepting
	plans     []*plan // of all ports that there will be
}

// Prepare listens on the ports that are wanted and not published yet. The error
// names each that cannot be had; then none is. Only one Change may be under way.
func (p *Publisher) Prepare(want []Port) (*Change, error) { return p.prepare(want) }

func (p *Publisher) prepare(want []Port) (*Change, error) {
	c := &Change{publisher: p}
	var errs []error
	for _, w := range want {
		to := &plan{Port: w}
		var err error
		if to.table, err = route.NewTable(w.Routes); err != nil {
			errs = append(errs, err)
			continue
		}
		if !p.has(w.Local) {
			if err = c.listen(to); err != nil {
				errs = append(errs, err)
			}
		}
		c.plans = append(c.plans, to)
	}
	if err := errors.Join(errs...); err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

func (p *Publisher) has(local string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.ports[local]
	return ok
}

// listen opens a new port of the plan.
func (c *Change) listen(to *plan) error {
	l, err := c.publisher.config.Listen(to.Local)
	if err != nil {
		return fmt.Errorf("publish: listen on %s: %s", to.Local, explain(err))
	}
	if strings.HasSuffix(to.Local, ":0") {
		to.Local = l.Addr().String() // any port is not one port: there may be several
	}
	c.added = append(c.added, newPort(c.publisher, to, l))
	return nil
}

// Ports are the ports that there will be. One that was wanted on port 0 is on the
// port that it got.
func (c *Change) Ports() []Port {
	ports := make([]Port, len(c.plans))
	for i, to := range c.plans {
		ports[i] = to.Port
	}
	return ports
}

// Abort closes what Prepare opened.
func (c *Change) Abort() {
	for _, q := range c.added {
		q.stop()
	}
	c.added = nil
}

// Commit publishes the new ports, stops those that are not wanted any more, and
// leads the clients that come from now on where the others lead now. No connection
// is touched. The error is ErrClosed, or nil.
func (c *Change) Commit() error {
	p := c.publisher
	p.mu.Lock()
	defer p.mu.Unlock()
	for local := range p.ports {
		if !slices.ContainsFunc(c.plans, func(to *plan) bool { return to.Local == local }) {
			p.remove(local)
		}
	}
	for _, to := range c.plans {
		if q := p.ports[to.Local]; q != nil {
			q.plan.Store(to)
		}
	}
	return p.adopt(c)
}

// adopt publishes what is new; the caller holds the lock.
func (p *Publisher) adopt(c *Change) error {
	if p.state == closed {
		c.Abort()
		return ErrClosed
	}
	for _, q := range c.added {
		p.ports[q.local] = q
		if p.state == serving {
			p.start(q)
		}
		p.config.Log.Info("published", "addr", q.listener.Addr().String(), "to", q.plan.Load().Spec.String())
	}
	return nil
}
