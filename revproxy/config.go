package revproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"
)

// Config describes a proxy. Only Apps and Log have to be set: zero stands for
// the default, which the comment of each field names.
type Config struct {
	// Apps are where the app listens: http://HOST:PORT or unix:PATH. An app that
	// speaks HTTP/2 without TLS, such as one of gRPC, is h2c://HOST:PORT. If it
	// listens in several places, a request goes where the fewest are under way.
	Apps []*url.URL
	// Dial connects to the app, instead of a dialer for its address.
	Dial func(context.Context) (net.Conn, error)
	// Outward turns the proxy round: who asks is the app itself, and what is behind
	// Dial is a server outside. Nothing is added about where a request comes from,
	// and nothing of what the app says about it is taken away.
	Outward bool
	// Untold are fields about where a request comes from that the app does not get;
	// none. What a client says in them is taken away all the same.
	Untold Fields
	// Log gets a record of a request that the proxy answers itself, of each Cause at
	// most one a second, with the number of those that were left out. Access has all.
	Log *slog.Logger

	// Access is called with each request that is over, in its goroutine, which waits
	// for it. Nil: nothing is taken down.
	Access func(*Record)
	// AccessEvery has Access called with one request in so many; 1.
	AccessEvery int

	// Hosts are the names that are served, without ports; requests for others
	// are answered with 421. None means that all are served.
	Hosts []string

	// MaxConcurrent bounds the requests that are with the app at a time, and so
	// the connections to it; 1024. An upgraded connection is one of them.
	MaxConcurrent int
	// MaxQueued bounds the requests that wait for room; 512. Further ones are
	// answered with 503 at once.
	MaxQueued int
	// QueueTimeout is how long a request waits for room before it is answered
	// with 503; 500 ms. One that would wait longer, by how fast others have lately
	// got room, is answered at once.
	QueueTimeout time.Duration
	// MaxPerClient bounds the requests of one client that are with the app or
	// wait; a client is an IPv4 address or an IPv6 /64. Further ones are answered
	// with 429. Zero means no limit, because behind a network address
	// translation all clients are one.
	MaxPerClient int
	// MaxPerApp bounds the requests that are with one of Apps at a time, and so the
	// connections to it. While all are full, requests are answered with 503. Zero
	// means no limit but MaxConcurrent.
	MaxPerApp int
	// RetryAfter is when a client that was refused for want of room is asked to
	// come again; 1 s. It is rounded up to seconds.
	RetryAfter time.Duration

	// MaxTargetBytes bounds the request target; 8 KiB. Longer: 414.
	MaxTargetBytes int
	// MaxFields bounds the number of header fields; 100. More: 431. Their size is
	// the server's limit.
	MaxFields int
	// MaxBodyBytes bounds the body of a request, whether its length is declared
	// or not. Larger: 413. Zero means no limit.
	MaxBodyBytes int64
	// MaxResponseHeaderBytes bounds the head of the app's answer; 1 MiB.
	MaxResponseHeaderBytes int64

	// MaxIdleConns is how many unused connections to the app are kept; 512. A
	// smaller number than there are concurrent requests costs a new connection
	// for most of them.
	MaxIdleConns int
	// DialTimeout bounds connecting to the app; 5 s.
	DialTimeout time.Duration
	// ForwardTimeout is how long to try again while no app accepts connections,
	// as between its end and its new start. Zero: each app is tried once.
	ForwardTimeout time.Duration
	// Retries is how often a request may be sent again that had no byte of an answer
	// when its connection ended, if its method is idempotent, it has no body, and
	// no rule of NonIdempotent is about it: the first time only if the connection
	// had been used before, further times also elsewhere, within ForwardTimeout. 1;
	// below zero: never.
	Retries int
	// NonIdempotent are requests with effects, whatever their method says. They are
	// never sent again, except by NetHTTP, which does as it likes.
	NonIdempotent []Rule
	// MinConns is how many connections to each app Run keeps ready. Zero: those
	// that requests have left behind. HTTP/2 apps and NetHTTP have none.
	MinConns int
	// HealthPath is the target of a GET that Run asks each app now and then; an app
	// that fails twice in a row to answer with less than 500 gets no requests
	// unless all do. Empty: it is not asked.
	HealthPath string
	// HealthInterval is how often Run looks after the apps; 1 s.
	HealthInterval time.Duration
	// SlowStart is how long an app that comes back gets less than the others; 10 s.
	SlowStart time.Duration
	// ResponseHeaderTimeout bounds the time between the end of the request and
	// the head of the answer; 60 s.
	ResponseHeaderTimeout time.Duration
	// ResponseBodyTimeout bounds the silence within an answer, and how long the app
	// may take nothing of a request's body; 10 minutes. Neither has a limit as a whole:
	// both stream. HTTP/2 apps are not bounded.
	ResponseBodyTimeout time.Duration
	// RequestTimeout bounds everything from the first byte to the app to the
	// last of its answer, but not an upgraded connection. Zero means no limit.
	RequestTimeout time.Duration
	// IdleConnTimeout is how long an unused connection to the app is kept; 90 s.
	// Below the app's own limit no request meets a connection that just closes.
	IdleConnTimeout time.Duration
	// ExpectContinueTimeout is how long a body is held back for the app's 100
	// (Continue); 1 s.
	ExpectContinueTimeout time.Duration

	// NetHTTP speaks to the app by net/http's Transport instead of package
	// upstream: slower, and a target that begins with two slashes is encoded
	// anew. It is there to compare, and as a way out.
	NetHTTP bool
}

