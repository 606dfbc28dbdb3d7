package revproxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestCompressedContentIsNotTouched(t *testing.T) {
	t.Parallel()
	front, _ := appFunc(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Content-Length", "8")
		w.Header().Set("Saw", r.Header.Get("Accept-Encoding"))
		_, _ = io.WriteString(w, "not gzip")
	})
	res := speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := body(t, res); got != "not gzip" || res.ContentLength != 8 || res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("Saw") != "" {
		t.Errorf("%q, %d bytes, %v; want what the app sent, and no Accept-Encoding of ours", got, res.ContentLength, res.Header)
	}
}

// A body that ends with the app's connection may have been cut. It is not to be
// given a proper end on the way.
func TestAnswerWithoutLengthIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf of it") })
	res := speak(t, dial(t, serve(t, newProxy(t, app, nil))), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := body(t, res); got != "half of it" || len(res.TransferEncoding) != 0 || res.ContentLength != -1 || !res.Close {
		t.Errorf("%q, transfer encoding %v, length %d, close %t; want it to end with the connection", got, res.TransferEncoding, res.ContentLength, res.Close)
	}
}

func TestAnswerCutShortIsCutShort(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"by length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
		"by chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, answer) })
			front := serve(t, newProxy(t, app, nil))
			res, err := front.Client().Get(front.URL)
			if err == nil { // else it was cut before the head had left the proxy's buffer
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
				t.Errorf("the answer ended with %v; want an unexpected end", err)
			}
		})
	}
}

func TestUpgradeTunnelsBothWays(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(head string, c net.Conn) {
		if !strings.Contains(head, "Upgrade: websocket") {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ")
		_, _ = io.Copy(c, c) // until the client's half-close
		_, _ = io.WriteString(c, " bye")
	})
	c := dial(t, serve(t, newProxy(t, app, nil)))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	head, err := readHead(r)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("%q, %v; want 101", head, err)
	}
	if _, err := io.WriteString(c, "\x81\x00echo"); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); string(got) != "hello \x81\x00echo bye" || err != nil {
		t.Fatalf("the tunnel gave %q, %v", got, err)
	}
}

func TestEventsAreFlushedAtOnce(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	front, _ := appFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		eachEvent(w, next)
	})
	res, err := front.Client().Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	hearEvents(t, res.Body, next)
}

// eachEvent sends three events, each when the one before has been heard.
func eachEvent(w http.ResponseWriter, next <-chan struct{}) {
	for range 3 {
		_, _ = io.WriteString(w, "data: x\n\n")
		_ = http.NewResponseController(w).Flush()
		<-next // the client has it, or nothing goes on
	}
}

func hearEvents(t *testing.T, from io.Reader, next chan<- struct{}) {
	t.Helper()
	for range 3 {
		if _, err := io.ReadFull(from, make([]byte, len("data: x\n\n"))); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

// TestProtocolFeatures sends one request with everything over HTTP/1.1 and HTTP/2.
func TestProtocolFeatures(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "Sum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Sum", "of "+r.Trailer.Get("Sum")+r.Trailer.Get("X-Real-Ip"))
		w.Header().Set(http.TrailerPrefix+"Late", "yes")
	}))
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 is %t", h2), func(t *testing.T) {
			t.Parallel()
			front := httptest.NewUnstartedServer(newProxy(t, app.URL, nil))
			front.EnableHTTP2 = h2
			front.StartTLS()
			t.Cleanup(front.Close)
			hints := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == http.StatusEarlyHints && h.Get("Link") != "" {
					hints++
				}
				return nil
			}})
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL, io.MultiReader(strings.NewReader("all of it")))
			if err != nil {
				t.Fatal(err)
			}
			req.Trailer = http.Header{"Sum": {"nine"}, "X-Real-Ip": {"198.51.100.66"}}
			res, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got := body(t, res); got != "all of it" || (res.ProtoMajor == 2) != h2 {
				t.Errorf("%q over %s", got, res.Proto)
			}
			if hints != 1 {
				t.Errorf("%d early hints; want 1", hints)
			}
			if sum, late := res.Trailer.Get("Sum"), res.Trailer.Get("Late"); sum != "of nine" || late != "yes" {
				t.Errorf("trailers %v; want the client's sum, without its address, and a late one", res.Trailer)
			}
		})
	}
}

func TestUnixApp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	app := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host)
	})}}
	app.Start()
	t.Cleanup(app.Close)
	front := serve(t, newProxy(t, "unix:"+path, nil))
	if got := body(t, speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x.example\r\n\r\n")); got != "x.example" {
		t.Errorf("the app saw Host %q", got)
	}
}

func TestConnectionsToTheAppAreKept(t *testing.T) {
	t.Parallel()
	const together = 32
	var mu sync.Mutex
	opened := 0
	var arrived sync.WaitGroup
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived.Done()
		arrived.Wait() // all of a round are under way at once
	}))
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if s == http.StateNew {
			opened++
		}
	}
	app.Start()
	t.Cleanup(app.Close)
	p := newProxy(t, app.URL, nil)
	for range 5 {
		arrived.Add(together)
		var round sync.WaitGroup
		for range together {
			round.Go(func() {
				w := httptest.NewRecorder()
				p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
				if w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
			})
		}
		round.Wait()
	}
	mu.Lock()
	defer mu.Unlock()
	// A connection returns to the pool a moment after its answer has ended, so
	// a round may open a few more than the one before it.
	if opened > 2*together {
		t.Errorf("%d connections for 5 rounds of %d requests", opened, together)
	}
}
