// Package egressproxy lets apps that speak plain HTTP on loopback reach servers
// outside by HTTPS, over connections that are kept: an app that asks for
// http://api.example.com.corridor/ gets what https://api.example.com/ answers, and
// no request but the first pays for handshakes across the line. Certificates are
// verified in here. How requests are passed on is package revproxy's business, and
// how and where to may be connected, package egress's.
package egressproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/enclave/egress"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

const (
	// headTimeout and idleTimeout bound a head of the app, and its silence between
	// two requests.
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 64 << 10
	// keepTimeout is how long an unused connection to a destination is kept: less
	// than most servers do.
	keepTimeout = 50 * time.Second
	// connectTimeout bounds connecting, handshake included.
	connectTimeout = 20 * time.Second
)

// What each destination may have, and how many there may be at a time.
const (
	DefaultMaxDestinations = 128
	maxConcurrent          = 256
	maxQueued              = 256
	maxIdle                = 64
)

// Config says what is passed on, and where to.
type Config struct {
	// Policy is what may be reached; Dial is to enforce it as well.
	Policy egress.Policy
	// Dial connects, as net.Dialer.DialContext does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots verify destinations.
	Roots *x509.CertPool
	// Suffix ends the names that are passed on, without a dot in front.
	Suffix string
	// MaxDestinations bounds those that are connected to at a time; 0 is
	// DefaultMaxDestinations.
	MaxDestinations int
	// Log gets a record of a request that is not passed on, at most one a second of each
	// cause and destination.
	Log *slog.Logger
}

// errNoRoots reports that nothing could be verified.
var errNoRoots = errors.New("egressproxy: no certificates to verify destinations with: put them into the image (package ca-certificates), or name a file with --egress-roots")

// Roots reads certificates in PEM from a file; the empty name is those of the
// system, which in an enclave are those of its image. None is an error.
//
// There are none in this program: whom an enclave trusts is to be seen in its
// image, and to change with it.
func Roots(file string) (*x509.CertPool, error) {
	if file == "" {
		pool, err := x509.SystemCertPool()
		if err != nil || pool.Equal(x509.NewCertPool()) {
			return nil, errNoRoots
		}
		return pool, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("egressproxy: read roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("egressproxy: %s has no certificate in PEM", file)
	}
	return pool, nil
}

// A Proxy passes requests on. Make one with New, and Run it, or serve with it.
type Proxy struct {
	cfg     Config
	serving sync.WaitGroup

	mu           sync.Mutex
	ended        bool // no request is taken any more
	destinations map[string]*destination
	asked        uint64 // requests so far
	dropped      Counts // of destinations that had to make room
}

// New checks a Config and makes a Proxy, which connects to nothing before the
// first request.
func New(c Config) (*Proxy, error) {
	if c.Roots == nil {
		return nil, errNoRoots
	}
	if c.MaxDestinations == 0 {
		c.MaxDestinations = DefaultMaxDestinations
	}
	c.Suffix = "." + strings.ToLower(strings.Trim(c.Suffix, "."))
	return &Proxy{cfg: c, destinations: map[string]*destination{}}, nil
}

// Run serves the listener, which is closed, until ctx ends: requests under way are
// cut, so whoever makes them is asked to stop before.
func (p *Proxy) Run(ctx context.Context, l net.Listener) error {
	ownPort := ""
	if _, port, err := net.SplitHostPort(l.Addr().String()); err == nil {
		ownPort = port
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, ownPort) }),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends what has switched protocols, too
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	p.cfg.Log.Info("listening", "part", "egress proxy", "addr", l.Addr().String())
	err := server.Serve(l)
	server.Close()
	p.end()
	p.serving.Wait()
	p.Close()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("egressproxy: serve: %w", err)
}

// enter counts a request that is served, or says that none is any more.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.serving.Add(1)
	return true
}

func (p *Proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// Close drops all unused connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.destinations {
		d.proxy.Close()
	}
}

// serve passes one request on. ownPort is where the proxy itself is asked.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, ownPort string) {
	if !p.enter() {
		panic(http.ErrAbortHandler) // the connection has been cut
	}
	defer p.serving.Done()
	to, ok := p.destinationOf(r.Host, ownPort)
	if !ok && r.URL.Path == "/metrics" && isOwn(r.Host, ownPort) {
		p.serveMetrics(w)
		return
	}
	if !ok {
		refuse(w, http.StatusMisdirectedRequest, "http_request_denied", "the Host field is not NAME"+p.cfg.Suffix)
		return
	}
	if why := p.cfg.Policy.Refuses(to); why != "" {
		p.cfg.Log.Debug("request not passed on", "to", to.String(), "why", why)
		refuse(w, http.StatusForbidden, "destination_ip_prohibited", "the enclave's policy refuses the destination: "+why)
		return
	}
	d, err := p.take(to)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "connection_limit_reached", err.Error())
		return
	}
	defer p.leave(d)
	out := r.WithContext(r.Context())
	out.Host = d.authority
	d.proxy.ServeHTTP(w, out)
}

// destinationOf reads a Host field. A port is the destination's, unless it is our
// own: then the app has written down where it found us, and means 443.
func (p *Proxy) destinationOf(host, ownPort string) (egress.Destination, bool) {
	name, port := host, "443"
	if h, q, err := net.SplitHostPort(host); err == nil {
		name = h
		if q != ownPort {
			port = q
		}
	}
	name, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), p.cfg.Suffix)
	n, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil {
		return egress.Destination{}, false
	}
	to, err := egress.ParseDestination(name, uint16(n))
	return to, err == nil
}

// isOwn reports whether a Host field names the proxy itself, as those do who look
// at its metrics.
func isOwn(host, ownPort string) bool {
	name, port, err := net.SplitHostPort(host)
	addr, aerr := netip.ParseAddr(name)
	return err == nil && aerr == nil && port == ownPort && addr.IsLoopback()
}

// serveMetrics tells whoever is inside what each destination cost.
func (p *Proxy) serveMetrics(w http.ResponseWriter) {
	page := exposition.NewPage()
	for destination, c := range p.Counts() {
		to := exposition.With("destination", destination)
		page.Counter("corridor_egress_requests_total", "Requests for a destination.", float64(c.Requests), to)
		page.Counter("corridor_egress_connections_total", "Connections made to a destination, each with a handshake.", float64(c.Connections), to)
		page.Counter("corridor_egress_failures_total", "Requests that a destination did not answer.", float64(c.Failures), to)
		page.Counter("corridor_egress_refused_total", "Requests that were not passed on for another reason.", float64(c.Refused), to)
	}
	w.Header().Set("Content-Type", exposition.ContentType)
	_, _ = page.WriteTo(w) // whoever does not take it asks again
}

// refuse answers in the way of package revproxy.
func refuse(w http.ResponseWriter, status int, cause, why string) {
	w.Header().Set("Proxy-Status", "corridor; error="+cause)
	http.Error(w, fmt.Sprintf("%d %s: %s", status, http.StatusText(status), why), status)
}

// secured makes a connection one of TLS, to the host whose name was asked for.
func secured(ctx context.Context, conn net.Conn, config *tls.Config) (*secureConn, error) {
	s := &secureConn{Conn: tls.Client(conn, config), below: conn}
	if err := s.HandshakeContext(ctx); err != nil {
		conn.Close()
		// Of a dial: no byte of a request has been sent.
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: conn.RemoteAddr(), Err: fmt.Errorf("TLS: %w", err)}
	}
	return s, nil
}