// appAddress turns the app's URL into what net.Dial takes.
func appAddress(app *url.URL) (network, address string, err error) {
	switch {
	case app == nil:
		return "", "", errors.New("revproxy: no app given")
	case app.Scheme == "unix" && app.Host == "" && app.Path+app.Opaque != "":
		return "unix", app.Path + app.Opaque, nil
	case (app.Scheme != "http" && app.Scheme != "h2c") || app.Hostname() == "":
		return "", "", fmt.Errorf("revproxy: app %q is none of http://HOST:PORT, h2c://HOST:PORT, unix:PATH", app)
	case strings.Trim(app.Path, "/") != "" || app.RawQuery != "" || app.User != nil || app.Fragment != "":
		return "", "", fmt.Errorf("revproxy: app %q has more than a host and a port", app)
	case app.Port() == "":
		return "tcp", app.Host + ":80", nil
	}
	return "tcp", app.Host, nil
}

// complete puts in the defaults.
func (c *Config) complete() error {
	for _, n := range []int64{
		int64(c.MaxConcurrent), int64(c.MaxQueued), int64(c.QueueTimeout), int64(c.MaxPerClient), int64(c.RetryAfter),
		int64(c.MaxPerApp), int64(c.MinConns), int64(c.HealthInterval), int64(c.SlowStart), int64(c.AccessEvery),
		int64(c.MaxTargetBytes), int64(c.MaxFields), c.MaxBodyBytes, c.MaxResponseHeaderBytes, int64(c.MaxIdleConns),
		int64(c.DialTimeout), int64(c.ForwardTimeout), int64(c.ResponseHeaderTimeout), int64(c.ResponseBodyTimeout), int64(c.RequestTimeout),
		int64(c.IdleConnTimeout), int64(c.ExpectContinueTimeout),
	} {
		if n < 0 {
			return errors.New("revproxy: a limit or timeout is negative")
		}
	}
	if c.HealthPath != "" && (c.HealthPath[0] != '/' || strings.ContainsFunc(c.HealthPath, func(r rune) bool { return r <= ' ' || r > '~' })) {
		return fmt.Errorf("revproxy: health path %q is no target", c.HealthPath)
	}
	orElse(&c.MaxConcurrent, 1024)
	orElse(&c.MaxQueued, 512)
	orElse(&c.QueueTimeout, 500*time.Millisecond)
	orElse(&c.RetryAfter, time.Second)
	orElse(&c.MaxTargetBytes, 8<<10)
	orElse(&c.MaxFields, 100)
	orElse(&c.MaxResponseHeaderBytes, 1<<20)
	orElse(&c.MaxIdleConns, 512)
	orElse(&c.DialTimeout, 5*time.Second)
	orElse(&c.AccessEvery, 1)
	orElse(&c.Retries, 1)
	orElse(&c.HealthInterval, time.Second)
	orElse(&c.SlowStart, 10*time.Second)
	orElse(&c.ResponseHeaderTimeout, 60*time.Second)
	orElse(&c.ResponseBodyTimeout, 10*time.Minute)
	orElse(&c.IdleConnTimeout, 90*time.Second)
	orElse(&c.ExpectContinueTimeout, time.Second)
	return nil
}

func orElse[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}
