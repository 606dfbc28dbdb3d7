package nsm_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

// fakePool is a kernel's.
type fakePool struct {
	source         string
	sourceErr, err error
	seed           []byte
	bits           int
}

func (p *fakePool) Source() (string, error) { return p.source, p.sourceErr }

func (p *fakePool) Credit(seed []byte, bits int) error {
	p.seed, p.bits = seed, bits
	return p.err
}

func TestEnsureEntropy(t *testing.T) {
	t.Parallel()
	refused := errors.New("not permitted")
	broken := func(name string) error {
		if name == "GetRandom" {
			return nsm.InternalError
		}
		return nil
	}
	tests := []struct {
		name   string
		pool   fakePool
		module func(string) error
		bits   int
		err    error
	}{
		{name: "module fails", pool: fakePool{source: "tpm-rng-0"}, module: broken, err: nsm.InternalError},
		{name: "kernel refuses", pool: fakePool{source: "tpm-rng-0", err: refused}, err: refused, bits: 256 * 8},
		{name: "module feeds the kernel", pool: fakePool{source: "nsm-hwrng"}, module: broken},
		{name: "another generator", pool: fakePool{source: "tpm-rng-0"}, bits: 256 * 8},
		{name: "none", pool: fakePool{source: "none"}, bits: 256 * 8},
		{name: "unknown", pool: fakePool{source: "nsm-hwrng", sourceErr: fs.ErrNotExist}, bits: 256 * 8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			module, err := attestationtest.NewModule(attestationtest.Options{Fail: tt.module})
			if err != nil {
				t.Fatal(err)
			}
			s := nsm.NewSession(module)
			defer s.Close()
			got, err := s.EnsureEntropy(t.Context(), &tt.pool)
			if !errors.Is(err, tt.err) || tt.pool.bits != tt.bits || len(tt.pool.seed)*8 != tt.bits {
				t.Errorf("%v, %d bits for %d bytes; want %v and %d bits", err, tt.pool.bits, len(tt.pool.seed), tt.err, tt.bits)
			}
			if err == nil && (got.Bits != tt.bits || got.Source != tt.pool.source) {
				t.Errorf("says %+v", got)
			}
		})
	}
}
