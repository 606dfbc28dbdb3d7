// Package status is a page for the operator of a host: what runs, what it carries
// and how it is, live in a browser, read-only. It asks the parts whenever the page
// asks, and keeps nothing. It also answers those who only want to know whether to
// send clients here. It changes nothing; api and ctl do.
package status

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/telemetry"
)

//go:embed page.html page.css page.js
var files embed.FS

// Policy is the Content-Security-Policy of the page: its own files and its own
// origin, nothing else, and nothing may frame it.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Config is whom to ask.
type Config struct {
	Ports    func() []publish.Status
	Enclaves func() []gateway.Enclave
	Balance  func() []balance.Status
	Reports  func() []telemetry.Report
	Now      func() time.Time
	Log      *slog.Logger
}

// A handler answers with the state of one host.
type handler struct {
	config Config
	began  time.Time
}

// Handler answers GET / with the page, /status/ with its parts, /v1/status with
// what it shows, /healthz and /readyz for those who watch over the process.
func Handler(c Config) http.Handler {
	h := &handler{config: c, began: c.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", file("page.html", "text/html; charset=utf-8"))
	mux.HandleFunc("GET /status/page.css", file("page.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /status/page.js", file("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /v1/status", h.status)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", h.ready)
	return guard(mux)
}

// guard says what browsers must not do with the answers.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", Policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// RefuseStrangers refuses a browser that was led to the control address by somebody
// else's name: to the browser a page of that name has the same origin, and could
// read and change all that is here (DNS rebinding). Programs that are no browsers
// do not send Sec-Fetch-Site, and may call the host as they like.
func RefuseStrangers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Fetch-Site") != "" && !numeric(r.Host) {
			http.Error(w, "open this page by address, or by the name localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// numeric reports whether a Host field names nothing that a stranger's DNS decides
// about.
func numeric(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

// file answers with one of the page's files. A browser keeps it, and asks each
// time whether it has changed.
func file(name, contentType string) http.HandlerFunc {
	content, err := files.ReadFile(name)
	sum := sha256.Sum256(content)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		if err != nil { // never: it is embedded
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(content) // who does not take it has gone
	}
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(h.overview()); err != nil {
		h.config.Log.Debug("status page did not take its answer", "err", err)
	}
}

// ready says whether clients can be served: an enclave is there to which a port
// leads, as far as the host knows without asking it.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	if why := h.overview().NotReady; why != "" {
		say(w, http.StatusServiceUnavailable, why)
		return
	}
	say(w, http.StatusOK, "ready")
}

// notReady is why clients should be sent elsewhere, or nothing.
func notReady(o Overview) string {
	if len(o.Ports) == 0 {
		return "" // there is nothing that could fail
	}
	why := "no enclave is there"
	for _, e := range o.Enclaves {
		switch {
		case e.Drained:
			why = "the enclave is drained"
		case e.Health == "down":
			why = "the enclave is down: " + e.Reason
		case e.Health == "up" || e.Health == "warming" || e.Attached || e.Heard:
			return ""
		}
	}
	return why
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // who does not take it has gone
}
