package front_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/certs"
	"github.com/corridor-enclave/corridor/enclave/front"
)

// fakeApp is ready or not, and has a key hash.
type fakeApp struct {
	unready bool
	hash    [32]byte
}

func (a fakeApp) Ready() bool       { return !a.unready }
func (a fakeApp) KeyHash() [32]byte { return a.hash }

// attesterFunc makes documents.
type attesterFunc func(ctx context.Context, nonce, userData []byte) ([]byte, error)

func (f attesterFunc) Attest(ctx context.Context, nonce, userData []byte) ([]byte, error) {
	return f(ctx, nonce, userData)
}

// sessionAttester makes real ones, with a simulated module.
func sessionAttester(t *testing.T, m *attestationtest.Module) front.Attester {
	t.Helper()
	s := nsm.NewSession(m)
	t.Cleanup(func() { s.Close() })
	return attesterFunc(func(ctx context.Context, nonce, userData []byte) ([]byte, error) {
		return s.Attest(ctx, nsm.AttestationRequest{Nonce: nonce, UserData: userData})
	})
}

func newCertificates(t *testing.T) *certs.SelfSigned {
	t.Helper()
	c, err := certs.NewSelfSigned("enclave.example", 0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withDefaults fills in what a test does not care about.
func withDefaults(cfg front.Config) front.Config {
	if cfg.App == nil {
		cfg.App = fakeApp{}
	}
	if cfg.Attester == nil {
		cfg.Attester = attesterFunc(func(context.Context, []byte, []byte) ([]byte, error) {
			return nil, errors.New("no module in this test")
		})
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// run starts a Front, and returns how to stop it and get Run's error. It is
// stopped at the end of the test at the latest.
func run(t *testing.T, cfg front.Config) (stop func() error) {
	t.Helper()
	f, err := front.New(withDefaults(cfg))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var result error
	go func() { defer close(done); result = f.Run(ctx) }()
	stop = func() error {
		cancel()
		<-done
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// overTCP runs a Front on loopback. The client trusts any certificate.
func overTCP(t *testing.T, cfg front.Config) (url string, client *http.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listeners, cfg.Strict = []net.Listener{l}, true
	run(t, cfg)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the document is the trust
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	scheme := "http://"
	if cfg.Certificates != nil {
		scheme = "https://"
	}
	return scheme + l.Addr().String(), &http.Client{Transport: transport}
}

// fetch sends one request and reads the whole answer.
func fetch(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(text)
}

// A pipeListener accepts in-memory connections, for tests whose time is not ours.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
