package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// Limits bound what clients may ask of the app, and how long it may take.
type Limits struct {
	// Hosts are the names that are served; none means all.
	Hosts []string
	// Requests may be with the app at a time, and Queued wait for at most
	// QueueTimeout. Zero means the proxy's default.
	Requests, Queued int
	QueueTimeout     time.Duration
	// PerClient is how many requests one client may have under way; 0 is no
	// limit.
	PerClient int
	// Body is the size of a request's body in bytes; 0 is no limit.
	Body int64
	// AnswerTimeout bounds the time from the end of a request to the head of its
	// answer, RequestTimeout all of both; 0 is no limit.
	AnswerTimeout, RequestTimeout time.Duration
	// ForwardTimeout is how long a request waits for an app that does not accept
	// connections; 0 is not at all.
	ForwardTimeout time.Duration
	// PerApp is how many requests may be with one of several apps; 0 is no limit.
	PerApp int
	// Conns is how many connections to each app are kept ready.
	Conns int
	// Retries is how often a request may be sent again that may be.
	Retries int
	// NonIdempotent are requests that are never sent again.
	NonIdempotent []revproxy.Rule
	// Health is the target that apps are asked for to know whether they are well;
	// empty is none.
	Health string
	// AccessEvery has one request in so many logged; 0 is none.
	AccessEvery int
	// Connections is how many connections clients may have; 0 is what is safe.
	Connections int
	// FastLane serves common requests without net/http.
	FastLane bool
	// StockHTTP2 serves HTTP/2 by net/http.
	StockHTTP2 bool
	// Untold are the fields about where a request comes from that the app is not told.
	Untold revproxy.Fields
	// Strict refuses HTTP/1 that can be understood in more than one way.
	Strict bool
}

// maxCount is more requests than an enclave's memory can hold.
const maxCount = 1 << 20

// limits is the part of the declaration that belongs to Limits.
type limits struct {
	hosts                        *[]string
	requests, queued, perClient  *int
	body                         *int64
	queueTimeout, answerTimeout  *time.Duration
	requestTimeout, forwardLimit *time.Duration
	perApp, conns, retries       *int
	connections                  *int
	nonIdempotent                *[]revproxy.Rule
	health                       *string
	accessEvery                  *int
	fastLane, stockHTTP2, strict *bool
	untold                       *revproxy.Fields
}

func (l *limits) declare(s *settings.Set) {
	l.hosts = settings.List(s, "serve-host", "`name` in the Host field that is served; requests for others are answered with 421 (default all)", parseFQDN)
	l.requests = settings.Var(s, "max-requests", "1024", "`number` of requests that may be with the app at a time, upgraded connections included", parseCount(1))
	l.queued = settings.Var(s, "max-queue", "512", "`number` of requests that may wait for that; further ones are answered with 503 at once", parseCount(1))
	l.queueTimeout = settings.Var(s, "queue-timeout", "500ms", "how `long` a request may wait before it is answered with 503", parseTimeout)
	l.perClient = settings.Var(s, "max-client-requests", "0", "`number` of requests that one client address may have under way, 0 for no limit; where the host translates addresses all clients have one", parseCount(0))
	l.body = settings.Var(s, "max-body", "0", "size of a request's body in `bytes`, 0 for no limit; larger ones are answered with 413", parseSize)
	l.answerTimeout = settings.Var(s, "answer-timeout", "60s", "how `long` the app may take until its answer begins; then 504", parseTimeout)
	l.requestTimeout = settings.Var(s, "request-timeout", "0", "how `long` a request and its answer may take together, 0 for no limit", parseOptionalTimeout)
	l.forwardLimit = settings.Var(s, "forward-timeout", "1s", "how `long` to try again while the app accepts no connections, as when it starts anew; 0 for not at all", parseOptionalTimeout)
	l.perApp = settings.Var(s, "max-app-requests", "0", "`number` of requests that may be with one --app at a time, 0 for no limit but --max-requests", parseCount(0))
	l.conns = settings.Var(s, "app-conns", "0", "`number` of connections to each app that are kept ready", parseCount(0))
	l.retries = settings.Var(s, "retries", "1", "`number` of times that an idempotent request without a body may be sent again if the app ended the connection without a byte of an answer: first where it had been used before, then, within --forward-timeout, anywhere", parseCount(0))
	l.nonIdempotent = settings.List(s, "nonidempotent", "requests that are never sent again, whatever their method: `METHOD /PATH`, or * for all methods; the path and all below it", parseRule)
	l.health = settings.Var(s, "app-health", "", "`path` that each app is asked for every second; one that fails twice to answer below 500 gets no requests unless all do", parseHealth)
	l.accessEvery = settings.Var(s, "access-log", off, "`requests` that are logged with how long each part took: off, full or 1/N for one in N; without queries and fields, which hold secrets", parseAccess)
	l.connections = settings.Var(s, "max-connections", "auto", "`number` of connections that clients may have; beyond it the one that has been idle for the longest is closed, or the new one. auto: by memory and open files", parseConnections)
	l.fastLane = settings.Var(s, "fast-lane", "on", "`on or off`: serve common HTTP/1.1 requests without net/http", settings.OnOff)
	l.stockHTTP2 = settings.Var(s, "http2", "own", "`own or stock`: who serves HTTP/2, package revproxy/h2 or net/http", parseHTTP2)
	l.untold = settings.Var(s, "forward-fields", "all", "`fields` that tell the app where a request comes from: all, none, or some of "+revproxy.FieldNames, parseFields)
	l.strict = settings.Var(s, "strict-http", "on", "`on or off`: refuse HTTP/1 that can be understood in more than one way, such as lines that end in LF alone", settings.OnOff)
}

