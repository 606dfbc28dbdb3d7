package openloop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A Target is what requests are sent to, and how.
type Target struct {
	URL    string // http or https
	Method string // empty means GET, or POST where there is a Body
	Body   []byte
	// Accept is the field of that name; without one no request carries it.
	Accept string
	// Dial opens the connection below HTTP and TLS. Nil means TCP to the URL's
	// host.
	Dial func(context.Context) (net.Conn, error)
	// TLS is for https alone. Nil means Go's defaults; without a ServerName it is
	// the URL's host.
	TLS *tls.Config
	// HTTP2 speaks HTTP/2, and over http without asking (prior knowledge).
	HTTP2 bool
	// Streams is how many requests share a connection of HTTP/2 at a time; 0 means
	// one.
	Streams int
	// Fresh opens a connection for each request and closes it after the answer.
	Fresh bool
	// Timeout bounds one request from its first byte, with the connection that it
	// may have to open. It must be positive.
	Timeout time.Duration
}

// A session sends requests over one connection as far as it holds: one after the
// other, or as many at a time as there are sessions of that connection.
type session interface {
	// exchange sends one request and reads its whole answer.
	exchange(context.Context) (bodyBytes int64, err error)
	// close is called when no exchange is under way.
	close()
}

// A dialer is a checked Target.
type dialer struct {
	Target
	request *http.Request
	tls     *tls.Config
}

func (t Target) check() (*dialer, error) {
	var errs []error
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("openloop: %q is not an http or https URL with a host", t.URL)
	}
	if t.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("openloop: a timeout of %v", t.Timeout))
	}
	if t.HTTP2 && t.Fresh {
		errs = append(errs, errors.New("openloop: HTTP/2 with a new connection for each request"))
	}
	if t.Streams < 0 || t.Streams > 1 && !t.HTTP2 {
		errs = append(errs, fmt.Errorf("openloop: %d streams on a connection: HTTP/2 has some, HTTP/1.1 has one", t.Streams))
	}
	if t.Method == "" {
		t.Method = http.MethodGet
		if t.Body != nil {
			t.Method = http.MethodPost
		}
	}
	request, err := http.NewRequest(t.Method, t.URL, nil)
	if err != nil {
		errs = append(errs, fmt.Errorf("openloop: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "corridor-bench")
	if t.Accept != "" {
		request.Header.Set("Accept", t.Accept)
	}
	d := &dialer{Target: t, request: request}
	if t.Dial == nil {
		d.Dial = tcpTo(u)
	}
	if u.Scheme == "https" {
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if t.TLS != nil {
			d.tls = t.TLS.Clone()
		}
		if d.tls.ServerName == "" {
			d.tls.ServerName = u.Hostname()
		}
	}
	return d, nil
}

func tcpTo(u *url.URL) func(context.Context) (net.Conn, error) {
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), u.Scheme) // "http" and "https" name their ports
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

// sessions returns those of so many connections: one for each request that can be
// under way.
func (d *dialer) sessions(connections int) []session {
	var all []session
	for range connections {
		if !d.HTTP2 {
			all = append(all, newPlain(d))
			continue
		}
		shared := newMultiplexed(d)
		for range max(1, d.Streams) {
			all = append(all, shared)
		}
	}
	return all
}

// A Class is where a request failed. The set is closed.
type Class string

// The classes.
const (
	DialFailed      Class = "dial"    // no connection
	HandshakeFailed Class = "tls"     // a connection, but no TLS
	TimedOut        Class = "timeout" // no whole answer within Target.Timeout
	Broken          Class = "broken"  // the connection ended or the answer was malformed
	BadStatus       Class = "status"  // an answer that is no 2xx
)

// A failure is an error with its class.
type failure struct {
	class Class
	err   error
}

func (f *failure) Error() string { return string(f.class) + ": " + f.err.Error() }

// failed classifies err; a deadline that passed is a timeout wherever it passed.
func failed(class Class, err error) error {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()) {
		class = TimedOut
	}
	return &failure{class, err}
}

// classOf returns the class of what exchange returned.
func classOf(err error) Class {
	var f *failure
	if errors.As(err, &f) {
		return f.class
	}
	return Broken
}
