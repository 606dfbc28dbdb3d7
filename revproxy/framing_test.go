package revproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

// echoApp answers with the request as it came: its head, an empty line, its body.
func echoApp(t *testing.T) string {
	t.Helper()
	return rawApp(t, func(head string, c net.Conn) {
		content := readBody(head, c)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s%s", len(head)+len(content), head, content)
	})
}

func readBody(head string, rest io.Reader) string {
	req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), rest)))
	if err != nil {
		return err.Error()
	}
	content, err := io.ReadAll(req.Body)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// TestFraming: what a client may send so that two readers of its bytes disagree
// on where a message ends.
func TestFraming(t *testing.T) {
	t.Parallel()
	const post, chunked = "POST / HTTP/1.1\r\nHost: x\r\n", "Transfer-Encoding: chunked\r\n\r\n"
	tests := []struct {
		name, request string
		status        int
		closes        bool
		saw, not      string // in what the app saw
	}{
		{"length and chunks", post + "Content-Length: 3\r\n" + chunked + "1\r\nx\r\n0\r\n\r\n", 200, true, "\r\n\r\nx", "Content-Length"},
		{"chunks", post + chunked + "1\r\nx\r\n0\r\n\r\n", 200, laneIsOff(), "\r\n\r\nx", "Content-Length"},
		{"chunks in HTTP/1.0", "POST / HTTP/1.0\r\nConnection: keep-alive\r\n" + chunked + "0\r\n\r\n", 200, true, "POST / HTTP/1.1", "Transfer-Encoding"},
		{"unknown coding", post + "Transfer-Encoding: gzip\r\n\r\n", 501, true, "", ""},
		{"chunked is not the last coding", post + "Transfer-Encoding: chunked, gzip\r\n\r\n", 501, true, "", ""},
		{"two codings in two fields", post + "Transfer-Encoding: gzip\r\n" + chunked, 501, true, "", ""},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400, true, "", ""},
		{"a list of lengths", post + "Content-Length: 1, 2\r\n\r\nxx", 400, true, "", ""},
		{"a signed length", post + "Content-Length: +1\r\n\r\nx", 400, true, "", ""},
		{"a negative length", post + "Content-Length: -1\r\n\r\n", 400, true, "", ""},
		{"an empty length", post + "Content-Length:\r\n\r\n", 400, true, "", ""},
		{"one length twice", post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 200, false, "Content-Length: 1\r\n", "Content-Length: 1, 1"},
		{"a chunk size with a sign", post + chunked + "+1\r\nx\r\n0\r\n\r\n", 400, true, "", ""},
		{"a chunk size with 0x", post + chunked + "0x1\r\nx\r\n0\r\n\r\n", 400, true, "", ""},
		{"a chunk size with a space before", post + chunked + " 1\r\nx\r\n0\r\n\r\n", 400, true, "", ""},
		{"a chunk size too large", post + chunked + "fffffffffffffffff\r\nx\r\n0\r\n\r\n", 400, true, "", ""},
		{"no chunk size", post + chunked + "\r\nx\r\n0\r\n\r\n", 400, true, "", ""},
		{"a chunk longer than it says", post + chunked + "1\r\nxy\r\n0\r\n\r\n", 400, true, "", ""},
		{"an endless chunk extension", post + chunked + "1;" + strings.Repeat("x", 5000) + "\r\nx\r\n0\r\n\r\n", 400, true, "", ""},
		{"a chunk extension", post + chunked + "1;a=b\r\nx\r\n0\r\n\r\n", 200, laneIsOff(), "\r\n\r\nx", "a=b"},
		{"a trailer that is no field", post + chunked + "0\r\nno field\r\n\r\n", 400, true, "", ""},
		{"a trailer that ends in LF", post + chunked + "0\r\nA: b\nC: d\r\n\r\n", 200, true, "", ""},
		{"GET with a body", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 200, false, "Content-Length: 1\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			res := speak(t, dial(t, serve(t, newProxy(t, echoApp(t), nil))), tt.request)
			saw := body(t, res)
			if res.StatusCode != tt.status || res.Close != tt.closes {
				t.Errorf("%s, close %t; want %d and %t", res.Status, res.Close, tt.status, tt.closes)
			}
			if !strings.Contains(saw, tt.saw) || (tt.not != "" && strings.Contains(saw, tt.not)) {
				t.Errorf("the app saw %q; want %q in it and not %q", saw, tt.saw, tt.not)
			}
		})
	}
}

