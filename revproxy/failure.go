package revproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

// statusClientGone is for the log alone: nobody is there to read it. The number
// is the one that nginx made known.
const statusClientGone = 499

// A failure is an answer that the proxy makes itself. README.md has them all.
type failure struct {
	status int
	cause  Cause
	reason string // for people; of a closed set
	crowd  bool   // for want of room: it may be tried again soon, and there may be many
}

func clientGone() failure {
	return failure{status: statusClientGone, cause: RequestError, reason: "the client went away"}
}

func crowded(reason string) failure {
	return failure{http.StatusServiceUnavailable, ConnectionLimit, reason, true}
}

func tooMany() failure {
	return failure{http.StatusTooManyRequests, RequestDenied, "the client has as many requests under way as it may", true}
}

func methodRefused() failure {
	// A tunnel has no place here (RFC 9110 9.3.6), and TRACE would show a client
	// what the proxy adds (9.3.8).
	return failure{status: http.StatusMethodNotAllowed, cause: RequestDenied, reason: "the method is not passed on"}
}

func badTarget() failure {
	return failure{status: http.StatusBadRequest, cause: RequestError, reason: "the request target is not a path"}
}

func badHost() failure {
	return failure{status: http.StatusBadRequest, cause: RequestError, reason: "the host is malformed"}
}

func badUpgrade() failure {
	return failure{status: http.StatusBadRequest, cause: RequestError, reason: "the Upgrade field is malformed"}
}

func targetTooLong(limit int) failure {
	return failure{status: http.StatusRequestURITooLong, cause: RequestError, reason: fmt.Sprintf("the request target is longer than %d bytes", limit)}
}

func tooManyFields(limit int) failure {
	return failure{status: http.StatusRequestHeaderFieldsTooLarge, cause: RequestError, reason: fmt.Sprintf("there are more than %d header fields", limit)}
}

func tooLarge(limit int64) failure {
	return failure{status: http.StatusRequestEntityTooLarge, cause: RequestError, reason: fmt.Sprintf("the body is larger than %d bytes", limit)}
}

func misdirected() failure {
	return failure{status: http.StatusMisdirectedRequest, cause: RequestDenied, reason: "the host is not served here"}
}

func loop() failure {
	return failure{status: http.StatusLoopDetected, cause: LoopDetected, reason: "the request has been here before"}
}

func quarantined() failure {
	return failure{status: http.StatusServiceUnavailable, cause: RequestDenied, reason: "the app has died of such requests more than once"}
}

// fail answers a request that could not be carried out.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, x *exchange, err error) {
	x.settle()
	f, ok := clientFailure(x)
	if !ok {
		if f = appFailure(err); f.cause == ConnectionTerminated || errors.Is(err, upstream.ErrSilent) {
			p.accuse(r, x.app)
		}
	}
	p.answer(w, r, x, f, err)
}

