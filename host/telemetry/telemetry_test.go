package telemetry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	receiver "github.com/corridor-enclave/corridor/host/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// A stand is a Receiver that knows the CIDs 16 and 17.
type stand struct {
	*receiver.Receiver
	log *lines
	dir string
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{log: &lines{wrote: make(chan struct{}, 1)}, dir: t.TempDir()}
	transport, err := simvsock.Dir(s.dir, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(telemetry.Port)
	if err != nil {
		t.Fatal(err)
	}
	s.Receiver = receiver.New(receiver.Config{
		Known: func(cid vsockconn.CID) bool { return cid == 16 || cid == 17 },
		Now:   time.Now,
		Log:   slog.New(slog.NewJSONHandler(s.log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx, l); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return s
}

// dial is an enclave that reports.
func (s *stand) dial(t *testing.T, cid vsockconn.CID) net.Conn {
	t.Helper()
	transport, err := simvsock.Dir(s.dir, cid)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := transport.Dial(t.Context(), vsockconn.Addr{CID: vsockconn.CIDParent, Port: telemetry.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func write(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// ended waits until the host has closed the stream.
func ended(t *testing.T, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("the host says something: %d, %v", n, err)
	}
}

// awaitEvent waits until an event is in the log, and with it all before it.
func (s *stand) awaitEvent(t *testing.T, conn net.Conn, value uint64) {
	t.Helper()
	write(t, conn, telemetry.Event{Code: telemetry.Serving, At: time.Now(), Value: value}.Append(nil))
	s.log.await(t, fmt.Sprintf(`"value":%d}`, value))
}

// lines are a log that can be waited for, by one test.
type lines struct {
	tapstacktest.Log
	wrote chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	n, err := l.Log.Write(b)
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return n, err
}

// await waits until the log holds a text.
func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.wrote:
		case <-late:
			t.Fatalf("the log never says %q:\n%s", text, l)
		}
	}
}

func TestWrongStreamsAreClosed(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, in := range [][]byte{
		[]byte("POST /connect HTTP/1.1\r\n\r\n"),
		tapstacktest.Vector(t, "../../tapstack/testdata/telemetry-version2.hex"),
		tapstacktest.Vector(t, "../../tapstack/testdata/telemetry-oversized.hex"),
		tapstacktest.Vector(t, "../../tapstack/testdata/telemetry-overrun.hex"),
	} {
		conn := s.dial(t, 16)
		write(t, conn, in)
		ended(t, conn)
	}
}

func TestStrangersAreNotHeard(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	stranger := s.dial(t, 99)
	ended(t, stranger)
	if got := s.Refused(); got != 1 || len(s.Reports()) > 0 {
		t.Errorf("%d refused, reports %v", got, s.Reports())
	}
}

// TestNewerStreamReplaces: of one enclave there is one stream.
func TestNewerStreamReplaces(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	first := s.dial(t, 16)
	write(t, first, telemetry.AppendOpening(nil))
	s.awaitEvent(t, first, 1)
	second := s.dial(t, 16)
	write(t, second, telemetry.AppendOpening(nil))
	s.awaitEvent(t, second, 2)
	ended(t, first)
	r := s.Reports()
	if len(r) != 1 || !r[0].Connected || r[0].Events[telemetry.Serving] != 2 {
		t.Errorf("reports %+v", r)
	}
}

func TestHears(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	conn := s.dial(t, 17)
	write(t, conn, tapstacktest.Vector(t, "../../tapstack/testdata/telemetry-metrics.hex"))
	write(t, conn, telemetry.Event{Code: 60000, At: time.Now()}.Append(nil))
	write(t, conn, telemetry.Event{Code: 60001, At: time.Now()}.Append(nil))
	s.awaitEvent(t, conn, 77)
	r := s.Reports()
	if len(r) != 1 || r[0].CID != 17 || !r[0].Connected {
		t.Fatalf("reports %+v", r)
	}
	if got := r[0].Values; len(got) != 2 || got[telemetry.Goroutines] != 42 || got[telemetry.ProxyRequests] != 7 {
		t.Errorf("values %v; what is not known must not be kept", got)
	}
	if got := r[0].Events; len(got) != 2 || got[0] != 2 || got[telemetry.Serving] != 1 {
		t.Errorf("events %v; those not known are one", got)
	}
	conn.Close()
	s.log.await(t, "enclave has fallen silent")
	if r := s.Reports(); len(r) != 1 || r[0].Connected {
		t.Errorf("reports %+v", r)
	}
}

// TestLinesAreHarmless: a hostile line is one line, of printable characters, and
// cannot pass for the host's.
func TestLinesAreHarmless(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	conn := s.dial(t, 16)
	hostile := "a\nb\r\x1b[31mred\x9b2J\u202egnp\u2028\x00\x7f\u200b\xff" + strings.Repeat("x", 1500)
	line := telemetry.Log{
		Level: 100, At: time.Now(), Message: hostile,
		Attrs: []telemetry.Attr{{Key: "cid", Value: "3"}, {Key: "level\n\"", Value: hostile}, {Value: "no key"}},
	}
	write(t, conn, line.Append(telemetry.AppendOpening(nil)))
	s.awaitEvent(t, conn, 5)
	var said struct {
		Level, Msg, Text string
		CID              uint32
		Enclave          map[string]string
	}
	for text := range strings.Lines(s.log.String()) {
		if strings.Contains(text, "enclave says") {
			if err := json.Unmarshal([]byte(text), &said); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
		}
	}
	if said.Level != "ERROR" || said.Msg != "enclave says" || said.CID != 16 || said.Enclave["cid"] != "3" || said.Enclave["_"] != "no key" {
		t.Errorf("%+v", said)
	}
	for _, text := range []string{said.Text, said.Enclave["level__"]} {
		if len(text) == 0 || len(text) > 1024 || strings.ContainsAny(text, "\n\r\x1b\x00\x7f\u009b\u202e\u2028\u200b") {
			t.Errorf("%q", text)
		}
	}
}

// TestPace: who speaks too much is not read, and is heard later.
func TestPace(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	conn := s.dial(t, 16)
	flood := telemetry.AppendOpening(nil)
	for range 1100 {
		flood = telemetry.Event{Code: telemetry.AppBegun, At: time.Now()}.Append(flood)
	}
	began := time.Now()
	write(t, conn, flood)
	s.awaitEvent(t, conn, 9)
	if took := time.Since(began); took < time.Second/2 {
		t.Errorf("1,100 records were taken in %v", took)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31m\u202e\xff", 8)
	f.Fuzz(func(t *testing.T, text string, size int) {
		got := receiver.Printable(text, size)
		if len(got) > max(size, 0) || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b\u202e\u2028\u009b") {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func TestRunOnAClosedListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r := receiver.New(receiver.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now})
	if err := r.Run(t.Context(), l); err == nil {
		t.Error("Run on a closed listener gave no error")
	}
}
