// Package revproxy passes HTTP requests on to an app and its answers back,
// unchanged but for what a gateway has to change. It knows neither TLS nor
// VSOCK nor enclaves, listens on nothing, and does not know whether the app is
// ready; front does.
package revproxy

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// name is what the proxy calls itself in Via and Proxy-Status.
const name = "corridor"

// Counts are numbers of requests since the start.
type Counts struct {
	Requests     uint64 // all of them
	ClientGone   uint64 // the client went away before the head of the answer (499 in the log)
	ClientFaults uint64 // answered by the proxy with another 4xx
	AppFailures  uint64 // answered by the proxy with a 5xx

	Causes map[Cause]uint64 // of all answers by the proxy: those that have happened
}

// A Proxy is an http.Handler that passes every request on to the app.
//
// What it changes in a request: hop-by-hop fields go (RFC 9110 7.6.1), and Proxy,
// which CGI would take for the variable HTTP_PROXY; Via is
// appended; Max-Forwards of OPTIONS counts down (7.6.2); what a client says
// about where a request comes from is replaced by what the proxy knows, in
// X-Forwarded-For, -Host, -Proto, X-Real-IP and Forwarded (RFC 7239), and its
// X-Request-ID by one of the proxy's; Config.Untold leaves some of these out.
// X-Forwarded-Asserted: for is added if the
// client's address is not that of the connection's peer but what somebody says who
// passes connections on: RemoteAddr is of IP, and the connection is not. A RemoteAddr that is not an IP address
// yields no client address: none is claimed. The target is sent byte by byte as
// it came, whatever a router in front did to the URL, and so is Host.
//
// What it changes in an answer: hop-by-hop fields go. Content is never recoded.
// An answer that ends with the app's connection, without a length, may have been
// cut. An HTTP/1 client gets it in the same form and not as chunks with a proper
// end, which would vouch for it. HTTP/2 has no such form: there the stream is
// reset if at its end nothing listens any more where the app did.
//
// A connection on which a client spoke HTTP/1.0 or sent chunks, but for those that a
// Lane takes, ends with the answer. Either message may have carried a Content-Length and a
// Transfer-Encoding, and then must be the last (RFC 9112 6.1); net/http does not
// say whether it did.
//
// TRACE and CONNECT are refused. An answer made here, not by the app, has a
// Proxy-Status field (RFC 9209) with the cause.
type Proxy struct {
	config     Config
	apps       *apps
	admission  *admission
	buffers    bufferPool
	quarantine *quarantine
	lanes      lanes
	mark       string // what of Via is ours alone
	fields     Fields // that the app gets
	hosts      map[string]bool

	requests, clientGone, clientFaults, appFailures atomic.Uint64
	causes                                          [causes]atomic.Uint64
	logs                                            [causes]crowdLog
	accessTurn                                      atomic.Uint64
}

// New checks a Config and makes a Proxy, which connects to nothing before the
// first request.
func New(c Config) (*Proxy, error) {
	if c.Log == nil {
		return nil, errors.New("revproxy: no logger given")
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	p := &Proxy{
		config:     c,
		admission:  newAdmission(c),
		quarantine: newQuarantine(),
		mark:       name + " (" + rand.Text()[:13] + ")",
		fields:     AllFields &^ c.Untold,
		hosts:      make(map[string]bool),
	}
	var err error
	if p.apps, err = newApps(c, surroundings{p.news, p.lanes.spare}); err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		p.hosts[hostName(h)] = true
	}
	return p, nil
}

// ServeHTTP passes one request on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a := begunAnswerOf(r.Context()); a != nil {
		p.resume(w, r, a)
		return
	}
	p.requests.Add(1)
	x := &exchange{Context: r.Context(), in: r, id: rand.Text()}
	if p.sees(x, time.Now()) {
		defer p.tell(x, r, false)
	}
	if f, ok := p.refuse(r); ok {
		p.answer(w, r, x, f, nil)
		return
	}
	if r.Method == http.MethodOptions && r.Header.Get("Max-Forwards") == "0" {
		w.Header().Set("Allow", allowed) // we are its final recipient (RFC 9110 7.6.2)
		w.WriteHeader(http.StatusNoContent)
		x.sight.answers(http.StatusNoContent)
		return
	}
	client := whoIs(r.RemoteAddr)
	if f, ok := p.admission.enter(r.Context(), client); !ok {
		p.answer(w, r, x, f, nil)
		return
	}
	defer p.admission.leave(client)
	x.sight.enters()
	p.pass(w, r, x)
}