// answer counts, logs and sends a failure. After a fault in the body the
// connection has lost its framing (RFC 9112 section 8) and is not used again,
// and neither is one with a body that nobody will read.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, x *exchange, f failure, err error) {
	if p.config.Outward {
		f.reason = strings.NewReplacer("the app", "the destination", "the client", "the app").Replace(f.reason)
	}
	p.causes[f.cause].Add(1)
	x.sight.status, x.sight.failed, x.sight.cause = f.status, true, f.cause
	level := slog.LevelWarn
	switch {
	case f.status == statusClientGone:
		p.clientGone.Add(1)
		level = slog.LevelInfo
	case f.status < 500:
		p.clientFaults.Add(1)
		level = slog.LevelInfo
	default:
		p.appFailures.Add(1)
	}
	p.report(r.Context(), level, x, f, err)

	h := w.Header()
	clear(h) // of what an answer that was not sent has left there
	h.Set("Proxy-Status", name+"; error="+f.cause.String())
	h.Set("X-Request-Id", x.id)
	if f.crowd {
		h.Set("Retry-After", strconv.FormatInt(int64((p.config.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if f.status == http.StatusMethodNotAllowed {
		h.Set("Allow", allowed)
	}
	if r.ProtoMajor == 1 && (f.status < 500 && !f.crowd || x.unread() || lastOfConnection(x.in)) {
		h.Set("Connection", "close")
	}
	// A 499 is written like the others: a client that only closed its half of
	// the connection must not read silence as an empty success.
	http.Error(w, fmt.Sprintf("%d %s: %s", f.status, text(f.status), f.reason), f.status)
}

// report logs a failure, or counts that it did not: others can cause as many as they like.
func (p *Proxy) report(ctx context.Context, level slog.Level, x *exchange, f failure, err error) {
	attrs := []slog.Attr{slog.Int("status", f.status), slog.String("cause", f.cause.String()), slog.String("request", x.id)}
	more, ok := p.logs[f.cause].turn(time.Now())
	if !ok {
		return
	}
	if more > 0 {
		attrs = append(attrs, slog.Int64("unreported", more)) // of the same cause
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	p.config.Log.LogAttrs(ctx, level, "request not passed on: "+f.reason, attrs...)
}

// A crowdLog keeps a crowd from filling the log: one record a second, and how many were
// left out. Package sometimes has the same rule where the link and streams are, which
// this package does not know.
type crowdLog struct {
	second  atomic.Int64 // of the last record
	skipped atomic.Int64
}

// turn reports whether to log now, and how many were skipped since the last time.
func (l *crowdLog) turn(now time.Time) (skipped int64, ok bool) {
	last, second := l.second.Load(), now.Unix()
	if last == second || !l.second.CompareAndSwap(last, second) {
		l.skipped.Add(1)
		return 0, false
	}
	return l.skipped.Swap(0), true
}

func text(status int) string {
	if status == statusClientGone {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// clientFailure says what the client did wrong, if it did.
func clientFailure(x *exchange) (failure, bool) {
	if fault := x.fault.Load(); fault != nil {
		return bodyFailure(*fault, x.Err() != nil), true
	}
	switch x.Err() {
	case nil:
		return failure{}, false
	case context.DeadlineExceeded:
		return failure{status: http.StatusGatewayTimeout, cause: ResponseTimeout, reason: "the request took too long"}, true
	}
	return clientGone(), true
}

// bodyFailure says why a client's body could not be read.
func bodyFailure(fault error, canceled bool) failure {
	var large *http.MaxBytesError
	switch {
	case errors.As(fault, &large):
		return tooLarge(large.Limit)
	case errors.Is(fault, os.ErrDeadlineExceeded):
		return failure{status: http.StatusRequestTimeout, cause: RequestError, reason: "the body came too slowly"}
	case cut(fault), canceled && !incomplete(fault):
		return clientGone()
	}
	return failure{status: http.StatusBadRequest, cause: RequestError, reason: "the body is malformed or incomplete"}
}

// incomplete reports whether the client's message ended too early, or became one that
// has no end. net/http has no error value for trailers without an end.
func incomplete(fault error) bool {
	return errors.Is(fault, io.ErrUnexpectedEOF) || errors.Is(fault, errNotStrict) || strings.Contains(fault.Error(), "suspiciously long trailer")
}

// cut reports whether a connection was ended by force.
func cut(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// appFailure says what went wrong between the proxy and the app. Where net/http
// has no error value for a case, its text is looked at, and a change of that
// text makes the cause less exact, not the status wrong.
func appFailure(err error) failure {
	bad := func(c Cause, reason string) failure {
		return failure{status: http.StatusBadGateway, cause: c, reason: reason}
	}
	late := func(c Cause, reason string) failure {
		return failure{status: http.StatusGatewayTimeout, cause: c, reason: reason}
	}
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	var timeout interface{ Timeout() bool }
	timedOut := errors.As(err, &timeout) && timeout.Timeout()
	switch {
	case errors.Is(err, errFull):
		return crowded("every app has as many requests as it may")
	case dialing && timedOut:
		return late(ConnectionTimeout, "the app did not accept the connection in time")
	case gone(err):
		return bad(ConnectionRefused, "the app does not accept connections")
	case dialing:
		return bad(Unavailable, "the app cannot be reached")
	case timedOut:
		return late(ResponseTimeout, "the app did not answer in time")
	case errors.Is(err, upstream.ErrHead), strings.Contains(err.Error(), "response headers exceeded"):
		return bad(ResponseHeader, "the head of the app's answer is too large")
	case cut(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
		return bad(ConnectionTerminated, "the app closed the connection without an answer")
	case errors.Is(err, errUnaskedUpgrade), errors.Is(err, errOtherUpgrade):
		return bad(UpgradeFailed, "the app switched to another protocol than asked for")
	}
	return bad(ProtocolError, "the app's answer is not valid HTTP")
}

// gone reports whether a dial failed because nothing listens.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}
