package openloop

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Process is how arrivals are spread over time. All of them have the same rate
// in the long run.
type Process string

// The processes.
const (
	// Uniform arrivals have the same distance from each other.
	Uniform Process = "uniform"
	// Poisson arrivals know nothing of each other, as the requests of many
	// independent users: the distances are exponentially distributed.
	Poisson Process = "poisson"
	// Burst arrivals come together in groups, and the groups uniformly.
	Burst Process = "burst"
)

// ParseProcess returns the process of that name.
func ParseProcess(name string) (Process, error) {
	switch p := Process(name); p {
	case Uniform, Poisson, Burst:
		return p, nil
	}
	return "", fmt.Errorf("none of %s, %s, %s", Uniform, Poisson, Burst)
}

// maxRate is far above what one process can send, and keeps the arithmetic exact.
const maxRate = 10e6

// Arrivals say when requests start. The same Arrivals give the same times.
type Arrivals struct {
	Process Process
	Rate    float64 // requests a second
	Group   int     // requests that arrive together, for Burst alone
	Seed    uint64  // for Poisson alone
}

func (a Arrivals) check() error {
	var errs []error
	if _, err := ParseProcess(string(a.Process)); err != nil {
		errs = append(errs, fmt.Errorf("openloop: arrivals %q: %w", a.Process, err))
	}
	if !(a.Rate > 0) || a.Rate > maxRate { // NaN is not above zero either
		errs = append(errs, fmt.Errorf("openloop: %g requests a second are outside of 0 to %g", a.Rate, float64(maxRate)))
	}
	if a.Process == Burst && a.Group < 2 {
		errs = append(errs, fmt.Errorf("openloop: a burst of %d requests is none", a.Group))
	}
	return errors.Join(errs...)
}

// schedule returns a function that yields the time of each arrival in turn, as
// the distance from the start of the load. Times never fall.
func (a Arrivals) schedule() func() time.Duration {
	apart := float64(time.Second) / a.Rate
	var n, at float64
	switch a.Process {
	case Poisson:
		random := rand.New(rand.NewPCG(a.Seed, 0))
		return func() time.Duration {
			at += random.ExpFloat64() * apart
			return time.Duration(at)
		}
	case Burst:
		left := a.Group
		return func() time.Duration {
			if left == 0 {
				left = a.Group
				n += float64(a.Group)
			}
			left--
			return time.Duration(n * apart)
		}
	}
	return func() time.Duration {
		n++ // multiplied, not added up, so that no error adds up either
		return time.Duration((n - 1) * apart)
	}
}
