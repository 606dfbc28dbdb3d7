package front_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/enclave/front"
)

// TestDrain: a request under way when the stop begins gets its whole answer, and
// nobody new is let in.
func TestDrain(t *testing.T) {
	t.Parallel()
	app := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Second)
		_, _ = io.WriteString(w, "whole answer")
	}
	synctest.Test(t, func(t *testing.T) {
		dial, stop := overPipes(t, app, time.Minute)
		c := dial()
		say(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		stopped := make(chan error, 1)
		start := time.Now()
		go func() { stopped <- stop() }()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "whole answer" || !resp.Close {
			t.Errorf("got %q, %v, close %v; want the whole answer and a closing connection", body, err, resp.Close)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(start); took < 20*time.Second || took > 21*time.Second {
			t.Errorf("draining took %s; want what the request took", took)
		}
	})
}

// TestDrainHasAnEnd: what is not done in time is cut, said, and not left behind.
func TestDrainHasAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cancelled := make(chan struct{})
		app := func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			close(cancelled)
		}
		dial, stop := overPipes(t, app, 5*time.Second)
		say(t, dial(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		start := time.Now()
		err := stop()
		if err == nil || !strings.Contains(err.Error(), "1 requests were cut off after 5s") {
			t.Errorf("Run = %v; want one request cut", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("draining took %s; want 5s", took)
		}
		<-cancelled
	})
}

// TestDrainCutsUpgrades: an upgraded connection has no end of its own, so it is
// ended when the requests are.
func TestDrainCutsUpgrades(t *testing.T) {
	t.Parallel()
	app := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "test")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		<-r.Context().Done()
	}
	synctest.Test(t, func(t *testing.T) {
		dial, stop := overPipes(t, app, time.Minute)
		c := dial()
		say(t, c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v; want 101", resp, err)
		}
		start := time.Now()
		if err := stop(); err != nil || time.Since(start) > time.Second {
			t.Errorf("Run = %v after %s; want nil at once", err, time.Since(start))
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the upgraded connection is still open")
		}
	})
}

// TestDrainTellsLatecomers: an HTTP/2 connection whose handshake ends when the drain
// has begun is told to go like the others, and not waited for.
func TestDrainTellsLatecomers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		stop := run(t, front.Config{Listeners: []net.Listener{l}, Certificates: newCertificates(t), DrainTimeout: time.Minute})
		raw, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		stopped := make(chan error, 1)
		start := time.Now()
		go func() { stopped <- stop() }()
		synctest.Wait()

		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // no document in this test
		const settings, goAway = 4, 7                                                           // types of frames (RFC 9113 6.5, 6.8)
		say(t, c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+string([]byte{0, 0, 0, settings, 0, 0, 0, 0, 0}))
		for head := make([]byte, 9); head[3] != goAway; {
			if _, err := io.ReadFull(c, head); err != nil {
				t.Fatalf("the connection ended without GOAWAY: %v", err)
			}
			if _, err := io.CopyN(io.Discard, c, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		if err := <-stopped; err != nil || time.Since(start) > 5*time.Second {
			t.Errorf("Run = %v after %s; want nil within seconds", err, time.Since(start))
		}
	})
}

func TestListenerFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	f, err := front.New(withDefaults(front.Config{Listeners: []net.Listener{l}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "front: serving "+l.Addr().String()) {
		t.Fatalf("Run on a closed listener = %v", err)
	}
}
