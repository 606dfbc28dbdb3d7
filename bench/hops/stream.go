package hops

import (
	"fmt"
	"syscall"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/report"
)

// VSOCK ports of streams, which lead past the front.
const (
	appStream  = "7000"
	bulkStream = "7001"
	// frontStream is the one that the front takes by itself.
	frontStream = "1443"
)

const (
	// idleConnections are held open to see what one costs, or as many as files let.
	idleConnections = 10_000
	// filesBeside are what a process has open beside the connections that it carries.
	filesBeside = 500
)

// carried is how many connections a process can carry from one side to the other
// that may have so many files open.
func carried(files uint64) int {
	if files < filesBeside+2 {
		return 1 // which will fail, and say so
	}
	return int(min(idleConnections, (files-filesBeside)/2))
}

// files returns how many a process that is started from here may have open.
func files() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return limit.Max
}

// streamHop measures the road by streams alone: the published port, a stream for
// each client with a PROXY protocol header in front, and the enclave's relay to the
// app. HAProxy does the same in host's place, in front of the same enclave.
func streamHop() Hop {
	loads := append(requestLoads(1, 16, 128), newConnectionsLoad(16), bulkLoad(1, downlink), bulkLoad(1, uplink), bulkLoad(4, downlink), checkedLoad())
	return Hop{
		Name: "stream", About: "a client outside, an app inside: a stream for each client", Baseline: "haproxy",
		Loads: loads,
		Variants: []Variant{
			{"direct", false, func(s *Setup) error { return s.directWithBulk() }},
			{"corridor", true, (*Setup).streams},
			{"haproxy", false, (*Setup).haproxyStreams},
			{"link", true, func(s *Setup) error { return s.corridor(appPort) }},
			{"relay", false, func(s *Setup) error { return s.relays() }},
		},
	}
}

// idleHop measures what a published connection costs on which nothing moves. Each
// sample is of processes that were just started: what they got back from earlier
// connections would hide the cost.
func idleHop() Hop {
	n := carried(files())
	return Hop{
		Name: "idle", About: "memory of a published connection that is silent after one request", Baseline: "haproxy", Fresh: true,
		Loads: []report.Load{{
			Name: fmt.Sprintf("%d connections", n), Generator: Holder, Kind: report.Idle, Connections: n, BodyBytes: 12,
		}},
		Variants: []Variant{
			{"corridor", true, (*Setup).streams},
			{"front", true, func(s *Setup) error { return s.streamsToFront("--tls", "off") }},
			{"haproxy", false, (*Setup).haproxyStreams},
			{"link", true, func(s *Setup) error { return s.corridor(appPort) }},
		},
	}
}

// streams starts both ends of ours, with no link: an enclave that relays two ports,
// and host in front of it.
func (s *Setup) streams() error {
	if err := s.streamEnclave(); err != nil {
		return err
	}
	return s.streamHost("http", appStream, bulkStream)
}

// streamsToFront ends the streams at the enclave's front, with these arguments of
// its own.
func (s *Setup) streamsToFront(args ...string) error {
	if err := s.streamEnclave(args...); err != nil {
		return err
	}
	return s.streamHost(frontScheme(args), frontStream, bulkStream)
}

// haproxyStreams has HAProxy in host's place.
func (s *Setup) haproxyStreams() error {
	if err := s.streamEnclave(); err != nil {
		return err
	}
	return s.streamHAProxy("http", appStream, bulkStream)
}

// haproxyToFront is the same with the front at the end.
func (s *Setup) haproxyToFront(args ...string) error {
	if err := s.streamEnclave(args...); err != nil {
		return err
	}
	return s.streamHAProxy(frontScheme(args), frontStream, bulkStream)
}

func frontScheme(args []string) string {
	if len(args) > 0 && args[0] == "--tls" {
		return "http"
	}
	return "https"
}

// streamEnclave starts the enclave of the stream road: two ports that it relays, and
// the front, with these arguments or without TLS.
func (s *Setup) streamEnclave(front ...string) error {
	path, err := s.tools.Own(binaries.EnclaveSim)
	if err != nil {
		return err
	}
	if err := s.inside(); err != nil {
		return err
	}
	if len(front) == 0 {
		front = []string{"--tls", "off"}
	}
	_, err = s.start(program{name: "enclave-sim", role: report.Subject, path: path, inside: true, metrics: s.file("enclave-metrics.sock"), args: append([]string{
		"--metrics", s.file("enclave-metrics.sock"), "--link", "off", "--front", "vsock:" + frontStream, "--app", "http://127.0.0.1:" + appPort,
		"--stream", appStream + "=127.0.0.1:" + appPort, "--stream", bulkStream + "=127.0.0.1:" + bulkPort,
	}, append(s.parent(), front...)...)})
	return err
}

// streamHost publishes two of the enclave's stream ports by ours.
func (s *Setup) streamHost(scheme string, ports ...string) error {
	path, err := s.tools.Own(binaries.Host)
	if err != nil {
		return err
	}
	local, err := s.publishedAt(scheme)
	if err != nil {
		return err
	}
	args := []string{"--vsock", s.vsock(), "--control", "unix:" + s.file("control.sock")}
	for i, port := range ports {
		args = append(args, "--publish", local[i]+"=stream:"+port+"@"+s.enclaveCID())
	}
	_, err = s.start(program{name: "host", role: report.Subject, path: path, metrics: s.file("control.sock"), args: args})
	return err
}

// streamHAProxy publishes them by HAProxy, as it comes.
func (s *Setup) streamHAProxy(scheme string, ports ...string) error {
	if s.tools.KernelVSOCK {
		return &Missing{What: "unix sockets for VSOCK", Remedy: "bench stream, outside of the test machine"}
	}
	path, err := s.tools.Installed("haproxy", "haproxy")
	if err != nil {
		return err
	}
	local, err := s.publishedAt(scheme)
	if err != nil {
		return err
	}
	// By itself it takes no more connections than files may be open without asking.
	config := fmt.Sprintf("global\n  maxconn %d\n", carried(files())) +
		"defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
	for i, port := range ports {
		config += fmt.Sprintf("listen p%s\n  bind %s\n  server enclave unix@%s send-proxy-v2\n", port, local[i], s.file("16_"+port+".sock"))
	}
	file, err := s.write("haproxy.conf", config)
	if err != nil {
		return err
	}
	_, err = s.start(program{name: "haproxy", role: report.Subject, path: path, args: []string{"-db", "-f", file}})
	return err
}

// publishedAt chooses where requests and bulk are taken outside.
func (s *Setup) publishedAt(scheme string) (local [2]string, err error) {
	for i := range local {
		if local[i], err = freeAddress(); err != nil {
			return local, err
		}
	}
	s.running.URL, s.running.Bulk = scheme+"://"+local[0]+smallAnswer, local[1]
	return local, nil
}
