package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/balance"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// A stand is a Publisher with enclaves that the test answers for.
type stand struct {
	*publish.Publisher
	log   *tapstacktest.Log
	dials chan dial
	stop  func() // ends Run and waits for it
}

// A dial is one request to reach an enclave; the test sends the connection.
type dial struct {
	publish.Call
	road publish.Road
	conn chan net.Conn
}

func newStand(t *testing.T, c publish.Config) *stand {
	t.Helper()
	s := &stand{log: &tapstacktest.Log{}, dials: make(chan dial)}
	c.Log = slog.New(slog.NewTextHandler(s.log, nil))
	c.Balancer = balance.New(balance.Config{Log: c.Log})
	c.Only = func(context.Context) (vsockconn.CID, error) { return 16, nil }
	c.Link, c.Stream = s.dialer(publish.Link), s.dialer(publish.Stream)
	s.Publisher = publish.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	s.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(s.stop)
	return s
}

// dialer asks the test for connections on one road.
func (s *stand) dialer(r publish.Road) publish.DialFunc {
	return func(ctx context.Context, call publish.Call) (net.Conn, error) {
		d := dial{call, r, make(chan net.Conn, 1)}
		select {
		case s.dials <- d:
		case <-ctx.Done():
			return nil, errors.New("no enclave")
		}
		if conn := <-d.conn; conn != nil {
			return conn, nil
		}
		return nil, errors.New("refused")
	}
}

func (s *stand) publish(t *testing.T) net.Addr {
	t.Helper()
	a, err := s.Add(publish.Spec{Local: "127.0.0.1:0", Enclaves: []vsockconn.CID{16}, Port: 443})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func connect(t *testing.T, to net.Addr) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// enclave returns both ends of a connection into the enclave.
func enclave(t *testing.T) (hostEnd, inside net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	inside = connect(t, l.Addr())
	hostEnd, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return hostEnd, inside
}

func TestParseSpecRefuses(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                                  "ADDR=stream:PORT",
		"127.0.0.1:80":                      "ADDR=stream:PORT",
		"=link:443":                         "HOST:PORT",
		"80=link:443":                       "HOST:PORT",
		"example.com:80=link:443":           "not an IP address",
		"127.0.0.1:http=link:443":           "not a port",
		"127.0.0.1:65536=link:443":          "not a port",
		"127.0.0.1:80=stream:0":             "want 1 to 4294967294",
		"127.0.0.1:80=stream:4294967295":    "want 1 to 4294967294",
		"127.0.0.1:80=stream:443@2x":        "not the CID",
		"127.0.0.1:80=Stream:443":           "not a road",
		"127.0.0.1:80=443":                  "not a road",
		"127.0.0.1:80=link:":                "not a port of the enclave",
		"127.0.0.1:80=link:0":               "not a port of the enclave",
		"127.0.0.1:80=link:70000":           "not a port of the enclave",
		"127.0.0.1:80=link:443@":            "not the CID",
		"127.0.0.1:80=link:443@0":           "not the CID",
		"127.0.0.1:80=link:443@x":           "not the CID",
		"127.0.0.1:80=link:443@4294967295":  "not the CID",
		"127.0.0.1:80=link:443@99999999999": "not the CID",
		"127.0.0.1:80=link:443@16,16":       "named twice",
		"127.0.0.1:80=link:443@16,x":        "not the CID",
	} {
		if s, err := publish.ParseSpec(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSpec(%q) = %v, %v; want an error with %q", value, s, err, want)
		}
	}
}

func TestParseSpec(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]publish.Spec{
		"127.0.0.1:8443=link:443":  {Local: "127.0.0.1:8443", Port: 443},
		":443=link:443@16":         {Local: ":443", Enclaves: []vsockconn.CID{16}, Port: 443},
		"[::1]:0=link:1@1":         {Local: "[::1]:0", Enclaves: []vsockconn.CID{1}, Port: 1},
		"localhost:1=link:65535":   {Local: "localhost:1", Port: 65535},
		":1=stream:1443@16":        {Local: ":1", Road: publish.Stream, Enclaves: []vsockconn.CID{16}, Port: 1443},
		":1=stream:4294967294":     {Local: ":1", Road: publish.Stream, Port: 1<<32 - 2},
		":1=stream:1443@16,17,18":  {Local: ":1", Road: publish.Stream, Enclaves: []vsockconn.CID{16, 17, 18}, Port: 1443},
		"[::]:443=link:443@100000": {Local: "[::]:443", Enclaves: []vsockconn.CID{100000}, Port: 443},
	} {
		got, err := publish.ParseSpec(value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseSpec(%q) = %v, %v; want %v", value, got, err, want)
		}
		if got.String() != value {
			t.Errorf("String() = %q, want %q", got.String(), value)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add("127.0.0.1:8443=link:443@16")
	f.Add(":443=stream:1443")
	f.Fuzz(func(t *testing.T, value string) {
		s, err := publish.ParseSpec(value)
		if err != nil {
			return
		}
		again, err := publish.ParseSpec(s.String())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%q became %v, which became %v, %v", value, s, again, err)
		}
	})
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	s := newStand(t, publish.Config{})
	if _, err := s.Add(publish.Spec{Local: busy.Addr().String()}); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("Add on a busy port = %v", err)
	}
	if _, err := s.Add(publish.Spec{Local: "192.0.2.1:0"}); err == nil || !strings.Contains(err.Error(), "does not have this address") {
		t.Errorf("Add on a foreign address = %v", err)
	}
	at := s.publish(t)
	if _, err := s.Add(publish.Spec{Local: at.String()}); !errors.Is(err, publish.ErrPublished) {
		t.Errorf("second Add = %v, want ErrPublished", err)
	}
	if other := s.publish(t); other.String() == at.String() || len(s.List()) != 2 {
		t.Errorf("two ports of any number are %s and %s", at, other)
	}
	if err := s.Remove("127.0.0.1:1"); !errors.Is(err, publish.ErrNotPublished) {
		t.Errorf("Remove of nothing = %v, want ErrNotPublished", err)
	}
	s.stop()
	if _, err := s.Add(publish.Spec{Local: "127.0.0.1:0"}); !errors.Is(err, publish.ErrClosed) {
		t.Errorf("Add after Run = %v, want ErrClosed", err)
	}
}

