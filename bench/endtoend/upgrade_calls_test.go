package endtoend_test

import (
	"syscall"
	"testing"
)

// newCallingCorridor has one port on the link, and an enclave that calls.
func newCallingCorridor(t *testing.T, hostArgs ...string) (*corridor, *lineage) {
	t.Helper()
	requireNamespaces(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	l := c.startLineage(append([]string{"--publish", "127.0.0.1:0=link:443", "--host-loopback", "on"}, hostArgs...)...)
	c.startEnclave("--socks", "127.0.0.1:1080", "--egress-allow", hostName+":1-65535")
	l.await(t, "link attached", 1)
	waitMessage(t, c.enclave, "running")
	c.untilAnswered()
	c.client.CloseIdleConnections()
	return c, l
}

// TestIntegrationUpgradeOfCalls: the link moves at once, because there are clients
// who wait for it; a call does not need it and is finished by the old process.
func TestIntegrationUpgradeOfCalls(t *testing.T) {
	c, l := newCallingCorridor(t)
	g := newGate(t)
	d := c.downloadByCall(g)
	l.upgrade(t)
	l.await(t, "link attached", 2)
	c.untilAnswered()
	c.client.CloseIdleConnections()
	late := c.downloadByCall(g) // by the new process
	g.goOn <- struct{}{}
	g.goOn <- struct{}{}
	for _, d := range []*download{d, late} {
		if err := d.whole(); err != nil {
			t.Error(err)
		}
	}
	l.stop(t)
}

// TestIntegrationStopWithCalls: one that is there is finished after SIGTERM too, but
// not for ever.
func TestIntegrationStopWithCalls(t *testing.T) {
	for _, tt := range []struct {
		name, timeout string
		whole         bool
	}{
		{"out of time", "500ms", false},
		{"in time", "60s", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, l := newCallingCorridor(t, "--drain-timeout", tt.timeout)
			g := newGate(t)
			d := c.downloadByCall(g)
			if err := syscall.Kill(l.current, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitMessage(t, l.Process, "link closed") // which is not waited for
			if tt.whole {
				g.goOn <- struct{}{}
			}
			if err := d.whole(); (err == nil) != tt.whole {
				t.Errorf("the download: %v", err)
			}
			select {
			case <-l.Done():
			case <-patient(t).Done():
				t.Error("the host has not ended")
			}
		})
	}
}
