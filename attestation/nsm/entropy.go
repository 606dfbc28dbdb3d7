package nsm

import (
	"context"
	"fmt"
)

const (
	// moduleRNG is what the kernel's driver calls the module's random numbers.
	moduleRNG = "nsm-hwrng"
	// seedSize is how many bytes are asked for at least: twice what the kernel's
	// generator takes up (256 bits).
	seedSize = 64
)

// A Pool is where the programs of a machine get their random numbers from.
type Pool interface {
	// Source names the hardware generator that feeds the pool.
	Source() (string, error)
	// Credit mixes seed into the pool, and counts that many bits of entropy for it.
	Credit(seed []byte, bits int) error
}

// Entropy is what EnsureEntropy has found or done.
type Entropy struct {
	Source string // of the pool; empty if it is not known
	Bits   int    // credited; 0 if the module feeds the pool already
}

// EnsureEntropy sees to it that keys made in this enclave come from the module's
// random numbers: the kernel feeds them to the pool by itself where its driver is
// the chosen generator. Otherwise the pool is seeded here, once. Call it before
// the first key is made. An error means that nothing better than the machine's
// clock may stand behind those keys.
func (s *Session) EnsureEntropy(ctx context.Context, p Pool) (Entropy, error) {
	source, err := p.Source()
	if err == nil && source == moduleRNG {
		return Entropy{Source: source}, nil
	}
	// Not to know the source is no mistake: it is seeded all the same.
	var seed []byte
	for len(seed) < seedSize {
		random, err := s.GetRandom(ctx)
		if err != nil {
			return Entropy{}, err
		}
		seed = append(seed, random...)
	}
	// The module's bytes are full of entropy: eight bits each, and bits are what
	// the kernel counts.
	bits := 8 * len(seed)
	if err := p.Credit(seed, bits); err != nil {
		return Entropy{}, fmt.Errorf("nsm: seeding the pool: %w", err)
	}
	return Entropy{Source: source, Bits: bits}, nil
}

// KernelPool is the kernel's. Crediting it needs CAP_SYS_ADMIN.
func KernelPool() Pool { return kernelPool("/sys/class/misc/hw_random/rng_current", "/dev/random") }
