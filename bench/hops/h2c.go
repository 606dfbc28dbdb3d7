package hops

import (
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/servers"
)

// pageBytes is an ordinary page with what belongs to it.
const pageBytes = 220_000

// h2cHop is proxyHop with HTTP/2 on both sides, without TLS. nginx speaks HTTP/1.1 to
// its apps and so does other work; it is in tlsHop.
func h2cHop() Hop {
	return Hop{
		Name: "h2c", About: "the same with HTTP/2 from the client and to the app, no TLS", Baseline: "tuned",
		Loads: []report.Load{http2Load(16), http2PageLoad(10, pageBytes)},
		Variants: []Variant{
			{"direct", false, direct},
			{"corridor", true, func(s *Setup) error { return s.proxyH2C(servers.Corridor) }},
			{"tuned", false, func(s *Setup) error { return s.proxyH2C(servers.Tuned) }},
			{"haproxy", false, func(s *Setup) error {
				return s.configured("haproxy", "haproxy", haproxyH2CConfig, "", "-db", "-f")
			}},
		},
	}
}

// proxyH2C is proxy, with HTTP/2 to the app. Our servers understand it from clients
// always.
func (s *Setup) proxyH2C(kind servers.Kind) error {
	app, err := s.app(false)
	if err != nil {
		return err
	}
	return s.serve(string(kind), kind, servers.H2C+app, "")
}

// haproxyH2CConfig needs no word for its clients: HAProxy knows HTTP/2 by its preface.
func haproxyH2CConfig(dir, listen, app, cert string) string {
	return haproxyConfig(dir, listen, app+" proto h2", cert)
}
