package issuer_test

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/issuer"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nonceOf(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 12), uint64(i)) }

// counted is a module that counts its documents and may be held.
type counted struct {
	session *nsm.Session
	calls   atomic.Int64
	held    chan struct{} // nil, or every call waits until it is closed
}

func (c *counted) Attest(ctx context.Context, r nsm.AttestationRequest) ([]byte, error) {
	c.calls.Add(1)
	if c.held != nil {
		<-c.held
	}
	return c.session.Attest(ctx, r)
}

// A setting is an issuer with a simulated module, and a verifier that trusts it.
type setting struct {
	*issuer.Issuer
	module   *counted
	verifier attestation.Verifier
	key      atomic.Uint32 // what the statement's key begins with
	stop     func()
}

func start(t testing.TB, o attestationtest.Options, cfg issuer.Config) *setting {
	t.Helper()
	o.Seed = "test"
	module, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(module.RootPEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s := &setting{module: &counted{session: nsm.NewSession(module)}, verifier: attestation.Verifier{Roots: []*x509.Certificate{root}}}
	cfg.Module = s.module
	cfg.Statement = func() attestation.Statement {
		return attestation.Statement{Keys: []attestation.Digest{{byte(s.key.Load())}}}
	}
	s.Issuer = issuer.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		s.module.session.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// verify returns the verified document after all checks that concern the issuer.
func (s *setting) verify(t testing.TB, e attestation.Evidence, nonce, exporter []byte) *attestation.Document {
	t.Helper()
	d, err := s.verifier.Verify(e.Document)
	if err != nil {
		t.Fatal(err)
	}
	if err := (attestation.Freshness{Nonce: nonce, Proof: e.Proof, Exporter: exporter}).CheckNonce(d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFreshRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, attestationtest.Options{Fail: func(string) error { return nsm.InternalError }}, issuer.Config{})
	if _, err := s.Fresh(t.Context(), []byte("short"), nil); err == nil || s.module.calls.Load() != 0 {
		t.Errorf("short nonce: %v, %d calls", err, s.module.calls.Load())
	}
	if _, err := s.Fresh(t.Context(), nonceOf(1), []byte("short")); err == nil {
		t.Error("a short exporter is taken")
	}
	if _, err := s.Fresh(t.Context(), nonceOf(1), nil); !errors.Is(err, nsm.InternalError) {
		t.Errorf("failing module: %v, want %v", err, nsm.InternalError)
	}
	if _, err := s.Kept(t.Context()); !errors.Is(err, nsm.InternalError) {
		t.Errorf("failing module: %v, want %v", err, nsm.InternalError)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Kept(ctx); err == nil {
		t.Error("a client that is gone gets a document")
	}
}

// Clients that come together share a document, and each has its own path.
func TestFreshIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, attestationtest.Options{Latency: time.Millisecond}, issuer.Config{})
		const clients = 100
		exporter := make([]byte, 32)
		documents := make(chan string, clients)
		for i := range clients {
			go func() {
				var bound []byte
				if i%2 == 0 {
					bound = exporter
				}
				e, err := s.Fresh(t.Context(), nonceOf(i), bound)
				if err != nil {
					t.Error(err)
					documents <- ""
					return
				}
				s.verify(t, e, nonceOf(i), bound)
				documents <- string(e.Document)
			}()
		}
		for range clients {
			<-documents
		}
		if calls := s.module.calls.Load(); calls != 1 {
			t.Errorf("%d clients at one time took %d documents, want 1", clients, calls)
		}
		s.stop()
	})
}

func TestFreshIsBusyAndStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const room = 3
		s := start(t, attestationtest.Options{}, issuer.Config{Waiting: room})
		s.module.held = make(chan struct{})
		errs := make(chan error, room+1)
		ask := func(i int) {
			go func() {
				_, err := s.Fresh(t.Context(), nonceOf(i), nil)
				errs <- err
			}()
		}
		ask(0)
		time.Sleep(issuer.DefaultGather)
		synctest.Wait() // the module has the first and holds it
		for i := range room {
			ask(1 + i)
		}
		synctest.Wait()
		if _, err := s.Fresh(t.Context(), nonceOf(9), nil); !errors.Is(err, issuer.ErrBusy) {
			t.Errorf("got %v, want %v", err, issuer.ErrBusy)
		}
		go func() { close(s.module.held) }()
		s.stop()
		for range room + 1 {
			if err := <-errs; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v or none", err, context.Canceled)
			}
		}
	})
}

// A client that gives up leaves a leaf behind that harms nobody.
func TestFreshGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, attestationtest.Options{Latency: time.Second}, issuer.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.Fresh(ctx, nonceOf(1), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		e, err := s.Fresh(t.Context(), nonceOf(2), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.verify(t, e, nonceOf(2), nil)
		s.stop()
	})
}

// The kept document is young, true, and never outlives its certificate, for four
// hours, in which the module's certificate is replaced, and somebody who asks every
// twenty seconds.
func TestKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, attestationtest.Options{}, issuer.Config{})
		const all, every = 4 * time.Hour, 20 * time.Second
		var last []byte
		for begun := time.Now(); time.Since(begun) < all; time.Sleep(every) {
			if time.Since(begun) == all/2 {
				s.key.Store(1)
			}
			e, err := s.Kept(t.Context())
			if err != nil || e.Proof != nil {
				t.Fatal(err, e.Proof)
			}
			if string(e.Document) == string(last) {
				continue
			}
			last = e.Document
			d, err := s.verifier.Verify(e.Document)
			if err != nil {
				t.Fatalf("after %v: %v", time.Since(begun), err)
			}
			got, err := attestation.EndpointOf(d)
			if err != nil || got.Keys[0][0] != byte(s.key.Load()) {
				t.Fatalf("after %v: keys %x, %v", time.Since(begun), got.Keys, err)
			}
			if age := time.Since(d.Timestamp); age != 0 {
				t.Fatalf("a new document is %v old", age)
			}
		}
		// One a minute; one for each asking in the last minutes of a certificate,
		// which the simulated module replaces five minutes before its end.
		if most := int64(all/time.Minute + 5*time.Minute/every + 1); s.module.calls.Load() > most {
			t.Errorf("%d documents in %v, want at most %d", s.module.calls.Load(), all, most)
		}
		s.stop()
	})
}

// A certificate that is about to end lets the document be asked for again, but
// not at every request.
func TestKeptAtTheEndOfACertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, attestationtest.Options{}, issuer.Config{})
		// The simulated module replaces its certificate five minutes before the end.
		time.Sleep(attestationtest.LeafLifetime - 7*time.Minute)
		for range 100 {
			if _, err := s.Kept(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got := s.module.calls.Load(); got != 10 {
			t.Errorf("%d documents in ten seconds, want 10", got)
		}
		s.stop()
	})
}
