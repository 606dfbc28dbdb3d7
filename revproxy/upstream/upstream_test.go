package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestRoundTripRefusesWhatIsNotOneRequest(t *testing.T) {
	t.Parallel()
	tr := newApp(t, says(ok)).transport(t, nil)
	tests := []struct {
		name   string
		change func(*http.Request)
	}{
		{"a method with a space", func(r *http.Request) { r.Method = "GET /" }},
		{"no method", func(r *http.Request) { r.Method = "" }},
		{"a target with a space", func(r *http.Request) { r.URL.Opaque = "/ HTTP/1.1" }},
		{"a query with a line break", func(r *http.Request) { r.URL.RawQuery = "\r\nX: y" }},
		{"a host with a line break", func(r *http.Request) { r.Host = "a\r\nX: y" }},
		{"a field name with a colon", func(r *http.Request) { r.Header["A:b"] = []string{"c"} }},
		{"a field name with nothing in it", func(r *http.Request) { r.Header[""] = []string{"c"} }},
		{"a field with a line break", func(r *http.Request) { r.Header["A"] = []string{"b\nc"} }},
		{"a field with NUL", func(r *http.Request) { r.Header["A"] = []string{"\x00"} }},
		{"a trailer name with a space", func(r *http.Request) { r.Trailer = http.Header{"A b": nil} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := request(t, http.MethodGet, "")
			tt.change(req)
			if res, err := tr.RoundTrip(req); err == nil {
				res.Body.Close()
				t.Fatal("it was sent")
			}
		})
	}
}

func TestRoundTripFails(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		act  func(net.Conn, *bufio.Reader)
		want error
	}{
		{"closed", func(net.Conn, *bufio.Reader) {}, nil}, // EOF or a reset, as it happens
		{"closed after the request", func(_ net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r) }, io.EOF},
		{"closed within the head", func(c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA: ")
		}, io.ErrUnexpectedEOF},
		{"head too large", says("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 9000) + "\r\n\r\n"), upstream.ErrHead},
		{"informed without an end", says(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 900)), upstream.ErrHead},
		{"silent", func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }, os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := newApp(t, tt.act).transport(t, func(c *upstream.Config) {
				c.MaxHeaderBytes = 8 << 10
				if errors.Is(tt.want, os.ErrDeadlineExceeded) {
					c.HeaderTimeout = 20 * time.Millisecond
				}
			})
			res, err := tr.RoundTrip(request(t, http.MethodGet, ""))
			if err == nil {
				res.Body.Close()
				t.Fatalf("got %s", res.Status)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v; want %v", err, tt.want)
			}
		})
	}
}

func TestRequestsOnTheWire(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*http.Request)
		want   string
	}{
		{"two slashes", func(r *http.Request) { r.URL = &url.URL{Scheme: "http", Host: "app", Opaque: "//a//b"} },
			"GET //a//b HTTP/1.1\r\nHost: app\r\n\r\n"},
		{"an empty query", func(r *http.Request) { r.URL = &url.URL{Opaque: "/", ForceQuery: true} }, "GET /? HTTP/1.1\r\nHost: app\r\n\r\n"},
		{"semicolons", func(r *http.Request) { r.URL = &url.URL{Opaque: "/a;b", RawQuery: "c;d"} }, "GET /a;b?c;d HTTP/1.1\r\nHost: app\r\n\r\n"},
		{"fields of the framing are ours", func(r *http.Request) {
			r.Header = http.Header{"Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Host": {"b"}, "Trailer": {"c"}, "A": {"b"}}
		}, "GET /x HTTP/1.1\r\nHost: app\r\nA: b\r\n\r\n"},
		{"no user agent", func(r *http.Request) { r.Header.Set("User-Agent", "") }, "GET /x HTTP/1.1\r\nHost: app\r\n\r\n"},
		{"an empty field", func(r *http.Request) { r.Header.Set("A", "") }, "GET /x HTTP/1.1\r\nHost: app\r\nA: \r\n\r\n"},
		{"an empty body", func(r *http.Request) { r.Method = http.MethodPost }, "POST /x HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			heads := make(chan string, 1)
			tr := newApp(t, func(c net.Conn, r *bufio.Reader) {
				head, _, _ := readRequest(r)
				heads <- head
				_, _ = io.WriteString(c, ok)
			}).transport(t, nil)
			req := request(t, http.MethodGet, "")
			req.Host = "app"
			tt.change(req)
			ask(t, tr, req)
			if got := <-heads; got != tt.want {
				t.Errorf("the app saw %q; want %q", got, tt.want)
			}
		})
	}
}

