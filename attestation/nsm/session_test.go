package nsm_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted answers every request with the same bytes.
type scripted struct {
	answer []byte
	err    error
}

func (s scripted) Send(context.Context, []byte) ([]byte, error) { return s.answer, s.err }
func (s scripted) Close() error                                 { return nil }

// cborText, cborMap and so on spell the answers out, so that the tests do not
// depend on the encoder that they test.
func text(s string) []byte { return append([]byte{0x60 | byte(len(s))}, s...) }

func entry(name string, value ...byte) []byte {
	return append(append([]byte{0xa1}, text(name)...), value...)
}

func TestSessionRefusesMalformedAnswers(t *testing.T) {
	t.Parallel()
	describe := func(s *nsm.Session) error { _, err := s.Describe(t.Context()); return err }
	pcr := func(s *nsm.Session) error { _, err := s.DescribePCR(t.Context(), 0); return err }
	extend := func(s *nsm.Session) error { _, err := s.ExtendPCR(t.Context(), 16, nil); return err }
	lock := func(s *nsm.Session) error { return s.LockPCR(t.Context(), 16) }
	random := func(s *nsm.Session) error { _, err := s.GetRandom(t.Context()); return err }
	attest := func(s *nsm.Session) error {
		_, err := s.Attest(t.Context(), nsm.AttestationRequest{})
		return err
	}
	tests := []struct {
		name   string
		answer []byte
		call   func(*nsm.Session) error
		want   error
	}{
		{name: "nothing", answer: nil, call: random, want: nsm.ErrMalformedAnswer},
		{name: "too long", answer: make([]byte, nsm.MaxAnswer+1), call: random, want: nsm.ErrMalformedAnswer},
		{name: "a number", answer: []byte{1}, call: random, want: nsm.ErrMalformedAnswer},
		{name: "cut off", answer: []byte{0xa1, 0x69, 'G'}, call: random, want: nsm.ErrMalformedAnswer},
		{name: "something behind", answer: append(text("LockPCR"), 0), call: lock, want: nsm.ErrMalformedAnswer},
		{name: "empty map", answer: []byte{0xa0}, call: random, want: nsm.ErrMalformedAnswer},
		{name: "bare name where fields belong", answer: text("GetRandom"), call: random, want: nsm.ErrMalformedAnswer},
		{name: "fields where a bare name belongs", answer: entry("LockPCR", 0xa0), call: lock, want: nsm.ErrMalformedAnswer},
		{name: "another request's answer", answer: text("LockPCRs"), call: lock, want: nsm.ErrMalformedAnswer},
		{name: "no random bytes", answer: entry("GetRandom", 0xa0), call: random, want: nsm.ErrMalformedAnswer},
		{name: "no document", answer: entry("Attestation", 0xa0), call: attest, want: nsm.ErrMalformedAnswer},
		{name: "no module id", answer: entry("DescribeNSM", 0xa0), call: describe, want: nsm.ErrMalformedAnswer},
		{name: "no lock", answer: entry("DescribePCR", append([]byte{0xa1}, append(text("data"), 0x41, 0)...)...), call: pcr, want: nsm.ErrMalformedAnswer},
		{name: "no new value", answer: entry("ExtendPCR", 0xa0), call: extend, want: nsm.ErrMalformedAnswer},
		{name: "two entries", answer: append(append([]byte{0xa2}, append(text("Error"), text("InvalidIndex")...)...), append(text("GetRandom"), 0xa0)...), call: random, want: nsm.ErrMalformedAnswer},
		{name: "the same entry twice", answer: append(append([]byte{0xa2}, append(text("GetRandom"), 0xa0)...), append(text("GetRandom"), 0xa0)...), call: random, want: nsm.ErrMalformedAnswer},
		{name: "indefinite length", answer: append(append([]byte{0xbf}, append(text("GetRandom"), 0xa0)...), 0xff), call: random, want: nsm.ErrMalformedAnswer},
		{name: "refusal without code", answer: entry("Error", text("")...), call: random, want: nsm.ErrMalformedAnswer},
		{name: "refusal with a line break", answer: entry("Error", text("a\nb")...), call: random, want: nsm.ErrMalformedAnswer},
		{name: "refusal that is a number", answer: entry("Error", 1), call: random, want: nsm.ErrMalformedAnswer},
		{name: "unknown code", answer: entry("Error", text("Tired")...), call: random, want: nsm.ErrorCode("Tired")},
	}
	for _, code := range []nsm.ErrorCode{
		nsm.Success, nsm.InvalidArgument, nsm.InvalidIndex, nsm.InvalidResponse, nsm.ReadOnlyIndex,
		nsm.InvalidOperation, nsm.BufferTooSmall, nsm.InputTooLarge, nsm.InternalError,
	} {
		tests = append(tests, struct {
			name   string
			answer []byte
			call   func(*nsm.Session) error
			want   error
		}{name: "code " + string(code), answer: entry("Error", text(string(code))...), call: lock, want: code})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.call(nsm.NewSession(scripted{answer: tt.answer}))
			if !errors.Is(err, tt.want) {
				t.Fatalf("answer % x: got %v, want %v", tt.answer, err, tt.want)
			}
		})
	}
}

