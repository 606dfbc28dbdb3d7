package config

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/streams"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// A Published says how the connections of published ports are treated.
type Published struct {
	IdleTimeout time.Duration // 0: never
	Ready       int           // streams kept connected ahead of time
	Limits      publish.Limits
}

const (
	// maxReady bounds what an enclave holds without a client.
	maxReady = 64
	// maxLimit is more than the kernel has descriptors for (fs.nr_open).
	maxLimit = 1 << 20
)

// declarePublished declares the settings, and returns what gives their values
// once they are loaded.
func declarePublished(s *settings.Set) func() Published {
	limit := func(name string, def int, usage string) *int {
		return settings.Var(s, name, strconv.Itoa(def), usage, atMost(1, maxLimit))
	}
	ready := settings.Var(s, "stream-ready", strconv.Itoa(streams.DefaultReady), "`number` of streams kept connected ahead of time for each port of an enclave; 0 is none", atMost(0, maxReady))
	idle := settings.Var(s, "idle-timeout", "1h", "how long a published connection may be silent, a `duration` or off", parseIdle)
	total := limit("max-connections", publish.DefaultTotal, "`number` of published connections")
	port := limit("max-connections-per-port", publish.DefaultPerPort, "`number` of connections of one published port")
	client := limit("max-connections-per-client", publish.DefaultPerClient, "`number` of connections of one client: an IPv4 address or an IPv6 /64")
	waiting := limit("max-waiting", publish.DefaultDials, "`number` of clients who wait for an enclave to answer")
	return func() Published {
		return Published{
			IdleTimeout: *idle, Ready: *ready,
			Limits: publish.Limits{Total: *total, PerPort: *port, PerClient: *client, Dials: *waiting},
		}
	}
}

// atMost parses a number within limits.
func atMost(least, most int) func(string) (int, error) {
	return func(v string) (int, error) {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want %d to %d", least, most)
		}
		return n, nil
	}
}

// parseIdle takes no less than a second: it ends what is merely slow.
func parseIdle(v string) (time.Duration, error) {
	if v == "off" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second {
		return 0, errors.New(`want a duration of at least 1s, such as "10m", or off`)
	}
	return d, nil
}