func TestBodiesAndTrailers(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 1)
	app := newApp(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		content, _ := io.ReadAll(req.Body)
		bodies <- string(content) + req.Trailer.Get("Sum")
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n1\r\nx\r\n0\r\nSum: 2\r\nLate: 3\r\n\r\n")
	})
	req := request(t, http.MethodPost, "")
	req.Body, req.ContentLength = io.NopCloser(iotest.OneByteReader(strings.NewReader("abc"))), -1
	req.Trailer = http.Header{"Sum": {"three"}}
	res, content := ask(t, app.transport(t, nil), req)
	if got := <-bodies; got != "abcthree" {
		t.Errorf("the app read %q", got)
	}
	if content != "x" || res.Trailer.Get("Sum") != "2" || res.Trailer.Get("Late") != "3" {
		t.Errorf("%q with trailers %v", content, res.Trailer)
	}
}

// The body that the client cannot finish must not look finished to the app.
func TestBrokenBodyBreaksTheRequest(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	tests := []struct {
		name   string
		length int64
		body   io.Reader
		want   error
	}{
		{"fails", -1, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), broken},
		{"too short", 10, strings.NewReader("abc"), io.ErrUnexpectedEOF},
		{"too long", 2, strings.NewReader("abc"), nil},
		{"trailer with a line break", -1, strings.NewReader("abc"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan error, 1)
			tr := newApp(t, func(_ net.Conn, r *bufio.Reader) {
				_, _, err := readRequest(r)
				seen <- err
			}).transport(t, nil)
			req := request(t, http.MethodPost, "")
			req.Body, req.ContentLength = io.NopCloser(tt.body), tt.length
			if tt.want == nil && tt.length < 0 {
				req.Trailer = http.Header{"A": {"b\r\nc"}}
			}
			res, err := tr.RoundTrip(req)
			if err == nil {
				res.Body.Close()
				t.Fatal("it was answered")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v; want %v", err, tt.want)
			}
			if err := <-seen; err == nil {
				t.Error("the app took the request for whole")
			}
		})
	}
}

func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	app := newApp(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, r)
	})
	req := request(t, http.MethodPost, "")
	slow, end := io.Pipe()
	defer end.Close()
	req.Body, req.ContentLength = slow, 1000
	res, content := ask(t, app.transport(t, nil), req)
	if res.StatusCode != http.StatusRequestEntityTooLarge || content != "no" {
		t.Errorf("%s, %q", res.Status, content)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"} {
		t.Run(answer[9:12], func(t *testing.T) {
			t.Parallel()
			app := newApp(t, func(c net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if r.Buffered() > 0 {
					t.Error("the body came unasked")
				}
				_, _ = io.WriteString(c, answer)
				if content, _ := io.ReadAll(req.Body); string(content) == "abc" {
					_, _ = io.WriteString(c, ok)
				}
			})
			informed := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
				informed++
				return nil
			}})
			req := request(t, http.MethodPost, "abc").WithContext(ctx)
			req.Header.Set("Expect", "100-continue")
			res, _ := ask(t, app.transport(t, nil), req)
			if want := answer[9:12] == "100"; want != (res.StatusCode == 200) || want != (informed == 1) {
				t.Errorf("%s after %d informational answers", res.Status, informed)
			}
		})
	}
}

func TestContextClosesTheConnection(t *testing.T) {
	t.Parallel()
	reached, closed := make(chan struct{}), make(chan struct{})
	app := newApp(t, func(_ net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		close(reached)
		_, _ = r.ReadByte()
		close(closed)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	res, err := app.transport(t, nil).RoundTrip(request(t, http.MethodGet, "").WithContext(ctx))
	if err == nil {
		res.Body.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the context's error", err)
	}
	<-closed
}

func TestSilenceWithinAnAnswerEnds(t *testing.T) {
	t.Parallel()
	app := newApp(t, func(c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nhalf")
		_, _ = io.Copy(io.Discard, r)
	})
	res, err := app.transport(t, func(c *upstream.Config) { c.BodyTimeout = 20 * time.Millisecond }).RoundTrip(request(t, http.MethodGet, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if content, err := io.ReadAll(res.Body); string(content) != "half" || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", content, err)
	}
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	app := newApp(t, func(c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello ")
		_, _ = io.Copy(c, r)
		_, _ = io.WriteString(c, " bye")
	})
	res, err := app.transport(t, nil).RoundTrip(request(t, http.MethodGet, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	both := res.Body.(interface {
		io.ReadWriteCloser
		CloseWrite() error
	})
	if _, err := io.WriteString(both, "echo"); err != nil {
		t.Fatal(err)
	}
	if err := both.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(both); string(got) != "hello echo bye" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	tr := upstream.New(upstream.Config{Dial: func(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED }})
	closed := false
	req := request(t, http.MethodPost, "")
	req.Body, req.ContentLength = closer{&closed}, 3
	res, err := tr.RoundTrip(req)
	if err == nil {
		res.Body.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) || !closed {
		t.Errorf("%v, body closed %t", err, closed)
	}
}

type closer struct{ closed *bool }

func (c closer) Read([]byte) (int, error) { return 0, io.EOF }
func (c closer) Close() error             { *c.closed = true; return nil }