func TestSessionRefusesOversizedRequests(t *testing.T) {
	t.Parallel()
	session := nsm.NewSession(scripted{err: errors.New("was sent")})
	tests := []struct {
		name    string
		request nsm.AttestationRequest
	}{
		{name: "nonce", request: nsm.AttestationRequest{Nonce: make([]byte, nsm.MaxNonce+1)}},
		{name: "user data", request: nsm.AttestationRequest{UserData: make([]byte, nsm.MaxUserData+1)}},
		{name: "public key", request: nsm.AttestationRequest{PublicKey: make([]byte, nsm.MaxPublicKey+1)}},
		{name: "empty public key", request: nsm.AttestationRequest{PublicKey: []byte{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := session.Attest(t.Context(), tt.request); !errors.Is(err, nsm.ErrInput) {
				t.Fatalf("got %v, want %v", err, nsm.ErrInput)
			}
		})
	}
	if _, err := session.ExtendPCR(t.Context(), 16, make([]byte, nsm.MaxRequest)); !errors.Is(err, nsm.ErrInput) {
		t.Fatalf("extend: got %v, want %v", err, nsm.ErrInput)
	}
}

func TestSessionPassesModuleFailureOn(t *testing.T) {
	t.Parallel()
	session := nsm.NewSession(scripted{err: io.ErrUnexpectedEOF})
	if _, err := session.GetRandom(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestClosedSession(t *testing.T) {
	t.Parallel()
	session := nsm.NewSession(scripted{answer: text("LockPCR")})
	for range 2 {
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := session.LockPCR(t.Context(), 16); !errors.Is(err, nsm.ErrClosed) {
		t.Fatalf("got %v, want %v", err, nsm.ErrClosed)
	}
}

// stuck does not answer before it is let go, like a device that hangs.
type stuck struct {
	release chan struct{}
	calls   chan struct{}
}

func (s stuck) Send(context.Context, []byte) ([]byte, error) {
	s.calls <- struct{}{}
	<-s.release
	return text("LockPCR"), nil
}

func (s stuck) Close() error { return nil }

func TestHangingModuleHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		module := stuck{release: make(chan struct{}), calls: make(chan struct{}, 10)}
		session := nsm.NewSession(module)
		start := time.Now()
		for range 3 {
			if err := session.LockPCR(t.Context(), 16); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
			}
		}
		if got, want := time.Since(start), 3*nsm.RequestTimeout; got != want {
			t.Errorf("gave up after %v, want %v", got, want)
		}
		if n := len(module.calls); n != 1 {
			t.Errorf("%d requests were left behind with the module, want 1", n)
		}
		close(module.release)
		synctest.Wait()
		if err := session.LockPCR(t.Context(), 16); err != nil {
			t.Errorf("after the module recovered: %v", err)
		}
	})
}

func TestCancelledCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		module := stuck{release: make(chan struct{}), calls: make(chan struct{}, 1)}
		session := nsm.NewSession(module)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() { errs <- session.LockPCR(ctx, 16) }()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		close(module.release)
	})
}

// overlap counts requests that are with the module at the same time.
type overlap struct {
	nsm.Module
	mu        sync.Mutex
	now, most int
}

func (o *overlap) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now += n
	o.most = max(o.most, o.now)
}

