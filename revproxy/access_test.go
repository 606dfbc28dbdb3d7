package revproxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// recorded is a change of a Config that yields the records.
func recorded(every int) (<-chan revproxy.Record, func(*revproxy.Config)) {
	records := make(chan revproxy.Record, 100)
	return records, func(c *revproxy.Config) {
		c.AccessEvery = every
		c.Access = func(r *revproxy.Record) { records <- *r }
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "four")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/close":
			panic(http.ErrAbortHandler)
		case "/endless": // not for the lane
			w.Header().Set("Trailer", "X-End")
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "four")
	})).URL
	dead := refusing(t)
	tests := []struct {
		name, app, request string
		want               revproxy.Record
	}{
		{"passed on", app, "GET /a%20b?secret HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "GET", Host: "h:1", Path: "/a%20b", Proto: "HTTP/1.1", Status: 202, Sent: 4}},
		{"HTTP/1.0", app, "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
			revproxy.Record{Method: "GET", Host: "h", Path: "/", Proto: "HTTP/1.0", Status: 202, Sent: 4}},
		{"not simple", app, "GET /endless HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "GET", Host: "h", Path: "/endless", Proto: "HTTP/1.1", Status: 202, Sent: 4}},
		{"cut short", app, "GET /cut HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "GET", Host: "h", Path: "/cut", Proto: "HTTP/1.1", Status: 200, Broken: true, Sent: 4}},
		{"no answer", app, "POST /close HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "POST", Host: "h", Path: "/close", Proto: "HTTP/1.1", Status: 502, Failed: true, Cause: revproxy.ConnectionTerminated}},
		{"no app", dead, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "GET", Host: "h", Path: "/", Proto: "HTTP/1.1", Status: 502, Failed: true, Cause: revproxy.ConnectionRefused}},
		{"refused", app, "TRACE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "TRACE", Host: "h", Path: "/", Proto: "HTTP/1.1", Status: 405, Failed: true, Cause: revproxy.RequestDenied}},
		{"ours to answer", app, "OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n",
			revproxy.Record{Method: "OPTIONS", Host: "h", Path: "/", Proto: "HTTP/1.1", Status: 204}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			records, change := recorded(0)
			front := serve(t, newProxy(t, test.app, change))
			begin := time.Now()
			c := dial(t, front)
			if _, err := io.WriteString(c, test.request); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, c) // cut or not
			got := <-records
			total := got.Queue + got.Connect + got.Wait + got.Body
			if got.ID == "" || got.Client != netip.MustParseAddr("127.0.0.1") || got.Begin.Before(begin) || total < 0 || total > time.Since(begin) {
				t.Errorf("%+v", got)
			}
			if asked := got.App != ""; asked != (test.want.Status != 405 && test.want.Status != 204) || asked && got.Connect == 0 {
				t.Errorf("the app was %q, connected to in %v", got.App, got.Connect)
			}
			if test.want.Failed {
				got.Sent = 0 // the words for people
			}
			got.ID, got.Client, got.Begin, got.App, got.Queue, got.Connect, got.Wait, got.Body = "", netip.Addr{}, time.Time{}, "", 0, 0, 0, 0
			if got.Lane && laneIsOff() {
				t.Error("through the lane, which is off")
			}
			if got.Lane = false; got != test.want {
				t.Errorf("%+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A long answer is counted whole, whichever way.
func TestRecordOfALongAnswer(t *testing.T) {
	t.Parallel()
	records, change := recorded(1)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "102400")
		_, _ = io.WriteString(w, strings.Repeat("x", 100<<10))
	}))
	front := serve(t, newProxy(t, app.URL, change))
	if got := status(t, front, "GET", "/"); got != http.StatusOK {
		t.Fatal(got)
	}
	if r := <-records; r.Sent != 100<<10 || r.Lane == laneIsOff() {
		t.Errorf("%+v", r)
	}
}

// The parts of the time are those that were spent.
func TestRecordsOfTime(t *testing.T) {
	t.Parallel()
	const pause = 20 * time.Millisecond
	records, change := recorded(1)
	seen := make(chan bool)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		wait(pause)
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		<-seen
		wait(pause)
		_, _ = io.WriteString(w, "two")
	}))
	front := serve(t, newProxy(t, app.URL, func(c *revproxy.Config) {
		change(c)
		c.Dial = func(ctx context.Context) (net.Conn, error) {
			wait(pause)
			return new(net.Dialer).DialContext(ctx, "tcp", app.Listener.Addr().String())
		}
	}))
	res, err := front.Client().Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	seen <- true
	if got := body(t, res); got != "two" {
		t.Fatal(got)
	}
	if r := <-records; r.Connect < pause || r.Wait < pause || r.Body < pause {
		t.Errorf("%+v", r)
	}
}

// wait lets time pass, which is what is measured.
func wait(d time.Duration) { <-time.After(d) }

func TestRecordsAreSampled(t *testing.T) {
	t.Parallel()
	records, change := recorded(3)
	app := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	front := serve(t, newProxy(t, app.URL, change))
	for range 9 {
		status(t, front, "GET", "/")
	}
	for range 3 {
		<-records // the last of the ninth
	}
	if n := len(records); n != 0 {
		t.Errorf("%d too many of 9 with one in 3", n)
	}
}
