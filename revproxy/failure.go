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
	"strings"
	"syscall"
)

// statusClientGone is for the log alone: nobody is there to read it. The number
// is the one that nginx made known.
const statusClientGone = 499

// A failure is an answer that the proxy makes itself.
type failure struct {
	status int
	token  string // an error type of RFC 9209 section 2.3
	reason string // for people; of a closed set
}

func tooLarge(limit int64) failure {
	return failure{http.StatusRequestEntityTooLarge, "http_request_error", fmt.Sprintf("the body is larger than %d bytes", limit)}
}

// fail answers a request that the transport could not carry out.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	f, ok := clientFailure(r.Context(), x)
	if !ok {
		f = appFailure(r, err)
	}
	p.answer(w, r, f, err)
}

// answer counts, logs and sends a failure. After a fault in the body the
// connection has lost its framing (RFC 9112 section 8) and is not used again.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, f failure, err error) {
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
	attrs := []slog.Attr{slog.Int("status", f.status), slog.String("cause", f.token)}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	p.config.Log.LogAttrs(r.Context(), level, "request not passed on: "+f.reason, attrs...)

	h := w.Header()
	h.Set("Proxy-Status", name+"; error="+f.token)
	if f.status < 500 && r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	// A 499 is written like the others: a client that only closed its half of
	// the connection must not read silence as an empty success.
	http.Error(w, fmt.Sprintf("%d %s: %s", f.status, text(f.status), f.reason), f.status)
}

func text(status int) string {
	if status == statusClientGone {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// clientFailure says what the client did wrong, if it did: x is nil if the
// request has no body.
func clientFailure(ctx context.Context, x *exchange) (failure, bool) {
	gone := failure{statusClientGone, "http_request_error", "the client went away"}
	if x != nil && x.fault.Load() != nil {
		fault := *x.fault.Load()
		var large *http.MaxBytesError
		switch {
		case errors.As(fault, &large):
			return tooLarge(large.Limit), true
		case errors.Is(fault, os.ErrDeadlineExceeded):
			return failure{http.StatusRequestTimeout, "http_request_error", "the body came too slowly"}, true
		case cut(fault), ctx.Err() != nil && !errors.Is(fault, io.ErrUnexpectedEOF):
			return gone, true
		}
		return failure{http.StatusBadRequest, "http_request_error", "the body is malformed or incomplete"}, true
	}
	switch ctx.Err() {
	case nil:
		return failure{}, false
	case context.DeadlineExceeded:
		return failure{http.StatusGatewayTimeout, "http_response_timeout", "the app did not answer in time"}, true
	}
	return gone, true
}

// cut reports whether a connection was ended by force.
func cut(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// appFailure says what went wrong between the proxy and the app. Where net/http
// has no error value for a case, its text is looked at, and a change of that
// text makes the token less exact, not the status wrong.
func appFailure(r *http.Request, err error) failure {
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	var timeout interface{ Timeout() bool }
	timedOut := errors.As(err, &timeout) && timeout.Timeout()
	switch {
	case dialing && timedOut:
		return failure{http.StatusGatewayTimeout, "connection_timeout", "the app did not accept the connection in time"}
	case errors.Is(err, syscall.ECONNREFUSED), dialing && errors.Is(err, syscall.ENOENT):
		return failure{http.StatusBadGateway, "connection_refused", "the app does not accept connections"}
	case dialing:
		return failure{http.StatusBadGateway, "destination_unavailable", "the app cannot be reached"}
	case timedOut:
		return failure{http.StatusGatewayTimeout, "http_response_timeout", "the app did not answer in time"}
	case cut(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
		return failure{http.StatusBadGateway, "connection_terminated", "the app closed the connection without an answer"}
	case strings.Contains(err.Error(), "response headers exceeded"):
		return failure{http.StatusBadGateway, "http_response_header_section_size", "the head of the app's answer is too large"}
	case strings.HasPrefix(err.Error(), "client tried to switch"):
		return failure{http.StatusBadRequest, "http_request_error", "the Upgrade field is malformed"}
	case r.Header.Get("Upgrade") != "" && strings.Contains(err.Error(), "switch"):
		return failure{http.StatusBadGateway, "http_upgrade_failed", "the app switched to another protocol than asked for"}
	}
	return failure{http.StatusBadGateway, "http_protocol_error", "the app's answer is not valid HTTP"}
}
