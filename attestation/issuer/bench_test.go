package issuer_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/issuer"
)

// BenchmarkFresh measures documents with fresh nonces, as many clients get them
// at a time, from a module that takes 1.1 ms for each. It reports documents a
// second and the 99th percentile of the wait.
func BenchmarkFresh(b *testing.B) {
	s := start(b, attestationtest.Options{Latency: 1100 * time.Microsecond}, issuer.Config{})
	const clients = 128
	var mu sync.Mutex
	var waits []time.Duration
	b.SetParallelism(clients / 2)
	begun := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		var mine []time.Duration
		for n := 0; pb.Next(); n++ {
			asked := time.Now()
			if _, err := s.Fresh(b.Context(), nonceOf(n), nil); err != nil {
				b.Error(err)
				return
			}
			mine = append(mine, time.Since(asked))
		}
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, mine...)
	})
	b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "documents/s")
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
}
