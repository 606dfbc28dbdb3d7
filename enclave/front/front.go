// Package front is what clients meet: it ends TLS, answers /enclave/* itself and
// hands every other request to the app's proxy. It does not forward requests
// (revproxy does), make certificates (certs does) or judge documents (package
// attestation does, on the client's side).
package front

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/revproxy/h2"

	"github.com/corridor-enclave/corridor/enclave/page"
)

// Limits on clients, who are strangers: slow, malformed, and many.
const (
	// headerTimeout bounds the TLS handshake and, separately, a request's header.
	headerTimeout = 10 * time.Second
	// idleTimeout ends a connection on which nobody asks for anything.
	idleTimeout = 2 * time.Minute
	// bodyTimeout ends a request whose body stops coming. There is no limit on
	// the whole of it, because uploads may be of any length.
	bodyTimeout = 30 * time.Second
	// writeTimeout ends a connection whose client stops reading.
	writeTimeout = time.Minute
	// maxHeader is the size of a request's header in bytes.
	maxHeader = 64 << 10
	// maxStreams is how many requests one HTTP/2 connection may have at a time.
	maxStreams = 250
	// pingAfter is how long an HTTP/2 connection may be silent until the front
	// asks whether the client is still there.
	pingAfter = 30 * time.Second
	// goAwayAgain is how long a drain waits for the server until it asks again.
	goAwayAgain = time.Second
	// endGrace is how long a handler may take to notice that its client is gone.
	endGrace = 5 * time.Second
)

// Certificates holds the certificate that is presented to new connections.
type Certificates interface {
	Current() *tls.Certificate
}

// An Attester makes attestation documents.
type Attester interface {
	// Attest returns a document with the nonce and the user data in it.
	Attest(ctx context.Context, nonce, userData []byte) (document []byte, err error)
}

// An App is what the app has said about itself.
type App interface {
	// Ready is false as long as the app wants no requests.
	Ready() bool
	// KeyHash is the hash of the app's own key, zero if it has set none.
	KeyHash() [32]byte
}

// Config is what a Front needs.
type Config struct {
	// Listeners are served until Run ends, which closes them.
	Listeners []net.Listener
	// Certificates turns TLS on. Nil serves plain HTTP, and then there is nothing
	// that a document could bind to, so there are no documents.
	Certificates Certificates
	// Attester answers GET /enclave/attestation in nitriding's form.
	Attester Attester
	// Evidence answers it in Corridor's. Nil means that this is not offered.
	Evidence Issuer
	// SharedAddrs are addresses behind which many clients are, so that no limit
	// of a single client's holds for them.
	SharedAddrs []netip.Addr
	// Proxy takes every request that is not for the enclave itself. Nil means
	// that there is no app, and they are answered with 404.
	Proxy http.Handler
	// Fast is the proxy whose fast lane takes the common ones of the requests for
	// Proxy. Nil: there is no fast lane.
	Fast *revproxy.Proxy
	// Took is told how long each request took in the fast lane; may be nil.
	Took func(time.Duration)
	// StockHTTP2 leaves HTTP/2 to net/http.
	StockHTTP2 bool
	// MaxConnections bounds the connections of clients. Beyond it the one that has been
	// idle for the longest is closed, or the new one if none is idle. Zero: no limit.
	MaxConnections int
	// Strict has HTTP/1 refused that can be understood in more than one way
	// (revproxy.Strict).
	Strict bool
	// App says whether the app wants requests.
	App App
	// Published is answered, as JSON, to whoever asks for GET /enclave/config.
	Published any
	// Page is what browsers get for GET /enclave. Nil gives them the text that all
	// others get.
	Page *page.Page
	// Source is where the image's source can be read; nil if unknown.
	Source *url.URL
	// DrainTimeout is how long requests may take to finish once Run is to end.
	DrainTimeout time.Duration
	// Log gets what an operator should know.
	Log *slog.Logger
}

// A Front serves clients. It goes through these states, and never back:
//
//	 New          Run            ctx ends               requests done, or DrainTimeout
//	──────► idle ─────► serving ──────────► draining ─────────────────────────────────► stopped
//	                       │ a listener fails   ▲
//	                       └────────────────────┘
type Front struct {
	cfg       Config
	server    *http.Server
	lane      *revproxy.Lane // nil: there is none
	http2     *h2.Server     // nil: net/http serves HTTP/2
	published []byte

	bound *bound

	draining  atomic.Bool
	requests  tally
	documents *limiter
	attesting chan struct{} // a token for each document under way
	moduleBad atomic.Bool   // the module's failure is logged already
}

