package endtoend_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"
)

// newLinkedCorridor has one port, an enclave whose link is up, and reaches the
// machine's loopback.
func newLinkedCorridor(t *testing.T, publish string, hostArgs ...string) (*corridor, *lineage) {
	t.Helper()
	requireNamespaces(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	l := c.startLineage(append([]string{"--publish", publish, "--host-loopback", "on"}, hostArgs...)...)
	c.startEnclave()
	l.await(t, "link attached", 1)
	return c, l
}

// TestIntegrationUpgradeOfTheLink: without ports on the link, what the enclave has
// open outside stays with the old process, and so does the link, until it has
// ended; clients are the new process's from the start.
func TestIntegrationUpgradeOfTheLink(t *testing.T) {
	// Without a CID: the new process has to know of an enclave whose link it lacks.
	c, l := newLinkedCorridor(t, "127.0.0.1:0=stream:1443")
	c.untilAnswered()
	c.client.CloseIdleConnections()
	g := newGate(t)
	d := c.download(g)

	l.upgrade(t)
	if got := c.mustGet("/hello"); got != "hello world\n" {
		t.Errorf("during the upgrade: %q", got)
	}
	if n := l.count("link attached"); n != 1 {
		t.Errorf("the link has been attached %d times while the old process had flows", n)
	}
	g.goOn <- struct{}{}
	if err := d.whole(); err != nil {
		t.Errorf("a download that was there: %v", err)
	}
	l.await(t, "link attached", 2)
	l.await(t, "the old process has no links any more: they come here", 1)

	d = c.download(g) // by the new process
	g.goOn <- struct{}{}
	if err := d.whole(); err != nil {
		t.Errorf("a download after the upgrade: %v", err)
	}
	c.client.CloseIdleConnections()
	l.stop(t)
}

// TestIntegrationUpgradeInTime: what an enclave has open outside is waited for no
// longer than the drain timeout, and ends then.
func TestIntegrationUpgradeInTime(t *testing.T) {
	c, l := newLinkedCorridor(t, "127.0.0.1:0=stream:1443@16", "--drain-timeout", "1s")
	d := c.download(newGate(t))
	l.upgrade(t)
	l.await(t, "link attached", 2)
	// Nobody has told the enclave's kernel: it is told when it says something.
	if _, err := d.conn.Write([]byte("x")); err != nil {
		t.Log(err) // or it has been told after all
	}
	if err := d.whole(); err == nil {
		t.Error("a download went on beyond the drain timeout")
	}
	c.untilAnswered()
	c.client.CloseIdleConnections()
	l.stop(t)
}

// TestIntegrationUpgradeOfLinkPorts: a client that is there is served to its end,
// with all that it made the enclave do; those who come wait, and nobody fails.
func TestIntegrationUpgradeOfLinkPorts(t *testing.T) {
	c, l := newLinkedCorridor(t, "127.0.0.1:0=link:443")
	c.untilAnswered()
	g := newGate(t)

	there := make(chan error, 1)
	go func() {
		// Its own client: the connection ends with the answer.
		client := c.newClient()
		client.Transport.(*http.Transport).DisableKeepAlives = true
		status, body, err := get(t.Context(), client, "https://"+fqdn+"/fetch?url="+url.QueryEscape("http://192.168.127.254:"+g.port+"/"))
		if err == nil && status != http.StatusOK {
			err = errors.New(body)
		}
		there <- err
	}()
	select {
	case <-g.halfway:
	case err := <-there:
		t.Fatal(err)
	}
	alone := c.download(g) // nobody's but the enclave's
	c.client.CloseIdleConnections()
	l.upgrade(t)

	const crowd = 16
	come := make(chan error, crowd)
	for range crowd {
		client := c.newClient()
		go func() {
			_, _, err := get(t.Context(), client, "https://"+fqdn+"/hello")
			client.CloseIdleConnections()
			come <- err
		}()
	}
	if n := l.count("link attached"); n != 1 || len(come) > 0 {
		t.Errorf("the link has been attached %d times, and %d who came are served, while a client was there", n, len(come))
	}
	g.goOn <- struct{}{}
	g.goOn <- struct{}{}
	if err := <-there; err != nil {
		t.Errorf("a client that was there: %v", err)
	}
	for range crowd {
		if err := <-come; err != nil {
			t.Errorf("a client that came meanwhile: %v", err)
		}
	}
	if n := l.count("link attached"); n != 2 {
		t.Errorf("the link has been attached %d times", n)
	}
	// In time or not: with such ports nobody waits for it.
	alone.conn.Close()
	<-alone.done
	l.stop(t)
}

// TestIntegrationUpgradeOfAnUpgrade: a second upgrade, while the first process has
// still the link, waits for it as the first one does.
func TestIntegrationUpgradeOfAnUpgrade(t *testing.T) {
	c, l := newLinkedCorridor(t, "127.0.0.1:0=stream:1443")
	c.untilAnswered()
	c.client.CloseIdleConnections()
	g := newGate(t)
	d := c.download(g)
	for range 2 {
		l.upgrade(t)
		if got := c.mustGet("/hello"); got != "hello world\n" {
			t.Errorf("during the upgrade: %q", got)
		}
		c.client.CloseIdleConnections()
	}
	if n := l.count("link attached"); n != 1 {
		t.Errorf("the link has been attached %d times", n)
	}
	g.goOn <- struct{}{}
	if err := d.whole(); err != nil {
		t.Errorf("a download that was there: %v", err)
	}
	l.await(t, "link attached", 2)
	if got := c.mustGet("/hello"); got != "hello world\n" {
		t.Errorf("afterwards: %q", got)
	}
	c.client.CloseIdleConnections()
	l.stop(t)
}
