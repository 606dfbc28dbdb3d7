package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/client"
	"github.com/corridor-enclave/corridor/attestation/client/clienttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDialer(t testing.TB, e *clienttest.Enclave, edit func(*client.Config)) *client.Dialer {
	t.Helper()
	cfg := client.Config{Roots: e.Roots(t), Policy: e.Policy(t)}
	if edit != nil {
		edit(&cfg)
	}
	d, err := client.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newClient(t testing.TB, d *client.Dialer) *http.Client {
	t.Helper()
	transport := client.NewTransport(d)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t testing.TB, c *http.Client, url string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestNewDialerRefuses(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	for _, cfg := range []client.Config{{}, {Roots: e.Roots(t)}, {Policy: e.Policy(t)}} {
		if d, err := client.NewDialer(cfg); d != nil || err == nil {
			t.Error("there is a dialer that verifies nothing")
		}
	}
}

// Whatever is wrong with an enclave, the app does not get a single request.
func TestTransportRefuses(t *testing.T) {
	t.Parallel()
	old := func() time.Time { return time.Now().Add(-time.Hour) }
	tests := []struct {
		name    string
		options attestationtest.Options
		edit    func(*clienttest.Enclave)
		is      error
	}{
		{"another authority", attestationtest.Options{Seed: "other"}, nil, attestation.ErrNotGenuine},
		{"debug mode", attestationtest.Options{Seed: "test", Debug: true}, nil, attestation.ErrNotExpected},
		{"another image", attestationtest.Options{Seed: "test", PCRs: map[int][]byte{0: bytes.Repeat([]byte{1}, 48), 1: bytes.Repeat([]byte{1}, 48), 2: bytes.Repeat([]byte{1}, 48)}}, nil, attestation.ErrNotExpected},
		{"old", attestationtest.Options{Seed: "test", Now: old}, nil, attestation.ErrNotFresh},
		{"another key", attestationtest.Options{Seed: "test"}, func(e *clienttest.Enclave) { e.Impostor.Store(true) }, attestation.ErrNotThisConnection},
		{"no proof", attestationtest.Options{Seed: "test"}, func(e *clienttest.Enclave) {
			e.Lie = func(v *attestation.Evidence) { v.Proof = nil }
		}, attestation.ErrNotFresh},
		{"another connection", attestationtest.Options{Seed: "test"}, func(e *clienttest.Enclave) {
			e.Lie = func(v *attestation.Evidence) { v.Proof.Exporter[0] ^= 1 }
		}, attestation.ErrNotThisConnection},
		{"not bound to the connection", attestationtest.Options{Seed: "test"}, func(e *clienttest.Enclave) {
			e.Lie = func(v *attestation.Evidence) { v.Proof.Exporter = nil }
		}, attestation.ErrNotThisConnection},
		{"document changed", attestationtest.Options{Seed: "test"}, func(e *clienttest.Enclave) {
			e.Lie = func(v *attestation.Evidence) { v.Document = append([]byte{0xd2}, v.Document[:len(v.Document)-1]...) }
		}, attestation.ErrNotGenuine},
	}
	good := clienttest.New(t, attestationtest.Options{Seed: "test"})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := clienttest.New(t, tt.options)
			if tt.edit != nil {
				tt.edit(e)
			}
			c := newClient(t, newDialer(t, good, nil)) // the good one's root and policy
			_, err := get(t, c, e.URL+"/secret")
			if !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %v", err, tt.is)
			}
			if e.Served.Load() != 0 {
				t.Error("the request was sent")
			}
		})
	}
}

func TestTransportRefusesPlainHTTP(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	if _, err := get(t, newClient(t, newDialer(t, e, nil)), "http://127.0.0.1:1/"); err == nil || !strings.Contains(err.Error(), "only https") {
		t.Fatalf("got %v, want a refusal", err)
	}
}

// Many requests need one document, over HTTP/2 or what else is offered.
func TestTransport(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	for want, edit := range map[string]func(*client.Config){
		"HTTP/2.0 ": nil,
		"HTTP/1.1 ": func(cfg *client.Config) { cfg.Protocols = []string{"http/1.1"} },
	} {
		asked := e.Asked.Load()
		c := newClient(t, newDialer(t, e, edit))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				body, err := get(t, c, e.URL+"/path")
				if err != nil || !strings.HasPrefix(body, want) || !strings.HasSuffix(body, "/path") {
					t.Errorf("got %q, %v; want %s", body, err, want)
				}
			})
		}
		all.Wait()
		if got := e.Asked.Load() - asked; got != 1 {
			t.Errorf("%s: %d documents for 20 requests, want 1", want, got)
		}
	}
}

// An enclave that was replaced by one of the same image is verified anew; one
// that cannot prove itself is not.
func TestTransportFollowsARotation(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	d := newDialer(t, e, nil)
	c := newClient(t, d)
	if _, err := get(t, c, e.URL); err != nil {
		t.Fatal(err)
	}
	e.Rotate(t)
	c.CloseIdleConnections()
	if _, err := get(t, c, e.URL); err != nil || e.Asked.Load() != 2 {
		t.Fatalf("after a rotation: %v, %d documents; want 2", err, e.Asked.Load())
	}
	e.Rotate(t)
	e.Impostor.Store(true)
	c.CloseIdleConnections()
	served := e.Served.Load()
	if _, err := get(t, c, e.URL); !errors.Is(err, attestation.ErrNotThisConnection) || e.Served.Load() != served {
		t.Fatalf("an impostor gets requests: %v", err)
	}
}

// A pin ends, at the latest with the module's certificate, and connections to a
// key that is not attested any more get nothing further.
func TestPinEnds(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	var later atomic.Int64
	c := newClient(t, newDialer(t, e, func(cfg *client.Config) {
		cfg.PinFor, cfg.MaxAge = 100*time.Hour, 200*time.Hour
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}))
	if _, err := get(t, c, e.URL); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(attestationtest.LeafLifetime - time.Minute))
	if _, err := get(t, c, e.URL); err != nil || e.Asked.Load() != 1 {
		t.Fatalf("before the certificate's end: %v, %d documents; want 1", err, e.Asked.Load())
	}
	later.Store(int64(attestationtest.LeafLifetime))
	served := e.Served.Load()
	if _, err := get(t, c, e.URL); !errors.Is(err, attestation.ErrNotFresh) || e.Served.Load() != served {
		t.Fatalf("behind the certificate's end: %v; want another document, which is old as well", err)
	}
}

func TestDialerGivesUp(t *testing.T) {
	t.Parallel()
	e := clienttest.New(t, attestationtest.Options{Seed: "test"})
	d := newDialer(t, e, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(e.URL, "https://")); conn != nil || err == nil {
		t.Error("a connection for nobody")
	}
	if conn, err := d.DialContext(t.Context(), "tcp", "no port"); conn != nil || err == nil {
		t.Error("a connection to nowhere")
	}
}