func TestConnectionIsCarried(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{})
	client := connect(t, s.publish(t))
	d := <-s.dials
	if d.road != publish.Link || d.CID != 16 || !d.Wait || d.To.Port != 443 || d.Client.String() != client.LocalAddr().String() || d.Local.String() != client.RemoteAddr().String() {
		t.Errorf("dial on %s for %+v; want %s on the link to 16, 443", d.road, d.Call, client.LocalAddr())
	}
	hostEnd, inside := enclave(t)
	d.conn <- hostEnd
	for _, tt := range []struct{ from, to net.Conn }{{client, inside}, {inside, client}} {
		if _, err := io.WriteString(tt.from, "hello"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(tt.to, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	client.CloseWrite()
	if rest, err := io.ReadAll(inside); err != nil || len(rest) > 0 {
		t.Errorf("the enclave reads %q, %v; want the client's end of stream", rest, err)
	}
	inside.Close()
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("the client reads %q, %v; want the enclave's end of stream", rest, err)
	}
	if got := s.Status()[0]; got.DownlinkBytes != 5 || got.UplinkBytes != 5 || got.Dials.Count() != 1 {
		t.Errorf("status %+v; want 5 bytes each way, and one dial", got)
	}
}

func TestClientWithoutEnclaveIsReset(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{Hold: time.Millisecond})
	at := s.publish(t)
	for range 3 {
		client, err := net.Dial("tcp", at.String()) // may be reset before it returns
		if err == nil {
			_, err = client.Read(make([]byte, 1))
			client.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client gets %v; want a reset: it must not take it for an answer", err)
		}
	}
	s.stop()
	if got := strings.Count(s.log.String(), "client not carried"); got != 1 {
		t.Errorf("%d lines about it, want one:\n%s", got, s.log)
	}
}

func TestRemoveKeepsConnections(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{})
	at := s.publish(t)
	if got, want := fmt.Sprint(s.List()), fmt.Sprintf("[%s=link:443@16]", at); got != want {
		t.Errorf("List = %s", got)
	}
	client := connect(t, at)
	hostEnd, inside := enclave(t)
	(<-s.dials).conn <- hostEnd
	if err := s.Remove(at.String()); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", at.String()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
	if got := s.List(); len(got) != 0 {
		t.Errorf("List = %v", got)
	}
	if _, err := io.WriteString(inside, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Errorf("the connection ended with its port: %v", err)
	}
	inside.Close()
	client.Close()
}

func TestStopDrains(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{Tuning: publish.Tuning{DrainTimeout: patience}, Hold: time.Second})
	at := s.publish(t)
	client := connect(t, at)
	hostEnd, inside := enclave(t)
	(<-s.dials).conn <- hostEnd
	var stopping sync.WaitGroup
	stopping.Go(s.stop)
	for { // until the port is closed
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			break
		}
		conn.Close()
	}
	if _, err := io.WriteString(inside, "the last answer"); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "the last answer" {
		t.Errorf("the client got %q, %v while draining", got, err)
	}
	client.Close()
	stopping.Wait()
}

func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{Tuning: publish.Tuning{DrainTimeout: time.Millisecond}})
	client := connect(t, s.publish(t))
	hostEnd, _ := enclave(t)
	(<-s.dials).conn <- hostEnd
	s.stop()
	if n, err := client.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the client reads %d bytes, %v; want a reset", n, err)
	}
	if !strings.Contains(s.log.String(), "are cut") {
		t.Errorf("the log does not say so:\n%s", s.log)
	}
}
