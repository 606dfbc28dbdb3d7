package revproxy

import (
	"hash/maphash"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the quarantine.
const (
	maxSuspects = 1024
	// deathWindow is how far apart the end of an exchange and the news of the app's
	// death may be to belong together.
	deathWindow = 2 * time.Second
	// guilty is at how many deaths a request must have been there.
	guilty = 2
	// sentence is how long a request is suspected, or kept away, since the last
	// death at which it was there.
	sentence = 10 * time.Minute
)

// A quarantine keeps requests away that seem to kill the app. A request is known
// by its method, host and target and the length of its body, as a keyed hash.
//
//	             cut off when an app died       again
//	(unknown) ──────────────────────────► suspect ──────► kept away
//	    ▲                                    │                │
//	    └──── answered, or time is over ─────┴─ time is over ─┘
//
// Who is answered once after it was suspected is not what kills: so a page that
// everybody asks for all the time is not kept away for others' sake. Nothing is
// done for a request while nobody is suspected.
type quarantine struct {
	seed  maphash.Seed
	known atomic.Int32 // suspects

	mu       sync.Mutex
	suspects map[uint64]suspect
	cut      []witness // ended exchanges, the oldest first
	death    time.Time // the last
	of       *member   // which died
	over     bool      // the app is back
}

// A suspect is what is known of a request.
type suspect struct {
	deaths int
	last   time.Time // the death that was counted last
}

// A witness is an exchange that an app ended without its answer.
type witness struct {
	key uint64
	app *member
	at  time.Time
}

func newQuarantine() *quarantine {
	return &quarantine{seed: maphash.MakeSeed(), suspects: make(map[uint64]suspect)}
}

func (q *quarantine) keyOf(method, host, target string, length int64) uint64 {
	var h maphash.Hash
	h.SetSeed(q.seed)
	for _, s := range []string{method, host, target, strconv.FormatInt(length, 10)} {
		_, _ = h.WriteString(s) // neither fails
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// suspected reports whether a request was there when an app died.
func (q *quarantine) suspected(key uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.suspects[key]
	return ok
}

// keepsAway reports whether a request must not reach an app.
func (q *quarantine) keepsAway(key uint64, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, ok := q.suspects[key]
	if ok && now.Sub(s.last) > sentence {
		q.forget(key)
		return false
	}
	return s.deaths >= guilty
}

// acquit takes down that a request was answered.
func (q *quarantine) acquit(key uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s, ok := q.suspects[key]; ok && s.deaths < guilty {
		q.forget(key)
	}
}

func (q *quarantine) forget(key uint64) {
	delete(q.suspects, key)
	q.known.Store(int32(len(q.suspects)))
}

// cutOff takes down that an app ended a request's exchange.
func (q *quarantine) cutOff(key uint64, app *member, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.recent(now) && q.of == app {
		q.suspect(key)
		return
	}
	q.expire(now)
	if len(q.cut) < maxSuspects {
		q.cut = append(q.cut, witness{key, app, now})
	}
}

// expire forgets exchanges that are too old to matter.
func (q *quarantine) expire(now time.Time) {
	n := 0
	for n < len(q.cut) && now.Sub(q.cut[n].at) > deathWindow {
		n++
	}
	q.cut = append(q.cut[:0], q.cut[n:]...)
}

// recent reports whether what is heard of a death may be about the last one.
func (q *quarantine) recent(now time.Time) bool {
	return !q.death.IsZero() && !q.over && now.Sub(q.death) < deathWindow
}

// returned takes down that an app lives again.
func (q *quarantine) returned(app *member) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == app {
		q.over = true
	}
}

// died takes down that an app has died. News of one death may come several times.
func (q *quarantine) died(app *member, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.recent(now) || q.of != app {
		q.death, q.of, q.over = now, app, false
	}
	q.expire(now)
	rest := q.cut[:0]
	for _, w := range q.cut {
		if w.app == app {
			q.suspect(w.key)
		} else {
			rest = append(rest, w)
		}
	}
	q.cut = rest
}

// suspect counts the last death against a request.
func (q *quarantine) suspect(key uint64) {
	s, ok := q.suspects[key]
	if s.last.Equal(q.death) {
		return
	}
	if !ok && len(q.suspects) >= maxSuspects {
		q.shrink()
	}
	if q.death.Sub(s.last) > sentence {
		s.deaths = 0
	}
	s.deaths++
	s.last = q.death
	q.suspects[key] = s
	q.known.Store(int32(len(q.suspects)))
}

// shrink makes room for one: who was there at fewer deaths goes first.
func (q *quarantine) shrink() {
	var victim uint64
	var least suspect
	for key, s := range q.suspects {
		if least.deaths == 0 || s.deaths < least.deaths || s.deaths == least.deaths && s.last.Before(least.last) {
			victim, least = key, s
		}
	}
	delete(q.suspects, victim)
}

// news is told when an app accepts no connections any more, or does again.
func (p *Proxy) news(m *member, err error) {
	switch {
	case err == nil:
		p.quarantine.returned(m)
	case gone(err):
		p.quarantine.died(m, time.Now())
	}
}

// suspicious reports whether anybody is suspected, so that requests have to be
// looked at.
func (p *Proxy) suspicious() bool { return p.quarantine.known.Load() > 0 }

func (p *Proxy) keyOf(r *http.Request) uint64 {
	return p.quarantine.keyOf(r.Method, r.Host, r.RequestURI, r.ContentLength)
}

// acquit takes down that a request was answered.
func (p *Proxy) acquit(r *http.Request) {
	if p.suspicious() {
		p.quarantine.acquit(p.keyOf(r))
	}
}

// accuse takes down that an app ended a request's exchange.
func (p *Proxy) accuse(r *http.Request, app *member) {
	if app != nil && !p.config.Outward {
		p.quarantine.cutOff(p.keyOf(r), app, time.Now())
	}
}
