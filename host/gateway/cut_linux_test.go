package gateway_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestIntegrationFlowsSurviveALongCut: with the grace time that hosts have unless told
// otherwise, connections of the app outlast a cut in the middle of a transfer in
// both directions, and no byte is lost or changed. The cut is of 30 s where
// everything is to be tested, else of two.
func TestIntegrationFlowsSurviveALongCut(t *testing.T) {
	tapstacktest.RequireTAP(t)
	cut := 2 * time.Second
	if os.Getenv("CORRIDOR_REQUIRE") == "all" {
		cut = 30 * time.Second
	}
	server := echoServer(t)
	s := newPatientSite(t, gateway.Config{HostLoopback: true}, 5*time.Minute)
	link := s.runKernelLink(1)
	const flows = 3
	stop := make(chan struct{})
	var transfers sync.WaitGroup
	for i := range flows {
		conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(tapstack.HostAliasAddr(), server.Port())))
		if err != nil {
			t.Fatal(err)
		}
		transfers.Go(func() { s.transfer(conn, tapstacktest.Until{Reader: rand.NewChaCha8([32]byte{byte(i)}), Stop: stop}) })
	}
	before := link.Status()
	s.await("bytes pass", func() bool { return link.Status().Downlink.Bytes > before.Downlink.Bytes+1<<20 })
	s.line.cut()
	s.await("the cut is known", func() bool { return !link.Status().Connected })
	select {
	case <-time.After(cut):
	case <-s.ctx.Done():
	}
	s.line.mend()
	mended := time.Now()
	s.await("the link is up again", func() bool { return link.Status().Connected })
	before = link.Status()
	s.await("bytes pass again", func() bool { return link.Status().Downlink.Bytes > before.Downlink.Bytes+1<<20 })
	t.Logf("a megabyte had passed %v after a cut of %v", time.Since(mended).Round(time.Millisecond), cut)
	close(stop)
	transfers.Wait()
	if got := s.gateway.Enclaves()[0]; got.Flows.TCP.Total != flows || got.Flows.TCP.Failed > 0 || got.Stats.Streams != 2 {
		t.Errorf("flows %+v on %d links, want %d that were never made anew, on two", got.Flows.TCP, got.Stats.Streams, flows)
	}
}
