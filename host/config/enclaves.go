package config

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// An Enclaves says how enclaves share clients.
type Enclaves struct {
	Drained   []vsockconn.CID
	Check     HealthCheck
	Interval  time.Duration
	Rise      int
	Fall      int
	SlowStart time.Duration // 0: none
}

// A HealthCheck says how enclaves are asked whether they take clients.
type HealthCheck struct {
	Port   uint32 // of VSOCK, where HTTP is spoken behind a stream's header; 0: they are not asked
	Secure bool   // within TLS
}

// maxInRow bounds how many checks must agree.
const maxInRow = 100

// declareEnclaves declares the settings, and returns what gives their values once
// they are loaded.
func declareEnclaves(s *settings.Set) func() Enclaves {
	drained := settings.List(s, "drain", "enclave that gets no new clients, a `CID`", route.ParseCID)
	check := settings.Var(s, "health-check", "https:"+strconv.Itoa(stream.Port), "how enclaves that share clients are asked for their health: `https:PORT`, http:PORT of VSOCK, or off", parseHealthCheck)
	interval := settings.Var(s, "health-interval", "2s", "time between two checks of an enclave, a `duration`", parseInterval)
	rise := settings.Var(s, "health-rise", "2", "`number` of checks in a row that bring an enclave up", atMost(1, maxInRow))
	fall := settings.Var(s, "health-fall", "3", "`number` of failed checks in a row that take it down", atMost(1, maxInRow))
	slow := settings.Var(s, "slow-start", "10s", "how long an enclave that came up gets fewer clients, a `duration` or off", parseSlowStart)
	return func() Enclaves {
		return Enclaves{Drained: *drained, Check: *check, Interval: *interval, Rise: *rise, Fall: *fall, SlowStart: *slow}
	}
}

func parseHealthCheck(v string) (HealthCheck, error) {
	if v == "off" {
		return HealthCheck{}, nil
	}
	kind, port, _ := strings.Cut(v, ":")
	if kind != "http" && kind != "https" {
		return HealthCheck{}, errors.New("want https:PORT, http:PORT or off")
	}
	n, err := parsePort(port)
	return HealthCheck{Port: n, Secure: kind == "https"}, err
}

// parseInterval takes no less than what an enclave answers in when it is busy.
func parseInterval(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < 100*time.Millisecond || d > time.Hour {
		return 0, errors.New(`want a duration from 100ms to 1h, such as "2s"`)
	}
	return d, nil
}

func parseSlowStart(v string) (time.Duration, error) {
	if v == "off" {
		return 0, nil
	}
	return parseDuration(v)
}

// ports puts the routes to their ports, and rejects what fits together with
// nothing.
func ports(s *settings.Set, specs []publish.Spec, routes []route.Route) []publish.Port {
	all := make([]publish.Port, len(specs))
	byLocal := map[string]*publish.Port{}
	for i, spec := range specs {
		all[i].Spec = spec
		byLocal[spec.Local] = &all[i]
	}
	for _, r := range routes {
		port := byLocal[r.Local]
		if port == nil {
			s.Reject("route", "%s: no port %s is published", r, r.Local)
			continue
		}
		port.Routes = append(port.Routes, r)
	}
	for _, port := range all {
		if _, err := route.NewTable(port.Routes); err != nil {
			s.Reject("route", "%v", err)
		}
	}
	return all
}

// Shared returns the enclaves that share clients with another one: those whose
// health decides where a client goes.
func Shared(ports []publish.Port) []vsockconn.CID {
	var all []vsockconn.CID
	seen := map[vsockconn.CID]bool{}
	add := func(cids []vsockconn.CID) {
		if len(cids) < 2 {
			return
		}
		for _, cid := range cids {
			if !seen[cid] {
				seen[cid] = true
				all = append(all, cid)
			}
		}
	}
	for _, p := range ports {
		add(p.Enclaves)
		for _, r := range p.Routes {
			add(r.Enclaves)
		}
	}
	return all
}
