package revproxy_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

// TestHTTP2Requests: what of a request of HTTP/2 reaches an app of HTTP/1.1, and what
// does not.
func TestHTTP2Requests(t *testing.T) {
	t.Parallel()
	status, saw := "", "" // of a request for two hosts: package h2 refuses it (RFC 9113 section 8.3.1)
	if laneIsOff() {
		status, saw = "200", "Host: x\r\n" // net/http passes the authority on
	}
	with := func(name, value string) []string { // get with another pseudo-field
		fields := get()
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == name {
				fields[i+1] = value
			}
		}
		return fields
	}
	without := func(name string, more ...string) []string {
		var fields []string
		for all := get(); len(all) > 0; all = all[2:] {
			if all[0] != name {
				fields = append(fields, all[0], all[1])
			}
		}
		return append(fields, more...)
	}
	tests := []struct {
		name     string
		fields   []string
		body     string
		status   string // "": the stream is reset, or it is 400
		saw, not string // in what the app saw
	}{
		{"a length that is too large", append(with(":method", "POST"), "content-length", "5"), "abc", "", "", ""},
		{"a length that is too small", append(with(":method", "POST"), "content-length", "2"), "abc", "", "", ""},
		{"Transfer-Encoding", get("transfer-encoding", "chunked"), "", "", "", ""},
		{"Connection", get("connection", "x"), "", "", "", ""},
		{"Keep-Alive", get("keep-alive", "timeout=5"), "", "", "", ""},
		{"Proxy-Connection", get("proxy-connection", "keep-alive"), "", "", "", ""},
		{"Upgrade", get("upgrade", "websocket"), "", "", "", ""},
		{"TE that is not trailers", get("te", "gzip"), "", "", "", ""},
		{"trailers", get("te", "trailers"), "", "200", "Te: trailers\r\n", ""},
		{"a name in capitals", get("X-A", "b"), "", "", "", ""},
		{"a name with a space", get("a b", "c"), "", "", "", ""},
		{"an empty name", get("", "c"), "", "", "", ""},
		{"LF in a value", get("a", "b\nc: d"), "", "", "", ""},
		{"CR in a value", get("a", "b\rc"), "", "", "", ""},
		{"NUL in a value", get("a", "b\x00c"), "", "", "", ""},
		{"no method", without(":method"), "", "", "", ""},
		{"no path", without(":path"), "", "", "", ""},
		{"an empty path", with(":path", ""), "", "", "", ""},
		{"a path with a space", with(":path", "/a b"), "", "", "", ""},
		{"a path with a line in it", with(":path", "/ HTTP/1.1\r\nA: b"), "", "", "", ""},
		{"a path that does not begin with a slash", with(":path", "a"), "", "", "", ""},
		{"no scheme", without(":scheme"), "", "", "", ""},
		{"two paths", get(":path", "/b"), "", "", "", ""},
		{"an unknown pseudo-field", get(":a", "b"), "", "", "", ""},
		{"a pseudo-field behind a field", without(":path", "a", "b", ":path", "/"), "", "", "", ""},
		{"a host with a slash", with(":authority", "a/b"), "", "", "", ""},
		{"an authority and another host", get("host", "y"), "", status, saw, "Host: y"},
		{"a host alone", without(":authority", "host", "x"), "", "200", "Host: x\r\n", ""},
		{"TRACE", with(":method", "TRACE"), "", "405", "", ""},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "x:1"}, "", "405", "", ""},
		{"CONNECT for a WebSocket", append(with(":method", "CONNECT"), ":protocol", "websocket"), "", "", "", ""},
		{"OPTIONS of the server", []string{":method", "OPTIONS", ":scheme", "https", ":authority", "x", ":path", "*"}, "", "200", "", "OPTIONS"},
		{"an asterisk", with(":path", "*"), "", "", "", ""},
		{"OPTIONS that ends here", append(with(":method", "OPTIONS"), "max-forwards", "0"), "", "204", "", "OPTIONS"},
		{"OPTIONS that goes on", append(with(":method", "OPTIONS"), "max-forwards", "5"), "", "200", "Max-Forwards: 4\r\n", ""},
		{"a target", with(":path", "//a/../%2F;b?c;d&&e=%zz?|"), "", "200", "GET //a/../%2F;b?c;d&&e=%zz?| HTTP/1.1\r\n", ""},
		{"GET with a body", get("content-length", "3"), "abc", "200", "Content-Length: 3\r\n", "Transfer-Encoding"},
		{"a body without a length", with(":method", "POST"), "abc", "200", "\r\n\r\nabc", "Content-Length"},
		{"cookies in pieces", get("cookie", "a=b", "cookie", "c=d"), "", "200", "Cookie: a=b; c=d\r\n", ""},
		{"the way so far", get("via", "1.1 a"), "", "200", "Via: 1.1 a\r\nVia: 2.0 corridor (", ""},
		{"claims of where it comes from", get("x-forwarded-for", "198.51.100.66", "forwarded", "for=198.51.100.66", "x-real-ip", "198.51.100.66", "proxy", "198.51.100.66"),
			"", "200", "X-Forwarded-Proto: https\r\n", "198.51.100.66"},
		{"claims with underscores", get("x_forwarded_for", "198.51.100.66", "x_real_ip", "198.51.100.66", "x.forwarded.host", "198.51.100.66"),
			"", "200", "X-Forwarded-For: 127.0.0.1\r\n", "198.51.100.66"},
		{"early data", get("early-data", "1"), "", "200", "Early-Data: 1\r\n", ""},
		{"another host", with(":authority", "other"), "", "421", "", ""},
		{"a long target", with(":path", "/"+strings.Repeat("x", 2000)), "", "414", "", ""},
		{"many fields", get(strings.Split(strings.Repeat("a,b,", 30), ",")[:60]...), "", "431", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, echoApp(t), func(c *revproxy.Config) { c.MaxTargetBytes, c.MaxFields, c.Hosts = 1000, 20, []string{"x", "y"} })
			c := dialH2(t, serveTLS(t, p, true))
			c.ask(1, tt.body == "", tt.fields...)
			if tt.body != "" {
				c.finish(1, tt.body)
			}
			a := c.answer(1)
			if status := a.fields[":status"]; tt.status != status && (tt.status != "" || status != "" && status != "400") {
				t.Errorf("status %q, reset is %t with %d; want %q", status, a.reset, a.code, tt.status)
			}
			if !strings.Contains(a.body, tt.saw) || tt.not != "" && strings.Contains(a.body, tt.not) {
				t.Errorf("the app saw %q; want %q in it and not %q", a.body, tt.saw, tt.not)
			}
		})
	}
}