func TestHeads(t *testing.T) {
	t.Parallel()
	get := func(fields string) string { return "GET / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n" }
	tests := []struct {
		name, request string
		status        int
		saw, not      string // in what the app saw
	}{
		{"NUL", get("A: \x00\r\n"), 400, "", ""},
		{"a bare CR", get("A: b\rc\r\n"), 400, "", ""},
		{"a space before the colon", get("A : b\r\n"), 400, "", ""},
		{"an empty name", get(": b\r\n"), 400, "", ""},
		{"a name with a slash", get("A/b: c\r\n"), 400, "", ""},
		{"a space before the first field", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, "", ""},
		{"a folded field", get("A: b\r\n c\r\n"), 200, "A: b c\r\n", "\r\n c"},
		{"an empty line first", "\r\n" + get(""), 400, "", ""},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400, "", ""},
		{"two hosts", get("Host: y\r\n"), 400, "", ""},
		{"a host with a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "", ""},
		{"the target's host counts", "GET http://a//b;c?d;e HTTP/1.1\r\nHost: b\r\n\r\n", 200, "GET //b;c?d;e HTTP/1.1\r\nHost: a\r\n", ""},
		{"a target without a path", "GET http://a?b HTTP/1.1\r\nHost: b\r\n\r\n", 200, "GET /?b HTTP/1.1\r\nHost: a\r\n", ""},
		{"a target of a host alone", "GET http://a HTTP/1.1\r\nHost: b\r\n\r\n", 200, "GET / HTTP/1.1\r\nHost: a\r\n", ""},
		{"an asterisk", "GET * HTTP/1.1\r\nHost: b\r\n\r\n", 400, "", ""},
		{"OPTIONS of the server", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200, "", "OPTIONS"},
		{"HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n", 200, "Host: 127.0.0.1:", ""},
		{"a long target", "GET /" + strings.Repeat("x", 2000) + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "", ""},
		{"many fields", get(strings.Repeat("A: b\r\n", 30)), 431, "", ""},
		{"a head too large", get("A: " + strings.Repeat("x", 20<<10) + "\r\n"), 431, "", ""},
		{"another host", "GET / HTTP/1.1\r\nHost: other\r\n\r\n", 421, "", ""},
		{"a host in another form", "GET / HTTP/1.1\r\nHost: X.:81\r\n\r\n", 200, "Host: X.:81", ""},
		{"what Connection names", get("Connection: A, keep-alive\r\nA: b\r\nKeep-Alive: c\r\nTE: gzip\r\nProxy-Authorization: d\r\nProxy-Connection: e\r\nB: f\r\n"),
			200, "B: f\r\n", "A: b"},
		{"an upgrade that Connection does not name", get("Upgrade: websocket\r\n"), 200, "", "Upgrade"},
		{"a trailer's consent", get("TE: trailers, deflate\r\n"), 200, "Te: trailers\r\n", "deflate"},
		{"the way so far", get("Via: 1.1 a\r\n"), 200, "Via: 1.1 a\r\nVia: 1.1 corridor (", ""},
		{"no agent", get(""), 200, "", "User-Agent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, echoApp(t), func(c *revproxy.Config) {
				c.MaxTargetBytes, c.MaxFields, c.Hosts = 1000, 20, []string{"x", "A", "b", "127.0.0.1"}
				if strings.Contains(tt.request, "HTTP/1.0") {
					c.Hosts = nil
				}
			})
			front := httptest.NewUnstartedServer(p)
			front.Config.MaxHeaderBytes = 8 << 10
			withLane(t, front)
			front.Start()
			t.Cleanup(front.Close)
			res := speak(t, dial(t, front), tt.request)
			saw := body(t, res)
			if res.StatusCode != tt.status {
				t.Errorf("%s; want %d", res.Status, tt.status)
			}
			if !strings.Contains(saw, tt.saw) || (tt.not != "" && strings.Contains(saw, tt.not)) {
				t.Errorf("the app saw %q; want %q in it and not %q", saw, tt.saw, tt.not)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const asks = "GET / HTTP/1.1\r\nHost: x\r\n"
	tests := []struct {
		name, request, answer string
		status                int
		field, value, body    string
	}{
		{"what Connection names", asks, "HTTP/1.1 200 OK\r\nConnection: A\r\nA: b\r\nContent-Length: 0\r\n\r\n", 200, "A", "", ""},
		{"another field", asks, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n", 200, "A", "b", ""},
		{"no content", asks, "HTTP/1.1 204 No Content\r\n\r\nabc", 204, "Content-Length", "", ""},
		{"not modified", asks, "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 3\r\n\r\n", 304, "Etag", `"x"`, ""},
		{"a date of its own", asks, "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n", 200, "Date", "then", ""},
		{"no content type", asks, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html", 200, "A", "", "<html"},
		{"an invalid field", asks, "HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n\r\n", 200, "A b", "", ""},
		{"a field with a line break in it", asks, "HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\nContent-Length: 0\r\n\r\n", 502, "Proxy-Status", "corridor; error=http_protocol_error", "*"},
		{"two lengths", asks, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 502, "Proxy-Status", "corridor; error=http_protocol_error", "*"},
		{"an unknown coding", asks, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 502, "Proxy-Status", "corridor; error=http_protocol_error", "*"},
		{"a status below 100", asks, "HTTP/1.1 099 Odd\r\n\r\n", 502, "Proxy-Status", "corridor; error=http_protocol_error", "*"},
		{"an unasked switch", asks, "HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, "Proxy-Status", "corridor; error=http_upgrade_failed", "*"},
		{"an unasked switch to something", asks, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 502, "Proxy-Status", "corridor; error=http_upgrade_failed", "*"},
		{"a switch to something else", asks + "Connection: Upgrade\r\nUpgrade: y\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
			502, "Proxy-Status", "corridor; error=http_upgrade_failed", "*"},
		{"no switch", asks + "Connection: Upgrade\r\nUpgrade: y\r\n", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", 426, "A", "", ""},
	}
	for _, netHTTP := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, net/http is %t", tt.name, netHTTP), func(t *testing.T) {
				t.Parallel()
				app := rawApp(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, tt.answer) })
				front := serve(t, newProxy(t, app, func(c *revproxy.Config) { c.NetHTTP = netHTTP }))
				res := speak(t, dial(t, front), tt.request+"\r\n")
				content := body(t, res)
				if res.StatusCode != tt.status || res.Header.Get(tt.field) != tt.value || (tt.body != "*" && content != tt.body) {
					t.Errorf("%s, %v, %q", res.Status, res.Header, content)
				}
				if res.Header.Get("Date") == "" {
					t.Error("no date")
				}
			})
		}
	}
}