func (l *limits) assemble() Limits {
	return Limits{
		Hosts: *l.hosts, Requests: *l.requests, Queued: *l.queued, QueueTimeout: *l.queueTimeout,
		PerClient: *l.perClient, Body: *l.body,
		AnswerTimeout: *l.answerTimeout, RequestTimeout: *l.requestTimeout, ForwardTimeout: *l.forwardLimit,
		PerApp: *l.perApp, Conns: *l.conns, Retries: *l.retries, NonIdempotent: *l.nonIdempotent, Health: *l.health,
		AccessEvery: *l.accessEvery,
		Connections: *l.connections,
		FastLane:    *l.fastLane,
		StockHTTP2:  *l.stockHTTP2,
		Strict:      *l.strict,
		Untold:      *l.untold,
	}
}

// parseHTTP2 reports whether net/http is to serve HTTP/2.
func parseHTTP2(v string) (stock bool, err error) {
	switch v {
	case "own", "stock":
		return v == "stock", nil
	}
	return false, errors.New(`neither "own" nor "stock"`)
}

// parseFields accepts the fields that the app gets, and returns the others.
func parseFields(v string) (untold revproxy.Fields, err error) {
	told, err := revproxy.ParseFields(v)
	return revproxy.AllFields &^ told, err
}

// parseCount accepts a number of requests.
func parseCount(least int) func(string) (int, error) {
	return func(v string) (int, error) {
		n, err := strconv.Atoi(v)
		if err != nil {
			return 0, errors.New("not a number")
		}
		if n < least || n > maxCount {
			return 0, fmt.Errorf("is outside %d..%d", least, maxCount)
		}
		return n, nil
	}
}

// parseConnections accepts a number of connections, or auto, which is 0.
func parseConnections(v string) (int, error) {
	if v == "auto" {
		return 0, nil
	}
	return parseCount(1)(v)
}

// parseRule accepts a method, or * for all, and what the path begins with.
func parseRule(v string) (revproxy.Rule, error) {
	method, path, ok := strings.Cut(v, " ")
	if !ok || method == "" || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " ?#") {
		return revproxy.Rule{}, errors.New("want METHOD /PATH or * /PATH")
	}
	if method == "*" {
		method = ""
	}
	return revproxy.Rule{Method: method, Path: path}, nil
}

// parseHealth accepts a request target.
func parseHealth(v string) (string, error) {
	if v != "" && (v[0] != '/' || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' })) {
		return "", errors.New("want a path such as /health")
	}
	return v, nil
}

// parseAccess accepts how many requests there are to one that is logged.
func parseAccess(v string) (int, error) {
	switch v {
	case off:
		return 0, nil
	case "full":
		return 1, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(v, "1/"))
	if err != nil || !strings.HasPrefix(v, "1/") || n < 1 || n > maxCount {
		return 0, errors.New("want off, full or 1/N")
	}
	return n, nil
}

// parseSize accepts a number of bytes.
func parseSize(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("not a number of bytes")
	}
	return n, nil
}

// parseOptionalTimeout accepts a time limit, or 0 for none.
func parseOptionalTimeout(v string) (time.Duration, error) {
	if v == "0" {
		return 0, nil
	}
	return parseTimeout(v)
}
