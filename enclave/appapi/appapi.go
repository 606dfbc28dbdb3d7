// Package appapi is what app and sidecar tell each other, over HTTP inside the
// enclave: the app that it is ready, and the hash of its own key; the sidecar the
// app's secrets. It trusts whoever reaches it, so it is served on loopback and unix
// sockets only, which enclave/config enforces. It serves nothing to clients; front
// does.
//
// The paths and answers are nitriding's, but for these differences: a method
// that a path does not have is 405, /enclave/ready without WaitForApp is 404 as
// there, but says why, and the hash can be set while documents are made without
// a document ever holding half of one and half of another.
package appapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
)

// Limits on the app, which is trusted with nothing but its own data.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	// stopTimeout is how long a request may take to finish once Run is to end.
	// None of them waits for anything.
	stopTimeout = time.Second

	hashSize = 32
	// maxHashText leaves room for the newline that a shell's echo adds.
	maxHashText = 44 + 2
)

// Config is what an API needs.
type Config struct {
	// Listeners are served until Run ends, which closes them. None means that
	// the app has no way to say anything, and Run only waits.
	Listeners []net.Listener
	// WaitForApp says that the app is not ready until it calls GET
	// /enclave/ready. Otherwise it is ready from the start.
	WaitForApp bool
	// Startup is the configuration that was given at start; nil: none was.
	Startup []byte
	// Secrets are answered to whoever asks for them by name. They are not changed.
	Secrets map[string][]byte
	// Log gets what an operator should know.
	Log *slog.Logger
}

// An API serves the app and remembers what it said. Its methods may be called
// from any goroutine.
type API struct {
	cfg    Config
	server *http.Server
	ready  atomic.Bool
	hash   atomic.Pointer[[hashSize]byte]
}

// New starts nothing.
func New(cfg Config) *API {
	a := &API{cfg: cfg}
	a.ready.Store(!cfg.WaitForApp)
	a.server = &http.Server{
		Handler:           a.routes(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return a
}

// Ready says whether the app wants requests. Once true it stays true.
func (a *API) Ready() bool { return a.ready.Load() }

// KeyHash is the hash that the app has set last, zero if it has set none.
func (a *API) KeyHash() [hashSize]byte {
	if h := a.hash.Load(); h != nil {
		return *h
	}
	return [hashSize]byte{}
}

// Run serves until ctx ends, which gives nil, or until a listener fails.
func (a *API) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	failed := make(chan error, len(a.cfg.Listeners))
	for _, l := range a.cfg.Listeners {
		a.cfg.Log.Info("listening", "part", "app API", "addr", l.Addr().String())
		serving.Go(func() {
			if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("appapi: serving %s: %w", l.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if a.server.Shutdown(stop) != nil {
		_ = a.server.Close() // the app's connections fail; it is being stopped
	}
	serving.Wait()
	return err
}

func (a *API) routes() http.Handler {
	r := chi.NewRouter()
	r.Get("/enclave/ready", a.getReady)
	r.Get("/enclave/state", a.state)
	r.Put("/enclave/state", a.state)
	r.Post("/enclave/hash", a.postHash)
	r.Get("/v1/config", a.getStartup)
	r.Get("/v1/secrets/{name}", a.getSecret)
	return r
}

// getReady changes state although it is a GET, because nitriding's apps do it so.
func (a *API) getReady(w http.ResponseWriter, _ *http.Request) {
	if !a.cfg.WaitForApp {
		http.Error(w, "nobody waits for the app: the sidecar runs without --wait-for-app", http.StatusNotFound)
		return
	}
	if !a.ready.CompareAndSwap(false, true) {
		http.Error(w, "the app has said that before", http.StatusGone)
		return
	}
	a.cfg.Log.Info("the app is ready", "part", "app API")
	w.WriteHeader(http.StatusOK)
}

// getSecret answers with the plaintext, byte for byte.
func (a *API) getSecret(w http.ResponseWriter, r *http.Request) {
	secret, ok := a.cfg.Secrets[chi.URLParam(r, "name")]
	if !ok {
		http.Error(w, "there is no secret of this name: see --secret", http.StatusNotFound)
		return
	}
	hand(w, secret)
}

// getStartup answers with what the parent has given, byte for byte.
func (a *API) getStartup(w http.ResponseWriter, _ *http.Request) {
	if a.cfg.Startup == nil {
		http.Error(w, "no configuration was given at start: see --startup-port", http.StatusNotFound)
		return
	}
	hand(w, a.cfg.Startup)
}

func hand(w http.ResponseWriter, content []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(content) // an error means that the app is gone
}

// state would hand keys from one enclave to another, which nobody does here.
func (a *API) state(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "key synchronization is not enabled", http.StatusForbidden)
}

func (a *API) postHash(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHashText))
	if err != nil {
		http.Error(w, fmt.Sprintf("the body cannot be read, or has more than %d bytes", maxHashText), http.StatusBadRequest)
		return
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		http.Error(w, "the body is not base64", http.StatusBadRequest)
		return
	}
	if len(raw) != hashSize {
		http.Error(w, fmt.Sprintf("the hash has %d bytes instead of %d", len(raw), hashSize), http.StatusBadRequest)
		return
	}
	hash := [hashSize]byte(raw)
	a.hash.Store(&hash)
	a.cfg.Log.Info("the app has set its key hash", "part", "app API", "sha256", fmt.Sprintf("%x", hash))
	w.WriteHeader(http.StatusOK)
}
