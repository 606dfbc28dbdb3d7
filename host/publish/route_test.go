package publish_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// publishPorts changes what is published, and returns the address of the first.
func (s *stand) publishPorts(t *testing.T, ports ...publish.Port) string {
	t.Helper()
	change, err := s.Prepare(ports)
	if err != nil {
		t.Fatal(err)
	}
	if err := change.Commit(); err != nil {
		t.Fatal(err)
	}
	return change.Ports()[0].Local
}

// say connects a client that says something.
func say(t *testing.T, at, text string) *net.TCPConn {
	t.Helper()
	client := connect(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: portOf(t, at)})
	if _, err := io.WriteString(client, text); err != nil {
		t.Fatal(err)
	}
	return client
}

func portOf(t *testing.T, at string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}

func request(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

func routed(t *testing.T, at string, spec publish.Spec, routes ...string) publish.Port {
	t.Helper()
	spec.Local = at
	port := publish.Port{Spec: spec}
	for _, text := range routes {
		r, err := route.Parse(at + "/" + text)
		if err != nil {
			t.Fatal(err)
		}
		port.Routes = append(port.Routes, r)
	}
	return port
}

func TestClientsAreRoutedByName(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{Hold: patience})
	at := s.publishPorts(t, routed(t, "127.0.0.1:0", publish.Spec{Port: 443}, "a.example@16", "*.example@17"))
	for host, want := range map[string]vsockconn.CID{"a.example": 16, "b.example": 17} {
		client := say(t, at, request(host))
		d := <-s.dials
		if d.CID != want {
			t.Errorf("the client of %s goes to %s", host, d.CID)
		}
		hostEnd, inside := enclave(t)
		d.conn <- hostEnd
		got := make([]byte, len(request(host)))
		if _, err := io.ReadFull(inside, got); err != nil || string(got) != request(host) {
			t.Errorf("the enclave reads %q, %v", got, err)
		}
		inside.Close()
		client.Close()
	}
	// Nobody has the others' names.
	for _, text := range []string{request("a.test"), request(""), "SSH-2.0-x\r\n"} {
		client := say(t, at, text)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client who says %q gets %v, want a reset", text, err)
		}
	}
	if got := s.Status()[0]; got.Refused["name"] != 3 {
		t.Errorf("Status = %+v", got)
	}
	// With enclaves of its own, the port leads there.
	s.publishPorts(t, routed(t, at, publish.Spec{Port: 443, Enclaves: []vsockconn.CID{18}}, "a.example@16"))
	client := say(t, at, request("b.example"))
	d := <-s.dials
	if d.CID != 18 {
		t.Errorf("the client goes to %s", d.CID)
	}
	d.conn <- nil
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("a client without an enclave reads")
	}
}

// TestSilentClientDoesNotHoldTheEnd: one that has said nothing is cut with the
// others.
func TestSilentClientDoesNotHoldTheEnd(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{})
	at := s.publishPorts(t, routed(t, "127.0.0.1:0", publish.Spec{Port: 443}, "a.example@16"))
	client := say(t, at, "GET / HTTP/1.1\r\n")
	for s.Status()[0].Connections == 0 {
		client.Write([]byte("X: y\r\n"))
	}
	s.stop()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client is still there")
	}
}

// TestNextEnclave: a client goes on to the next one if the first does not take it.
func TestNextEnclave(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{Hold: patience})
	at := s.publishPorts(t, routed(t, "127.0.0.1:0", publish.Spec{Port: 443, Enclaves: []vsockconn.CID{16, 17}}))
	client := say(t, at, "x")
	first := <-s.dials
	first.conn <- nil
	second := <-s.dials
	if first.CID == second.CID || first.Wait || second.Wait {
		t.Errorf("the client was led to %s and %s, waiting %v, %v", first.CID, second.CID, first.Wait, second.Wait)
	}
	hostEnd, inside := enclave(t)
	second.conn <- hostEnd
	if _, err := io.ReadFull(inside, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	inside.Close()
	client.Close()
}

func TestChangeIsAllOrNothing(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	s := newStand(t, publish.Config{})
	at := s.publish(t).String()
	_, err = s.Prepare([]publish.Port{
		routed(t, "127.0.0.1:0", publish.Spec{Port: 1}),
		routed(t, busy.Addr().String(), publish.Spec{Port: 2}),
		routed(t, "192.0.2.1:1", publish.Spec{Port: 3}),
		routed(t, at, publish.Spec{Port: 4}, "a.example@16", "a.example@17"),
	})
	if err == nil {
		t.Fatal("it passes")
	}
	for _, want := range []string{"in use by another program", "does not have this address", "two routes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the mistakes do not name %q:\n%v", want, err)
		}
	}
	if got := s.List(); len(got) != 1 || got[0].Port != 443 {
		t.Errorf("List = %v", got)
	}
	connect(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: portOf(t, at)})
	(<-s.dials).conn <- nil

	// One that is prepared and not committed leaves nothing.
	change, err := s.Prepare([]publish.Port{routed(t, "127.0.0.1:0", publish.Spec{Port: 1})})
	if err != nil {
		t.Fatal(err)
	}
	opened := change.Ports()[0].Local
	change.Abort()
	if conn, err := net.Dial("tcp", opened); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
	// One that comes too late, as well.
	if change, err = s.Prepare([]publish.Port{routed(t, "127.0.0.1:0", publish.Spec{Port: 1})}); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := change.Commit(); !errors.Is(err, publish.ErrClosed) {
		t.Errorf("Commit after Run = %v", err)
	}
}