// Publish returns what GET /enclave/config answers, byte for byte, if v is what is
// published.
func Publish(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("front: encoding the published configuration: %w", err)
	}
	return append(b, '\n'), nil
}

// New checks and keeps cfg. It starts nothing.
func New(cfg Config) (*Front, error) {
	published, err := Publish(cfg.Published)
	if err != nil {
		return nil, err
	}
	f := &Front{
		cfg:       cfg,
		published: published,
		documents: newLimiter(),
		attesting: make(chan struct{}, maxAttesting),
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = math.MaxInt
	}
	f.bound = newBound(cfg.MaxConnections, cfg.Log)
	f.server = f.newServer()
	if !cfg.StockHTTP2 {
		if f.http2, err = h2.Configure(f.server); err != nil {
			return nil, fmt.Errorf("front: %w", err)
		}
	}
	if cfg.Fast != nil {
		if f.lane, err = f.newLane(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Front) newServer() *http.Server {
	s := &http.Server{
		Handler:           f.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      pingAfter,
			// No WriteByteTimeout: guardWrites does that, at a deadline in many writes
			// instead of three for each.
		},
		ErrorLog: newErrorLog(f.cfg.Log),
	}
	if certs := f.cfg.Certificates; certs != nil {
		s.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Of TLS 1.2: nothing but forward secrecy with authenticated encryption.
			CipherSuites: []uint16{
				tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
				tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
			},
			NextProtos: []string{"h2", "http/1.1"},
			// Whatever name the client asks for: it trusts the document.
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return certs.Current(), nil
			},
		}
	}
	return s
}

// Run serves until ctx ends or a listener fails. Then it stops accepting, lets
// requests finish for the drain timeout, and cuts what is left: upgraded
// connections, which have no end of their own, as soon as the requests are done.
// It returns nil if it was asked to stop and no request had to be cut.
func (f *Front) Run(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	f.server.BaseContext = func(net.Listener) context.Context { return base }

	var serving sync.WaitGroup
	failed := make(chan error, len(f.cfg.Listeners))
	for _, l := range f.cfg.Listeners {
		serving.Go(func() { failed <- f.serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	err = errors.Join(err, f.drain(cut))
	serving.Wait()
	return err
}

// serve returns nil only when the server was asked to stop.
func (f *Front) serve(l net.Listener) error {
	f.cfg.Log.Info("listening", "part", "front", "addr", l.Addr().String(), "tls", f.cfg.Certificates != nil)
	err := f.server.Serve(f.layers(l))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("front: serving %s: %w", l.Addr(), err)
}

// layers puts what comes before the server on a listener.
func (f *Front) layers(l net.Listener) net.Listener {
	l = guardWrites(f.bound.listen(l), writeTimeout)
	if f.lane != nil {
		l = f.lane.Listen(l)
	} else if f.cfg.Certificates != nil {
		l = tls.NewListener(l, f.server.TLSConfig)
	}
	if f.cfg.Strict {
		l = revproxy.Strict(l, headerTimeout)
	}
	return l
}

// shutdown waits until nothing is under way. http.Server.Shutdown tells the HTTP/2
// connections of that moment to go, and then waits for all: one whose TLS handshake
// ends later is never told, and would be served on and waited for until its client
// leaves. Asking again tells those too.
func (f *Front) shutdown(ctx context.Context) error {
	for {
		asked, cancel := context.WithTimeout(ctx, goAwayAgain)
		err := f.server.Shutdown(asked)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// drain ends the serving. cut cancels the contexts of all requests.
func (f *Front) drain(cut context.CancelFunc) error {
	f.draining.Store(true)
	f.cfg.Log.Info("draining", "part", "front", "requests", f.requests.count())
	ctx, cancel := context.WithTimeout(context.Background(), f.cfg.DrainTimeout)
	defer cancel()
	var err error
	if f.drainLane(ctx) != nil || f.shutdown(ctx) != nil {
		err = fmt.Errorf("front: %d requests were cut off after %s", f.requests.count(), f.cfg.DrainTimeout)
	}
	cut()
	_ = f.server.Close() // what is left of it; its connections fail, and that is the point
	if f.lane != nil {
		f.lane.Close()       // waits for answers that the server has got from it
		_ = f.server.Close() // what the lane has handed on meanwhile
	}
	ended, cancelEnded := context.WithTimeout(context.Background(), endGrace)
	defer cancelEnded()
	if f.requests.wait(ended) != nil {
		err = errors.Join(err, fmt.Errorf("front: %d handlers did not end", f.requests.count()))
	}
	return err
}
