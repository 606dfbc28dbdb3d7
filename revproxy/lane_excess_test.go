package revproxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// excess is what an app says too much: another answer.
const excess = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nexcess"

// talker is an app that keeps its connections: it answers every head it reads by
// answer, whose argument is the target.
func talker(t *testing.T, answer func(target string) string) string {
	return rawApp(t, func(head string, c net.Conn) {
		r := bufio.NewReader(c)
		for err := error(nil); err == nil; head, err = readHead(r) {
			if _, err := io.WriteString(c, answer(strings.Fields(head)[1])); err != nil {
				return
			}
		}
	})
}

// What an app says beyond its answer is nobody's answer, also if the next request
// has waited for room.
func TestLaneGivesNobodyWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 40<<10)
	arrived, goOn := make(chan struct{}, 1), make(chan struct{})
	app := talker(t, func(target string) string {
		if target == "/1" {
			arrived <- struct{}{}
			<-goOn
			return "HTTP/1.1 200 OK\r\nContent-Length: 40960\r\n\r\n" + long + excess
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	})
	p := newProxy(t, app, func(c *revproxy.Config) { c.MaxConcurrent, c.QueueTimeout = 1, patience })
	front, lane := inLane(t, p, p, nil)
	first, second := dial(t, front), dial(t, front)
	say(t, first, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	say(t, second, "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
	time.AfterFunc(200*time.Millisecond, func() { close(goOn) }) // longer than a glance
	if got := body(t, speak(t, first, "")); got != long {
		t.Errorf("the first has %d bytes", len(got))
	}
	if got := body(t, speak(t, second, "")); got != "ok" || lane.Taken() != 2 {
		t.Errorf("the second has %q, %d taken", got, lane.Taken())
	}
}

// The same if the answer is passed on by the server.
func TestLaneGivesNobodyWhatIsTooMuchElsewhere(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 12<<10)
	app := talker(t, func(target string) string {
		if target == "/1" {
			return "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12288\r\n\r\n" + long + excess
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	})
	p := newProxy(t, app, nil)
	front, _ := inLane(t, p, p, nil)
	r := bufio.NewReader(dialed(t, front, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"))
	for range 2 {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, res); res.StatusCode == 200 && got != long {
			t.Errorf("the first has %d bytes", len(got))
		}
	}
	if got := body(t, speak(t, dial(t, front), "GET /2 HTTP/1.0\r\nHost: x\r\n\r\n")); got != "ok" {
		t.Errorf("the second has %q", got)
	}
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func dialed(t *testing.T, s *httptest.Server, text string) net.Conn {
	t.Helper()
	c := dial(t, s)
	say(t, c, text)
	return c
}
