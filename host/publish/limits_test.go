package publish_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// refused checks that one more client is reset, and not carried.
func (s *stand) refused(t *testing.T, at net.Addr) {
	t.Helper()
	client, err := net.Dial("tcp", at.String()) // may be reset before it returns
	if err == nil {
		defer client.Close()
		_, err = client.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client beyond the limit: %v, want a reset", err)
	}
	select {
	case d := <-s.dials:
		t.Errorf("a client beyond the limit was carried: %+v", d.Call)
	default:
	}
}

// TestOneTooManyIsRefused: at once, and the others go on.
func TestOneTooManyIsRefused(t *testing.T) {
	t.Parallel()
	for why, limits := range map[string]publish.Limits{
		"total":  {Total: 1},
		"port":   {PerPort: 1},
		"client": {PerClient: 1},
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, publish.Config{Tuning: publish.Tuning{Limits: limits}, Hold: patience})
			at := s.publish(t)
			first := connect(t, at)
			hostEnd, inside := enclave(t)
			(<-s.dials).conn <- hostEnd
			s.refused(t, at)

			if _, err := io.WriteString(inside, "hello"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(first, make([]byte, 5)); err != nil {
				t.Errorf("the first connection: %v", err)
			}
			status := s.Status()[0]
			if status.Connections != 1 || status.Accepted != 2 || status.Refused[why] != 1 || status.Failed != 0 {
				t.Errorf("Status = %+v", status)
			}
			if !strings.Contains(s.log.String(), "client refused") {
				t.Errorf("the log does not say so:\n%s", s.log)
			}
			// There is room again once the first has gone.
			inside.Close()
			first.Close()
			for s.Status()[0].Connections > 0 {
				runtime.Gosched()
			}
			third := connect(t, at)
			d := <-s.dials
			if d.Client.String() != third.LocalAddr().String() {
				t.Errorf("%s was carried, want %s", d.Client, third.LocalAddr())
			}
			d.conn <- nil
		})
	}
}

// TestTooManyWait: clients of an enclave that does not answer have a limit of
// their own, which those who are connected do not count towards.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{Tuning: publish.Tuning{Limits: publish.Limits{Dials: 1}}, Hold: patience})
	at := s.publish(t)
	connect(t, at)
	waiting := <-s.dials
	s.refused(t, at)
	hostEnd, _ := enclave(t)
	waiting.conn <- hostEnd
	if got := s.Status()[0]; got.Refused["waiting"] != 1 {
		t.Errorf("Status = %+v", got)
	}
}

// TestStreamRoad: a port of the stream road asks for streams.
func TestStreamRoad(t *testing.T) {
	t.Parallel()
	s := newStand(t, publish.Config{})
	at, err := s.Add(publish.Spec{Local: "127.0.0.1:0", Road: publish.Stream, Enclaves: []vsockconn.CID{16}, Port: 1443})
	if err != nil {
		t.Fatal(err)
	}
	connect(t, at)
	first := <-s.dials
	first.conn <- nil
	connect(t, at)
	second := <-s.dials
	second.conn <- nil
	if first.road != publish.Stream || first.To.Port != 1443 || first.To.Local != at.String() {
		t.Errorf("dial on %s for %+v", first.road, first.Call)
	}
	if first.ID == "" || first.ID == second.ID {
		t.Errorf("connections %q and %q", first.ID, second.ID)
	}
}
