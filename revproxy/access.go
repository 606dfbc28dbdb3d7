package revproxy

import (
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// A Record tells of a request that is over, and where its time went:
//
//	begin      admitted          connected        head of the answer      end
//	  ├── Queue ──┼──── Connect ──────┼────── Wait ───────┼────── Body ─────┤
//
// Connect is all dials of the request together, which may lie anywhere before the
// answer. What the client said is as it came, and may be anything; queries and
// fields are left out, because they hold secrets. A path may hold one too.
type Record struct {
	Begin  time.Time
	ID     string     // X-Request-ID
	Client netip.Addr // zero if it is not known
	Proto  string     // such as HTTP/1.1
	Method string
	Host   string
	Path   string // of the target, percent-encoded, without the query
	App    string // where it was last; empty if it was with none
	Status int    // as sent; 499 if the client went away before
	Failed bool   // the proxy made the answer itself, because of Cause
	Cause  Cause
	Broken bool  // the answer was cut off
	Sent   int64 // bytes of the answer behind its head; of an upgraded connection none
	Lane   bool  // all of it went through the fast lane

	Queue, Connect, Wait, Body time.Duration
}

// A sighting is what is taken down of a request meanwhile.
type sighting struct {
	on              bool
	begin, admitted time.Time
	answered        time.Time // zero: there is no answer
	connecting      time.Duration
	app             string
	status          int
	cause           Cause
	failed, broken  bool
	sent            int64
}

// sees begins to take down a request if it is one of those that are told.
func (p *Proxy) sees(x *exchange, begin time.Time) bool {
	if p.config.Access == nil || p.accessTurn.Add(1)%uint64(p.config.AccessEvery) != 0 {
		return false
	}
	x.sight.on, x.sight.begin = true, begin
	return true
}

// enters takes down that a request needs to wait no longer.
func (s *sighting) enters() {
	if s.on {
		s.admitted = time.Now()
	}
}

// answers takes down that the head of the answer has come.
func (s *sighting) answers(status int) {
	if s.on {
		s.status, s.answered = status, time.Now()
	}
}

// tell tells of a request that is over.
func (p *Proxy) tell(x *exchange, r *http.Request, lane bool) {
	s, now := &x.sight, time.Now()
	ip, _ := clientIP(r.RemoteAddr)
	path, _, _ := strings.Cut(r.RequestURI, "?")
	rec := Record{
		Begin: s.begin, ID: x.id, Client: ip, Proto: r.Proto, Method: r.Method, Host: r.Host, Path: path, App: s.app,
		Status: s.status, Failed: s.failed, Cause: s.cause, Broken: s.broken, Sent: s.sent, Lane: lane,
	}
	if s.admitted.IsZero() {
		s.admitted = now
	}
	rec.Queue, rec.Connect = s.admitted.Sub(s.begin), s.connecting
	if s.answered.IsZero() {
		s.answered = now
	}
	rec.Wait, rec.Body = max(0, s.answered.Sub(s.admitted)-rec.Connect), now.Sub(s.answered)
	p.config.Access(&rec)
}