// TestHTTP2TwoLengths: of two lengths that differ none is passed on beside the other.
func TestHTTP2TwoLengths(t *testing.T) {
	t.Parallel()
	c := dialH2(t, serveTLS(t, newProxy(t, echoApp(t), nil), true))
	c.ask(1, false, get("content-length", "3", "content-length", "2")...)
	c.finish(1, "abc")
	if a := c.answer(1); a.whole && (strings.Count(a.body, "Content-Length") != 1 || !strings.HasSuffix(a.body, "\r\n\r\nabc")) {
		t.Errorf("%v, the app saw %q", a.fields, a.body)
	}
}

// TestHTTP2Floods: a client that sends fields without end, or more requests than it may
// have, ends its connection or is refused, and the app hears of no more than it may.
func TestHTTP2Floods(t *testing.T) {
	t.Parallel()
	t.Run("fields without end", func(t *testing.T) {
		t.Parallel()
		c := dialH2(t, serveTLS(t, newProxy(t, echoApp(t), nil), true))
		junk := c.block("a", strings.Repeat("b", 16000))
		err := c.send(h2Headers, 0, 1, c.block(get()...))
		sent := 0
		for ; err == nil && sent < 4000; sent++ { // 64 MB, if nobody minds
			err = c.send(h2Continuation, 0, 1, junk)
		}
		if err == nil {
			t.Errorf("the server took %d frames of fields", sent)
		}
	})
	t.Run("more requests than it may have", func(t *testing.T) {
		t.Parallel()
		const most = 4
		app := newCrowd(t, nil)
		s := unstartedTLS(app.Proxy)
		s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: most}
		s.StartTLS()
		t.Cleanup(s.Close)
		c := dialH2(t, s)
		for stream := uint32(1); stream < 2*most; stream += 2 {
			c.ask(stream, true, get()...)
			<-app.arrived
		}
		c.ask(2*most+1, true, get()...)
		if a := c.answer(2*most + 1); !a.reset || a.code != h2RefusedStream && a.code != h2ProtocolError {
			t.Errorf("one too many: %+v", a)
		}
		if n := c.settings[h2MaxConcurrentStreams]; n != most {
			t.Errorf("%d streams are announced", n)
		}
		select {
		case <-app.arrived:
			t.Error("the app was asked by one more")
		default:
		}
		for range most {
			app.answer <- struct{}{}
		}
	})
}

