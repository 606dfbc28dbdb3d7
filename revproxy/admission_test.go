package revproxy_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// A crowd is a proxy whose app answers nobody until it is told to.
type crowd struct {
	*revproxy.Proxy
	arrived chan struct{} // one for each request that reached the app
	answer  chan struct{} // one lets one request go
	under   sync.WaitGroup
}

func newCrowd(t *testing.T, change func(*revproxy.Config)) *crowd {
	t.Helper()
	c := &crowd{arrived: make(chan struct{}, 100), answer: make(chan struct{})}
	app := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.arrived <- struct{}{}
		select {
		case <-c.answer:
		case <-r.Context().Done():
		}
	}))
	c.Proxy = newProxy(t, app.URL, change)
	return c
}

// ask asks from an address and returns what becomes of it.
func (c *crowd) ask(ctx context.Context, from string) <-chan *httptest.ResponseRecorder {
	answered := make(chan *httptest.ResponseRecorder, 1)
	c.under.Go(func() {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		answered <- w
	})
	return answered
}

const someone = "192.0.2.1:1"

func TestWithoutRoomRequestsWaitAndAreRefused(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, func(c *revproxy.Config) {
		c.MaxConcurrent, c.MaxQueued, c.QueueTimeout, c.RetryAfter = 1, 1, patience, 1500*time.Millisecond
	})
	first := c.ask(t.Context(), someone)
	<-c.arrived
	second, third := c.ask(t.Context(), someone), c.ask(t.Context(), someone)
	var refused *httptest.ResponseRecorder // whichever came last
	waits := second
	select {
	case refused = <-second:
		waits = third
	case refused = <-third:
	}
	if refused.Code != http.StatusServiceUnavailable || refused.Header().Get("Retry-After") != "2" ||
		refused.Header().Get("Proxy-Status") != "corridor; error=connection_limit_reached" {
		t.Errorf("%d, %v", refused.Code, refused.Header())
	}
	for _, answered := range []<-chan *httptest.ResponseRecorder{first, waits} {
		c.answer <- struct{}{}
		if w := <-answered; w.Code != http.StatusOK {
			t.Errorf("a request that had room or waited for it got %d", w.Code)
		}
	}
	if n := c.Counts().Causes[revproxy.ConnectionLimit]; n != 1 {
		t.Errorf("%d refused", n)
	}
}

func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, func(c *revproxy.Config) { c.MaxConcurrent, c.QueueTimeout = 1, 20*time.Millisecond })
	first := c.ask(t.Context(), someone)
	<-c.arrived
	if w := <-c.ask(t.Context(), someone); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("after its time: %d, %v", w.Code, w.Header())
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if w := <-c.ask(gone, someone); w.Code != 499 {
		t.Errorf("a client that left: %d", w.Code)
	}
	c.answer <- struct{}{}
	<-first
}

func TestOneClientIsNotTheCrowd(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, func(c *revproxy.Config) { c.MaxPerClient = 1 })
	under := []<-chan *httptest.ResponseRecorder{c.ask(t.Context(), "[2001:db8::1]:1")}
	<-c.arrived
	for _, same := range []string{"[2001:db8::1]:2", "[2001:db8::ffff:0:0:2]:1"} {
		if w := <-c.ask(t.Context(), same); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s: %d, %v", same, w.Code, w.Header())
		}
	}
	for _, other := range []string{"[2001:db8:0:1::1]:1", someone, "@", "@"} { // nobody knows who @ is
		under = append(under, c.ask(t.Context(), other))
		<-c.arrived
	}
	for range under {
		c.answer <- struct{}{}
	}
	c.under.Wait()
	again := c.ask(t.Context(), "[2001:db8::1]:3")
	c.answer <- struct{}{}
	if w := <-again; w.Code != http.StatusOK {
		t.Errorf("after it had its answer: %d", w.Code)
	}
}

func TestRequestTimeout(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, func(c *revproxy.Config) { c.RequestTimeout = 20 * time.Millisecond })
	if w := <-c.ask(t.Context(), someone); w.Code != http.StatusGatewayTimeout || c.Counts().Causes[revproxy.ResponseTimeout] != 1 {
		t.Errorf("%d, %+v", w.Code, c.Counts())
	}
}

// Nobody can fill the log: one record a second is enough of a cause, and none keeps back
// another's.
func TestFailuresAreLoggedSparingly(t *testing.T) {
	t.Parallel()
	var log lockedBuilder
	c := newCrowd(t, func(c *revproxy.Config) {
		c.MaxConcurrent, c.MaxPerClient, c.MaxTargetBytes = 1, 1, 10
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	first := c.ask(t.Context(), someone)
	<-c.arrived
	begin := time.Now()
	const many = 200
	for range many {
		<-c.ask(t.Context(), someone) // 429
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/longer-than-ten", nil)) // 414
	}
	seconds := int(time.Since(begin) / time.Second)
	for _, cause := range []revproxy.Cause{revproxy.RequestDenied, revproxy.RequestError} {
		if n := strings.Count(log.String(), "cause="+cause.String()); n == 0 || n > seconds+2 {
			t.Errorf("%d records of %d requests in %d s: %s", n, many, seconds, cause)
		}
		if n := c.Counts().Causes[cause]; n != many {
			t.Errorf("%d counted as %s", n, cause)
		}
	}
	c.answer <- struct{}{}
	<-first
}

// A lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

var _ io.Writer = (*lockedBuilder)(nil)

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
