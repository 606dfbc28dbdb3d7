package hops

import (
	"context"
	"net"
	"strconv"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// transportPort is the VSOCK port of an app that listens on nothing else.
const transportPort = 7100

// transportHop measures what carries everything else: requests on bare connections
// to the app, without anything of ours between. VSOCK is there where it is the
// kernel's own, as in the test machine.
func transportHop() Hop {
	loads := withGenerator("openloop", requestLoads(1, 16))
	for i := range loads {
		loads[i].Name = loads[i].Name[:len(loads[i].Name)-len(" by openloop")]
	}
	return Hop{
		Name: "transport", About: "the app alone, on bare connections", Baseline: "tcp", Loads: loads,
		Variants: []Variant{{"tcp", false, direct}, {"unix", false, (*Setup).overUnix}, {"vsock", false, (*Setup).overVSOCK}},
	}
}

func (s *Setup) overUnix() error {
	socket := s.file("app.sock")
	return s.overTransport("unix:"+socket, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
}

func (s *Setup) overVSOCK() error {
	if !s.tools.KernelVSOCK {
		return &Missing{What: "a machine whose VSOCK may be used", Remedy: "bench vm"}
	}
	vsock := vsockconn.Kernel(vsockconn.KernelOptions{})
	return s.overTransport("vsock:"+strconv.Itoa(transportPort), func(ctx context.Context) (net.Conn, error) {
		return vsock.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDLocal, Port: transportPort})
	})
}

// overTransport starts an app that is reached by dial alone.
func (s *Setup) overTransport(listen string, dial func(context.Context) (net.Conn, error)) error {
	_, err := s.bench("app", report.Subject, false, "", "app", "--listen", listen)
	s.running.URL, s.running.Dial = "http://app"+smallAnswer, dial
	return err
}

// vsock is what both ends reach each other by: sockets of the kernel where the machine
// is ours, else unix sockets in the variant's own folder.
func (s *Setup) vsock() string {
	if s.tools.KernelVSOCK {
		return "kernel"
	}
	return "dir:" + s.running.dir
}

// enclaveCID is where host finds the enclave.
func (s *Setup) enclaveCID() string {
	if s.tools.KernelVSOCK {
		return strconv.Itoa(int(vsockconn.CIDLocal))
	}
	return "16"
}

// parent are the enclave's arguments that say where host is.
func (s *Setup) parent() []string {
	if s.tools.KernelVSOCK {
		return []string{"--vsock", s.vsock(), "--parent-cid", strconv.Itoa(int(vsockconn.CIDLocal))}
	}
	return []string{"--vsock", s.vsock()}
}