// TestNoWebSocketOverHTTP2: extended CONNECT (RFC 8441) is not offered, so that clients
// use HTTP/1.1 for it. TestHTTP2Requests has what becomes of it if asked for.
func TestNoWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
	c := dialH2(t, serveTLS(t, newProxy(t, echoApp(t), nil), true))
	c.ask(1, true, get()...)
	c.answer(1)
	if v := c.settings[h2EnableConnectProtocol]; v != 0 {
		t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d", v)
	}
}

// TestHTTP2CancelReachesTheApp: a client that resets its stream, or goes, ends the app's
// request, whichever protocol the app speaks, and is no failure of the app.
func TestHTTP2CancelReachesTheApp(t *testing.T) {
	t.Parallel()
	for _, h2c := range []bool{false, true} {
		for _, goes := range []bool{false, true} {
			app := newWaitingApp(t, h2c)
			p := newProxy(t, app.url, nil)
			done := make(chan struct{})
			front := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p.ServeHTTP(w, r)
				close(done)
			}), true)
			c := dialH2(t, front)
			c.ask(1, true, get()...)
			<-app.reached
			if goes {
				c.conn.NetConn().Close()
			} else if err := c.send(h2Reset, 0, 1, []byte{0, 0, 0, h2Cancel}); err != nil {
				t.Fatal(err)
			}
			<-app.canceled
			<-done
			if n := p.Counts(); n.ClientGone != 1 || n.AppFailures != 0 {
				t.Errorf("h2c is %t, the client goes is %t: counted as %+v", h2c, goes, n)
			}
		}
	}
}

// A waitingApp answers nobody, and says when its one request is canceled.
type waitingApp struct {
	url               string
	reached, canceled chan struct{}
}

func newWaitingApp(t *testing.T, h2c bool) *waitingApp {
	t.Helper()
	a := &waitingApp{reached: make(chan struct{}), canceled: make(chan struct{})}
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(a.reached)
		<-r.Context().Done()
		close(a.canceled)
	})
	if h2c {
		a.url = startH2C(t, httptest.NewUnstartedServer(h))
	} else {
		a.url = serve(t, h).URL
	}
	return a
}

// TestHTTP2BrokenAnswers: an answer that breaks off resets the stream, and no other.
func TestHTTP2BrokenAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"by length":           "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
		"by chunks":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n",
		"by malformed chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := rawApp(t, func(head string, c net.Conn) {
				if strings.HasPrefix(head, "GET /whole") {
					answer = "HTTP/1.1 204 No Content\r\n\r\n"
				}
				_, _ = io.WriteString(c, answer)
			})
			c := dialH2(t, serveTLS(t, newProxy(t, app, nil), true))
			c.ask(1, true, get()...)
			if a := c.answer(1); !a.reset || a.code != h2InternalError || a.fields[":status"] == "200" && a.body != "half of it" {
				t.Errorf("%+v", a)
			}
			fields := get()
			fields[7] = "/whole"
			c.ask(3, true, fields...)
			if a := c.answer(3); a.fields[":status"] != "204" {
				t.Errorf("the next on the connection: %+v", a)
			}
		})
	}
}