func (o *overlap) Send(ctx context.Context, request []byte) ([]byte, error) {
	o.add(1)
	defer o.add(-1)
	return o.Module.Send(ctx, request)
}

func TestSessionSerialises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		simulated, err := attestationtest.NewModule(attestationtest.Options{Latency: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		module := &overlap{Module: simulated}
		session := nsm.NewSession(module)
		var callers sync.WaitGroup
		for range 32 {
			callers.Go(func() {
				if _, err := session.GetRandom(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if module.most != 1 {
			t.Errorf("%d requests were with the module at the same time, want 1", module.most)
		}
	})
}

func newSimulated(t *testing.T, o attestationtest.Options) *nsm.Session {
	t.Helper()
	module, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	session := nsm.NewSession(module)
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	})
	return session
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	d, err := newSimulated(t, attestationtest.Options{Seed: "describe"}).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Digest != "SHA384" || d.MaxPCRs != nsm.PCRs || len(d.LockedPCRs) != 16 || d.VersionMajor != 1 || d.ModuleID == "" {
		t.Fatalf("got %+v", d)
	}
}

func TestRegisters(t *testing.T) {
	t.Parallel()
	session := newSimulated(t, attestationtest.Options{Seed: "registers"})
	if _, err := session.DescribePCR(t.Context(), nsm.PCRs); !errors.Is(err, nsm.InvalidIndex) {
		t.Fatalf("PCR32: got %v, want %v", err, nsm.InvalidIndex)
	}
	if _, err := session.ExtendPCR(t.Context(), 0, []byte("x")); !errors.Is(err, nsm.ReadOnlyIndex) {
		t.Fatalf("extend PCR0: got %v, want %v", err, nsm.ReadOnlyIndex)
	}
	if err := session.LockPCR(t.Context(), 0); !errors.Is(err, nsm.ReadOnlyIndex) {
		t.Fatalf("lock PCR0: got %v, want %v", err, nsm.ReadOnlyIndex)
	}
	if err := session.LockPCRs(t.Context(), nsm.PCRs+1); !errors.Is(err, nsm.InvalidIndex) {
		t.Fatalf("lock 33 PCRs: got %v, want %v", err, nsm.InvalidIndex)
	}
	got, err := session.ExtendPCR(t.Context(), 16, []byte("configuration"))
	if err != nil {
		t.Fatal(err)
	}
	want := sha512.Sum384(append(make([]byte, 48), "configuration"...))
	if !bytes.Equal(got, want[:]) {
		t.Fatalf("extended PCR16 is %x, want %x", got, want)
	}
	if err := session.LockPCRs(t.Context(), 17); err != nil {
		t.Fatal(err)
	}
	pcr, err := session.DescribePCR(t.Context(), 16)
	if err != nil || !pcr.Locked || !bytes.Equal(pcr.Value, want[:]) {
		t.Fatalf("DescribePCR(16) = %+v, %v", pcr, err)
	}
	if err := session.LockPCR(t.Context(), 17); err != nil {
		t.Fatal(err)
	}
}

func TestGetRandom(t *testing.T) {
	t.Parallel()
	session := newSimulated(t, attestationtest.Options{})
	a, err := session.GetRandom(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := session.GetRandom(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != 256 || bytes.Equal(a, b) {
		t.Fatalf("got %d bytes, equal to the next: %v", len(a), bytes.Equal(a, b))
	}
}

func TestCheckMeasured(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		options attestationtest.Options
		is      error
	}{
		{"debug mode", attestationtest.Options{Debug: true}, nsm.ErrDebugMode},
		{"no app", attestationtest.Options{PCRs: map[int][]byte{0: bytes.Repeat([]byte{1}, 48), 1: bytes.Repeat([]byte{1}, 48)}}, nsm.ErrDebugMode},
		{"failing module", attestationtest.Options{Fail: func(string) error { return nsm.InternalError }}, nsm.InternalError},
		{"good", attestationtest.Options{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := attestationtest.NewModule(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if err := nsm.CheckMeasured(t.Context(), m); !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %v", err, tt.is)
			}
			if _, err := nsm.NewSession(m).Describe(t.Context()); err != nil && tt.is == nil {
				t.Errorf("the module was closed: %v", err)
			}
		})
	}
}
