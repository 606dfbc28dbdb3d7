// Package streams connects to enclaves by streams of the stream road: one for
// each client, a few of them ahead of time, each opened by what the enclave is to
// know of its client. It accepts no clients and copies no bytes; publish does.
package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// DefaultReady is how many streams are kept ready for each port of an enclave.
	DefaultReady = 8
	// maxAge is how long a stream is kept ready. An enclave of ours waits four
	// times as long for a header, so that it does not give up what is just taken.
	maxAge = 15 * time.Second
	// firstPause and lastPause bound the pause before an enclave that cannot be
	// reached is tried again; it doubles in between.
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// ErrUnreachable reports that the enclave took no stream for as long as the
// context allowed. It may be starting: the caller may try again later.
var ErrUnreachable = errors.New("streams: enclave is not reachable")

// Config says how enclaves are reached.
type Config struct {
	// Transport makes the streams; it must not be nil.
	Transport vsockconn.Transport
	// Ready is how many streams are kept connected ahead of time for each port of
	// an enclave, after its first client; 0 is none.
	Ready int
	// Log is where events go; it must not be nil.
	Log *slog.Logger
}

// A Dialer connects to enclaves. Make one with New; Run it once.
type Dialer struct {
	config Config
	want   chan *pool // those that have room
	counts counters

	mu     sync.Mutex
	closed bool
	pools  map[vsockconn.Addr]*pool
}

// A pool is the streams kept ready for one port of an enclave. A stream in it has
// carried no byte, so it can be thrown away without anybody noticing.
//
//	         Run connects                Dial takes
//	(none) ───────────────► ready ─────────────────────► opened by its header
//	                          │ too old, or the enclave closed it
//	                          └─────────────────────────► closed
//
// All but to belongs to the Dialer's lock.
type pool struct {
	to     vsockconn.Addr
	wanted bool // it is in want already
	ready  []ready
}

// A ready stream waits for a client.
type ready struct {
	conn  *stream.Conn
	since time.Time
}

// New returns a Dialer that keeps nothing ready until it runs.
func New(c Config) *Dialer {
	return &Dialer{config: c, want: make(chan *pool, 1), pools: map[vsockconn.Addr]*pool{}}
}

// Run keeps streams ready until ctx ends, then closes them and returns nil. Dial
// works without, and after it.
func (d *Dialer) Run(ctx context.Context) error {
	defer d.close()
	sweep := time.NewTicker(maxAge / 3)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			d.sweep(time.Now())
		case p := <-d.want:
			d.fill(ctx, p)
		}
	}
}

// SetReady changes how many streams are kept connected ahead of time. Those that
// are too many by then are used up.
func (d *Dialer) SetReady(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config.Ready = n
}

// Dial returns a stream to the enclave's port that begins with the opening. While
// the enclave cannot be reached, it tries again as long as ctx allows, then
// returns ErrUnreachable.
func (d *Dialer) Dial(ctx context.Context, to vsockconn.Addr, o stream.Opening) (net.Conn, error) {
	header := o.Append(make([]byte, 0, stream.MaxOpening/4))
	if conn := d.takeOpened(ctx, to, header); conn != nil {
		return conn, nil
	}
	var reason error // of the last attempt that was not cut short
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := d.connectOpened(ctx, to, header)
		if err == nil {
			return conn, nil
		}
		if late := net.Error(nil); reason == nil || !errors.As(err, &late) || !late.Timeout() {
			reason = err
		}
		if !pacing.Pause(ctx.Done(), pacing.About(pause)) {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, reason)
		}
	}
}

// Try is Dial that does not try again: for a caller who has other enclaves.
func (d *Dialer) Try(ctx context.Context, to vsockconn.Addr, o stream.Opening) (net.Conn, error) {
	header := o.Append(make([]byte, 0, stream.MaxOpening/4))
	if conn := d.takeOpened(ctx, to, header); conn != nil {
		return conn, nil
	}
	conn, err := d.connectOpened(ctx, to, header)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return conn, nil
}

