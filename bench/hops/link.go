package hops

import (
	"bytes"
	"context"
	"net"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/tap"
)

// Ports inside of the enclave's namespace.
const (
	appPort   = "8081"
	bulkPort  = "5201"
	frontPort = "443"
	tapName   = "tap0"

	// nitroWrite is the limit of one write on AF_VSOCK.
	nitroWrite = "31744"
)

// linkHop measures the ways from a client outside to an app inside, without TLS
// and without a proxy. VSOCK is replaced by unix sockets for all of them.
func linkHop() Hop {
	loads := append(requestLoads(1, 16, 128), bulkLoad(1, downlink), bulkLoad(1, uplink), bulkLoad(4, downlink), checkedLoad(),
		besideBulkLoad(downlink), besideBulkLoad(uplink), manyConnectionsLoad(64))
	return Hop{
		Name: "link", About: "a client outside, an app inside: frames over a stream in between", Baseline: "stock",
		Loads: loads,
		Variants: []Variant{
			{"direct", false, func(s *Setup) error { return s.directWithBulk() }},
			{"corridor", true, func(s *Setup) error { return s.corridor(appPort) }},
			{"corridor-capped", true, func(s *Setup) error {
				s.settings = []string{"--vsock-write-max", nitroWrite}
				return s.corridor(appPort)
			}},
			{"enclave-gvproxy", true, func(s *Setup) error { return s.enclaveWithGvproxy() }},
			{"host-gvforwarder", true, func(s *Setup) error { return s.hostWithGvforwarder() }},
			{"stock", false, func(s *Setup) error { return s.stock(appPort) }},
			{"relay", false, func(s *Setup) error { return s.relays() }},
			{"pasta", false, func(s *Setup) error { return s.pasta() }},
		},
	}
}

// wayHop is the whole way: published port, link or stream, TLS and proxy inside, app.
// HAProxy stands in host's place on the stream road. Stock is
// what the model does: gvproxy and gvforwarder, and inside a TLS server with the
// standard library's proxy as it comes.
func wayHop() Hop {
	return Hop{
		Name: "way", About: "the whole way: published port, link or stream, TLS, proxy, app", Baseline: "stock",
		Loads: append(requestLoads(1, 16, 128), openLoad(1000, "")),
		Variants: []Variant{
			{"corridor", true, func(s *Setup) error { return s.corridor(frontPort) }},
			{"stream", true, func(s *Setup) error { return s.streamsToFront("--fqdn", name) }},
			{"haproxy", false, func(s *Setup) error { return s.haproxyToFront("--fqdn", name) }},
			{"stock", false, func(s *Setup) error { return s.stockWay() }},
		},
	}
}

// directWithBulk is the app, and an iperf3 server, with nothing in front.
func (s *Setup) directWithBulk() error {
	if err := direct(s); err != nil {
		return err
	}
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	s.running.Bulk = addr
	return s.iperf3(port, report.Subject, false)
}

// iperf3 starts a server for bulk.
func (s *Setup) iperf3(port string, role report.Role, inside bool) error {
	path, err := s.tools.Installed("iperf3", "iperf3")
	if err != nil {
		s.running.Bulk = "" // loads that need it are skipped, and named
		return nil
	}
	p, err := s.start(program{
		name: "iperf3", role: role, path: path, inside: inside,
		args: []string{"--server", "--port", port, "--forceflush"},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	_, err = p.Wait(ctx, func(r process.Record) bool { return bytes.Contains([]byte(r.Line), []byte("Server listening")) })
	return err
}

// inside makes the enclave's namespace, with an app and an iperf3 server in it.
func (s *Setup) inside() (err error) {
	if s.running.namespace, err = process.NewNamespace(); err != nil {
		return &Missing{What: "a network namespace of its own: " + err.Error(), Remedy: "run as root"}
	}
	if err := s.running.namespace.Do(tap.LoopbackUp); err != nil {
		return err
	}
	if _, err := s.app(true); err != nil {
		return err
	}
	return s.iperf3(bulkPort, report.App, true)
}

// corridor starts both ends of ours around the namespace; requests go to the port
// inside.
func (s *Setup) corridor(port string) error {
	if err := s.inside(); err != nil {
		return err
	}
	if err := s.host(port); err != nil {
		return err
	}
	return s.enclave()
}

// host starts our host, which publishes the app's port and that of bulk by the link.
func (s *Setup) host(port string) error {
	hostPath, _, err := s.bothEnds()
	if err != nil {
		return err
	}
	local, err := s.publishedAt(scheme(port))
	if err != nil {
		return err
	}
	_, err = s.start(program{name: "host", role: report.Subject, path: hostPath, metrics: s.file("control.sock"), args: []string{
		"--vsock", s.vsock(), "--control", "unix:" + s.file("control.sock"),
		"--publish", local[0] + "=link:" + port, "--publish", local[1] + "=link:" + bulkPort,
	}})
	return err
}

// enclave starts our enclave with a link, inside.
func (s *Setup) enclave() error {
	_, enclavePath, err := s.bothEnds()
	if err != nil {
		return err
	}
	_, err = s.start(program{name: "enclave-sim", role: report.Subject, path: enclavePath, inside: true, metrics: s.file("enclave-metrics.sock"), args: append([]string{
		"--metrics", s.file("enclave-metrics.sock"), "--link", "on", "--fqdn", name,
		"--app", "http://127.0.0.1:" + appPort, "--front", "tcp::" + frontPort,
	}, s.parent()...)})
	return err // it answers once both ends have found each other
}

func scheme(port string) string {
	if port == frontPort {
		return "https"
	}
	return "http"
}
