package revproxy

import (
	"net/http"
	"strings"
)

// A Rule names requests.
type Rule struct {
	// Method is theirs; empty stands for all.
	Method string
	// Path is what the path begins with, percent-encoding undone.
	Path string
}

// repeatable reports whether a request may be sent twice (RFC 9110 section 9.2.2):
// its method allows it, it has no body, and no rule says that it has effects.
func (p *Proxy) repeatable(method, target string, bodyless bool) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
	default:
		return false
	}
	return bodyless && p.config.Retries > 0 && !p.hasEffects(method, target)
}

// hasEffects reports whether a rule calls a request non-idempotent, or might if
// its path could be read.
func (p *Proxy) hasEffects(method, target string) bool {
	if len(p.config.NonIdempotent) == 0 {
		return false
	}
	if _, rest, ok := strings.Cut(target, "://"); ok && target[0] != '/' {
		_, target, _ = cutBefore(rest, "/?") // the absolute form
	}
	path, ok := PathOf([]byte(target))
	for _, rule := range p.config.NonIdempotent {
		if (rule.Method == "" || rule.Method == method) && (!ok || strings.HasPrefix(path, rule.Path)) {
			return true
		}
	}
	return false
}

// mayRepeat sets how often the request may be sent.
func (x *exchange) mayRepeat(p *Proxy, method, target string, bodyless bool) {
	x.again, x.repeats = p.repeatable(method, target, bodyless), 0
	if x.again {
		x.repeats = p.config.Retries - 1
	}
}

// repeats tells package upstream whether a request may be sent twice.
func repeats(req *http.Request) bool {
	x, ok := req.Context().(*exchange)
	return ok && x.again
}