// takeOpened returns a stream that was ready and has taken the header, or nil.
func (d *Dialer) takeOpened(ctx context.Context, to vsockconn.Addr, header []byte) net.Conn {
	for conn := d.take(to); conn != nil; conn = d.take(to) {
		if open(ctx, conn, header) == nil {
			d.counts.taken.Add(1)
			return conn
		}
		d.counts.died.Add(1)
		conn.Close() // while it was ready
	}
	return nil
}

// connectOpened connects once.
func (d *Dialer) connectOpened(ctx context.Context, to vsockconn.Addr, header []byte) (net.Conn, error) {
	conn, err := d.connect(ctx, to)
	if err != nil {
		return nil, err
	}
	if err = open(ctx, conn, header); err != nil {
		conn.Close()
		return nil, err
	}
	d.ask(to)
	return conn, nil
}

func (d *Dialer) connect(ctx context.Context, to vsockconn.Addr) (*stream.Conn, error) {
	conn, err := d.config.Transport.Dial(ctx, to)
	if err != nil {
		d.counts.failed.Add(1)
		return nil, err
	}
	d.counts.connected.Add(1)
	return stream.New(conn), nil
}

// open writes the header. It fits into any socket's buffer, but an enclave need
// not grant one.
func open(ctx context.Context, conn *stream.Conn, header []byte) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write(header); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// take returns a stream that is ready and alive, or nil.
func (d *Dialer) take(to vsockconn.Addr) *stream.Conn {
	for {
		r, ok := d.pop(to)
		if !ok {
			return nil
		}
		if time.Since(r.since) < maxAge && r.conn.Unused() {
			d.ask(to)
			return r.conn
		}
		d.counts.died.Add(1)
		r.conn.Close()
	}
}

// pop takes the oldest out of the pool.
func (d *Dialer) pop(to vsockconn.Addr) (ready, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pools[to]
	if p == nil || len(p.ready) == 0 {
		return ready{}, false
	}
	r := p.ready[0]
	p.ready = slices.Delete(p.ready, 0, 1)
	return r, true
}

// ask has Run fill the pool, now that a client has come. If Run is busy with
// another one, the next client asks again.
func (d *Dialer) ask(to vsockconn.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.config.Ready == 0 {
		return
	}
	p := d.pools[to]
	if p == nil {
		p = &pool{to: to}
		d.pools[to] = p
	}
	if p.wanted || len(p.ready) >= d.config.Ready {
		return
	}
	select {
	case d.want <- p:
		p.wanted = true
	default:
	}
}

// fill connects until the pool is full or the enclave does not answer.
func (d *Dialer) fill(ctx context.Context, p *pool) {
	for d.hasRoom(p) {
		conn, err := d.connect(ctx, p.to)
		if err != nil {
			d.config.Log.Debug("no stream kept ready", "to", p.to.String(), "err", err)
			return
		}
		if !d.push(p, ready{conn, time.Now()}) {
			conn.Close()
			return
		}
	}
}

// hasRoom reports whether to connect once more. If not, or if that fails, the pool
// may be asked for again.
func (d *Dialer) hasRoom(p *pool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p.wanted = false
	return !d.closed && len(p.ready) < d.config.Ready
}

func (d *Dialer) push(p *pool, r ready) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.pools[p.to] != p {
		return false
	}
	p.ready = append(p.ready, r)
	return true
}

// sweep closes what is too old, and forgets pools without clients.
func (d *Dialer) sweep(now time.Time) {
	for _, r := range d.remove(func(r ready) bool { return now.Sub(r.since) >= maxAge }) {
		r.conn.Close()
	}
}

// close closes everything that is ready, and nothing is from then on.
func (d *Dialer) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	for _, r := range d.remove(func(ready) bool { return true }) {
		r.conn.Close()
	}
}

// remove takes out of all pools what is to be closed. Empty pools go.
func (d *Dialer) remove(closing func(ready) bool) []ready {
	d.mu.Lock()
	defer d.mu.Unlock()
	var removed []ready
	for to, p := range d.pools {
		var kept []ready
		for _, r := range p.ready {
			if closing(r) {
				removed = append(removed, r)
			} else {
				kept = append(kept, r)
			}
		}
		p.ready = kept
		if len(kept) == 0 {
			delete(d.pools, to)
		}
	}
	return removed
}
