package front

import (
	"net/http"
	"path"
	"strings"

	"github.com/go-chi/chi/v5"
)

const attestationPath = "/enclave/attestation"

// retryAfter is what a client that comes too early is told, in seconds.
const retryAfter = "1"

// handler is the way of a request:
//
//	counted ── panics answered ── body watched ──┬── /enclave, /enclave/* ── routes
//	                                             └── else ── app ready? ── proxy
func (f *Front) handler() http.Handler {
	own, app := f.routes(), http.HandlerFunc(f.toApp)
	split := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer watchBody(w, r, bodyTimeout)()
		if reserved(r.URL.Path) {
			own.ServeHTTP(w, r)
			return
		}
		app.ServeHTTP(w, r)
	})
	return f.counted(f.recovered(split))
}

// routes answers everything below /enclave. What it does not know is 404 here
// and never reaches the app: a page under this name must not be the app's word.
func (f *Front) routes() http.Handler {
	r := chi.NewRouter()
	for pattern, h := range map[string]http.HandlerFunc{
		"/enclave":              f.page,
		"/enclave/page/{file}":  f.pageFile,
		"/enclave/config":       f.config,
		"/enclave/health":       f.health,
		"/enclave/certificates": f.certificates,
	} {
		r.Get(pattern, h)
		r.Head(pattern, h)
	}
	r.Get(attestationPath, f.attest)
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		allow := "GET, HEAD"
		if r.URL.Path == attestationPath {
			allow = "GET" // a document that nobody reads would cost the module as much
		}
		w.Header().Set("Allow", allow)
		http.Error(w, "only "+allow+" here", http.StatusMethodNotAllowed)
	})
	r.NotFound(notFound)
	return r
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the enclave has no such page; GET /enclave lists what it has", http.StatusNotFound)
}

// reserved says whether a path is the enclave's own, however it is written:
// the app behind the proxy may collapse slashes and dots, so they are collapsed
// before the comparison, and the percent-encoding is undone already.
func reserved(p string) bool {
	p = path.Clean("/" + p)
	return p == "/enclave" || strings.HasPrefix(p, "/enclave/")
}

// toApp hands a request to the proxy if there is an app that wants it.
func (f *Front) toApp(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.cfg.Proxy == nil:
		http.Error(w, "no app is configured in this enclave; GET /enclave says what it is", http.StatusNotFound)
	case !f.cfg.App.Ready():
		w.Header().Set("Retry-After", retryAfter)
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // the next one may take the fast lane
		}
		http.Error(w, "the app is not ready yet", http.StatusServiceUnavailable)
	default:
		f.cfg.Proxy.ServeHTTP(w, r)
	}
}
