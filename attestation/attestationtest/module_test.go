package attestationtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/attestation/policyfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newModule(t testing.TB, o attestationtest.Options) *attestationtest.Module {
	t.Helper()
	m, err := attestationtest.NewModule(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rootOf(t testing.TB, m *attestationtest.Module) []*x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(m.RootPEM())
	if block == nil || len(rest) != 0 {
		t.Fatal("RootPEM is not one PEM block")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{root}
}

func TestNewModuleRefusesWrongPCRs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		pcrs map[int][]byte
	}{
		{name: "no such register", pcrs: map[int][]byte{32: make([]byte, 48)}},
		{name: "negative register", pcrs: map[int][]byte{-1: make([]byte, 48)}},
		{name: "another digest", pcrs: map[int][]byte{0: make([]byte, 32)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := attestationtest.NewModule(attestationtest.Options{PCRs: tt.pcrs}); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

// Programs that never meet agree on the root by the seed alone, so its bytes
// must not depend on the process, the time or the options.
func TestRootFollowsFromTheSeed(t *testing.T) {
	t.Parallel()
	const want = "a2857aa4e844c2889c60c8371f235ec70711844fb94d4164c4df88f5bfb1185f"
	later := func() time.Time { return time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, o := range []attestationtest.Options{{Seed: "golden"}, {Seed: "golden", Debug: true, Now: later}} {
		got := sha256.Sum256(rootOf(t, newModule(t, o))[0].Raw)
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("root of %+v is %x, want %s", o, got, want)
		}
	}
	other := newModule(t, attestationtest.Options{Seed: "other"})
	if bytes.Equal(other.RootPEM(), newModule(t, attestationtest.Options{Seed: "golden"}).RootPEM()) {
		t.Error("another seed gives the same root")
	}
}

func TestRefusesWhatTheDeviceRefuses(t *testing.T) {
	t.Parallel()
	m := newModule(t, attestationtest.Options{})
	long := bytes.Repeat([]byte{1}, 1025)
	encode := func(v any) []byte {
		b, err := attestationtest.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	fields := func(name string, fields map[string]any) []byte {
		return encode(map[string]any{name: fields})
	}
	tests := []struct {
		name    string
		request []byte
		want    string
	}{
		{name: "nothing", request: nil, want: "InvalidOperation"},
		{name: "no CBOR", request: []byte{0xff}, want: "InvalidOperation"},
		{name: "too long", request: make([]byte, nsm.MaxRequest+1), want: "InputTooLarge"},
		{name: "unknown", request: encode("Dance"), want: "InvalidOperation"},
		{name: "fields missing", request: encode("Attestation"), want: "InvalidOperation"},
		{name: "fields too many", request: fields("GetRandom", map[string]any{"n": 1}), want: "InvalidOperation"},
		{name: "two requests", request: encode(map[string]any{"LockPCR": 1, "LockPCRs": 2}), want: "InvalidOperation"},
		{name: "index missing", request: fields("DescribePCR", nil), want: "InvalidOperation"},
		{name: "index is text", request: fields("DescribePCR", map[string]any{"index": "0"}), want: "InvalidOperation"},
		{name: "index too large", request: fields("DescribePCR", map[string]any{"index": 32}), want: "InvalidIndex"},
		{name: "extend without data", request: fields("ExtendPCR", map[string]any{"index": 16}), want: "InvalidOperation"},
		{name: "extend a locked register", request: fields("ExtendPCR", map[string]any{"index": 15, "data": []byte{1}}), want: "ReadOnlyIndex"},
		{name: "lock a locked register", request: fields("LockPCR", map[string]any{"index": 0}), want: "ReadOnlyIndex"},
		{name: "range missing", request: fields("LockPCRs", map[string]any{"index": 1}), want: "InvalidOperation"},
		{name: "range too large", request: fields("LockPCRs", map[string]any{"range": 33}), want: "InvalidIndex"},
		{name: "nonce too long", request: fields("Attestation", map[string]any{"nonce": long}), want: "InputTooLarge"},
		{name: "empty public key", request: fields("Attestation", map[string]any{"public_key": []byte{}}), want: "InvalidArgument"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := m.Send(t.Context(), tt.request)
			want := encode(map[string]string{"Error": tt.want})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestDocumentsVerify(t *testing.T) {
	t.Parallel()
	m := newModule(t, attestationtest.Options{Seed: "documents"})
	session := nsm.NewSession(m)
	raw, err := session.Attest(t.Context(), nsm.AttestationRequest{Nonce: []byte("n"), UserData: []byte("u"), PublicKey: []byte("p")})
	if err != nil {
		t.Fatal(err)
	}
	d, err := (&attestation.Verifier{Roots: rootOf(t, m)}).Verify(raw)
	if err != nil {
		t.Fatal(err)
	}
	if string(d.Nonce) != "n" || string(d.UserData) != "u" || string(d.PublicKey) != "p" || d.InDebugMode() {
		t.Fatalf("got %+v", d.Claims)
	}
	accept, err := policyfile.Parse(m.PolicyTOML())
	if err != nil {
		t.Fatal(err)
	}
	policy, err := attestation.NewPolicy(accept, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Check(d, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// Documents carry the registers that are locked, and no others.
func TestDocumentCarriesLockedRegisters(t *testing.T) {
	t.Parallel()
	m := newModule(t, attestationtest.Options{})
	session := nsm.NewSession(m)
	if err := session.LockPCR(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	raw, err := session.Attest(t.Context(), nsm.AttestationRequest{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := attestation.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	_, has20 := u.PCRs[20]
	_, has21 := u.PCRs[21]
	if len(u.PCRs) != 17 || !has20 || has21 {
		t.Fatalf("%d registers, 20: %v, 21: %v", len(u.PCRs), has20, has21)
	}
}

func TestDebugMode(t *testing.T) {
	t.Parallel()
	pcrs := newModule(t, attestationtest.Options{Debug: true}).PCRs()
	zero := make([]byte, 48)
	for i := range 3 {
		if !bytes.Equal(pcrs[i], zero) {
			t.Errorf("PCR%d is not zero", i)
		}
	}
	if bytes.Equal(pcrs[4], zero) {
		t.Error("PCR4 is zero")
	}
}

func TestLeafIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModule(t, attestationtest.Options{})
		session := nsm.NewSession(m)
		v := attestation.Verifier{Roots: rootOf(t, m)}
		leaves := make(map[string]bool)
		for range 24 * 2 { // a day, every half hour
			raw, err := session.Attest(t.Context(), nsm.AttestationRequest{})
			if err != nil {
				t.Fatal(err)
			}
			d, err := v.Verify(raw)
			if err != nil {
				t.Fatal(err)
			}
			leaves[string(d.Certificate)] = true
			time.Sleep(30 * time.Minute) // of the test's own clock
		}
		if got, want := len(leaves), 8; got != want {
			t.Fatalf("%d leaf certificates in a day, want %d", got, want)
		}
	})
}

func TestLatencyEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModule(t, attestationtest.Options{Latency: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Send(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestFail(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	m := newModule(t, attestationtest.Options{Fail: func(request string) error {
		switch request {
		case "Attestation":
			return nsm.InternalError
		case "GetRandom":
			return broken
		}
		return nil
	}})
	session := nsm.NewSession(m)
	if _, err := session.Attest(t.Context(), nsm.AttestationRequest{}); !errors.Is(err, nsm.InternalError) {
		t.Errorf("Attest: got %v, want %v", err, nsm.InternalError)
	}
	if _, err := session.GetRandom(t.Context()); !errors.Is(err, broken) {
		t.Errorf("GetRandom: got %v, want %v", err, broken)
	}
	if _, err := session.Describe(t.Context()); err != nil {
		t.Errorf("Describe: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Describe(t.Context()); err == nil {
		t.Error("a closed module answers")
	}
}
