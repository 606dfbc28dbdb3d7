package gateway

import (
	"net"
	"testing"
	"time"
)

// pair returns a flow of pipes; its far ends are closed with the test.
func pair(t *testing.T, idle time.Duration) (f *udpFlow, enclave, outside net.Conn) {
	t.Helper()
	inside, enclave := net.Pipe()
	socket, outside := net.Pipe()
	t.Cleanup(func() {
		enclave.Close()
		outside.Close()
	})
	return &udpFlow{inside: inside, outside: socket, idle: idle}, enclave, outside
}

func TestSilentFlowsExpire(t *testing.T) {
	t.Parallel()
	u := newUDPFlows(nil)
	query, enclave, _ := pair(t, dnsIdle)
	other, _, _ := pair(t, udpIdle)
	u.start(query)
	u.start(other)
	began := time.Now()
	u.expire(began.Add(dnsIdle))
	if got := u.stats().Open; got != 2 {
		t.Errorf("%d flows before any idle time has passed, want 2", got)
	}
	u.expire(began.Add(dnsIdle + time.Minute))
	if _, err := enclave.Read(make([]byte, 1)); err == nil {
		t.Error("a silent DNS flow lives on")
	}
	u.close() // waits for both
	if got := u.stats(); got.Open != 0 || got.Total != 2 {
		t.Errorf("stats = %+v, want none open of 2", got)
	}
}

func TestTooManyFlowsEvictTheMostSilent(t *testing.T) {
	t.Parallel()
	u := newUDPFlows(nil)
	defer u.close()
	first, enclave, outside := pair(t, udpIdle)
	second, _, _ := pair(t, udpIdle)
	u.start(first)
	u.start(second)
	for range maxUDPFlows - 2 {
		f, _, _ := pair(t, udpIdle)
		u.start(f)
	}
	// The first is used again: now the second is the most silent.
	if _, err := enclave.Write([]byte("again")); err != nil {
		t.Fatal(err)
	}
	if _, err := outside.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	newest, _, _ := pair(t, udpIdle)
	u.start(newest)
	if _, err := second.outside.Write(nil); err == nil {
		t.Error("the most silent flow lives on")
	}
	if _, err := enclave.Write([]byte("and again")); err != nil {
		t.Errorf("a flow in use was evicted: %v", err)
	}
	if got := u.stats().Evicted; got != 1 {
		t.Errorf("%d flows evicted, want 1", got)
	}
}

func TestNoFlowStartsAfterClose(t *testing.T) {
	t.Parallel()
	u := newUDPFlows(nil)
	u.close()
	f, enclave, _ := pair(t, udpIdle)
	u.start(f)
	if _, err := enclave.Read(make([]byte, 1)); err == nil {
		t.Error("a flow was started after close")
	}
}