// pass passes a request on that has been admitted.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, x *exchange) {
	x.upgrade = upgradeOf(r.Header)
	x.mayRepeat(p, r.Method, r.RequestURI, r.ContentLength == 0 || r.Body == nil)
	if t := p.config.RequestTimeout; t > 0 && x.upgrade == "" {
		var cancel context.CancelFunc
		x.Context, cancel = context.WithTimeout(x.Context, t)
		defer cancel()
	}
	if r.ContentLength != 0 && r.Body != nil {
		x.body = r.Body
		if p.config.MaxBodyBytes > 0 {
			x.body = http.MaxBytesReader(w, r.Body, p.config.MaxBodyBytes)
		}
		if r.ProtoMajor == 1 {
			// The app may answer before it has everything. Writers that cannot
			// send the answer then are those of tests.
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
	}
	defer x.end()
	p.forward(w, r, x)
}

// allowed is the Allow field: what is not here is refused, whatever the app says.
const allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// refuse says what is wrong with a request that must not reach the app.
func (p *Proxy) refuse(r *http.Request) (failure, bool) {
	switch c := &p.config; {
	case r.Method == http.MethodConnect, r.Method == http.MethodTrace:
		return methodRefused(), true
	case len(r.RequestURI) > c.MaxTargetBytes:
		return targetTooLong(c.MaxTargetBytes), true
	case fields(r.Header) > c.MaxFields:
		return tooManyFields(c.MaxFields), true
	case strings.HasPrefix(r.RequestURI, "*"), strings.ContainsFunc(r.RequestURI, noTarget):
		return badTarget(), true
	case strings.ContainsFunc(r.Host, noHost):
		return badHost(), true
	case c.MaxBodyBytes > 0 && r.ContentLength > c.MaxBodyBytes:
		return tooLarge(c.MaxBodyBytes), true
	case len(p.hosts) > 0 && !p.hosts[hostName(r.Host)]:
		return misdirected(), true
	case p.suspicious() && p.quarantine.keepsAway(p.keyOf(r), time.Now()):
		return quarantined(), true
	}
	for _, via := range r.Header["Via"] {
		if strings.Contains(via, p.mark) {
			return loop(), true
		}
	}
	return failure{}, false
}

// noTarget reports whether a character ends a target in HTTP/1.1, so that one of HTTP/2
// with it is none.
func noTarget(c rune) bool { return c <= ' ' || c == 0x7f }

// noHost reports whether a character has no place in a Host field (RFC 3986 section
// 3.2.2). net/http looks at it in HTTP/1.1 only.
func noHost(c rune) bool {
	return c <= ' ' || c > '~' || strings.ContainsRune(`"#/<>?@\^{|}`+"`", c)
}

// fields counts the fields of a head, each as often as it occurs.
func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// hostName is the name in a Host field, in the form in which names are compared.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// Counts returns the numbers so far. They are read one by one, so they need not
// be of the same instant.
func (p *Proxy) Counts() Counts {
	c := Counts{
		Requests:     p.requests.Load(),
		ClientGone:   p.clientGone.Load(),
		ClientFaults: p.clientFaults.Load(),
		AppFailures:  p.appFailures.Load(),
		Causes:       make(map[Cause]uint64),
	}
	for i := range p.causes {
		if n := p.causes[i].Load(); n > 0 {
			c.Causes[Cause(i)] = n
		}
	}
	return c
}

// Close drops the unused connections to the app. Requests under way go on, and
// so would new ones: stop the server in front first.
func (p *Proxy) Close() { p.apps.CloseIdleConnections() }
