package h2_test

import (
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// play is a handler that does what the target says, in the words between slashes.
func play(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	for step := range strings.SplitSeq(strings.Trim(r.URL.Path, "/"), "/") {
		word, arg, _ := strings.Cut(step, "=")
		n, _ := strconv.Atoi(arg)
		switch word {
		case "status":
			w.WriteHeader(n)
		case "write":
			_, err := io.WriteString(w, strings.Repeat("0123456789", n/10+1)[:n])
			if err != nil {
				w.Header().Set(http.TrailerPrefix+"Failed", "yes")
			}
		case "flush":
			_ = control.Flush()
		case "set":
			name, value, _ := strings.Cut(arg, ":")
			w.Header().Add(name, value)
		case "unset":
			w.Header()[arg] = nil
		case "announce":
			w.Header().Add("Trailer", arg)
		case "prefixed":
			w.Header().Set(http.TrailerPrefix+arg, "late")
		case "abort":
			panic(http.ErrAbortHandler)
		case "read":
			b, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%d bytes, %v, trailers %v\n", len(b), err, r.Trailer)
		case "seen":
			fmt.Fprintf(w, "%s %s %s %q %v %d %q\n", r.Method, r.Host, r.RequestURI, r.URL, r.Header, r.ContentLength, r.RemoteAddr)
		}
	}
}

// TestSameAsStock: what a client sees of an answer is what net/http makes of it.
func TestSameAsStock(t *testing.T) {
	t.Parallel()
	requests := map[string][]string{
		"nothing":                      get("GET", "/"),
		"a status":                     get("GET", "/status=404"),
		"a status twice":               get("GET", "/status=201/status=404/write=3"),
		"a small answer":               get("GET", "/write=3"),
		"one flushed":                  get("GET", "/write=3/flush"),
		"nothing, flushed":             get("GET", "/flush"),
		"one in pieces":                get("GET", "/write=3/flush/write=4/flush/flush/write=5"),
		"a chunk to the byte":          get("GET", "/set=Content-Length:16375/write=16375"),
		"one more":                     get("GET", "/set=Content-Length:16376/write=16376"),
		"a page":                       get("GET", "/set=Content-Length:220000/write=220000"),
		"a page of no length":          get("GET", "/write=220000"),
		"HTML":                         get("GET", "/set=Content-Type:text%2fhtml/write=3"),
		"no type wanted":               get("GET", "/unset=Content-Type/write=3"),
		"a coding":                     get("GET", "/set=Content-Encoding:gzip/write=3"),
		"HEAD":                         get("HEAD", "/write=3"),
		"HEAD of nothing":              get("HEAD", "/"),
		"HEAD of a length":             get("HEAD", "/set=Content-Length:7"),
		"204":                          get("GET", "/status=204/write=3"),
		"304":                          get("GET", "/set=Etag:x/set=Content-Length:5/status=304"),
		"early hints":                  get("GET", "/set=Link:x/status=103/status=103/write=3"),
		"trailers":                     get("GET", "/announce=A, B/write=3/set=A:1/set=B:2"),
		"trailers of nothing":          get("GET", "/announce=A/set=A:1"),
		"trailers, flushed":            get("GET", "/announce=A/write=3/flush/set=A:1"),
		"an announced one only":        get("GET", "/announce=A/write=3"),
		"one not announced":            get("GET", "/write=3/flush/prefixed=A"),
		"fields of a connection":       get("GET", "/set=Transfer-Encoding:chunked/write=3"),
		"a field late":                 get("GET", "/status=200/set=A:1/write=3"),
		"a bad value":                  get("GET", "/set=A:b%0d%0ac/set=B:d/write=3"),
		"abort":                        get("GET", "/abort"),
		"abort within":                 get("GET", "/write=3/flush/abort"),
		"what is seen":                 get("GET", "/seen", "a", "1", "a", "2", "x-other", "v"),
		"a query":                      get("GET", "/seen?a=1;b=%zz"),
		"cookies":                      get("GET", "/seen", "cookie", "a=1", "cookie", "b=2"),
		"te":                           get("GET", "/seen", "te", "trailers"),
		"host":                         {":method", "GET", ":scheme", "https", ":path", "/", "host", "y"},
		"options":                      get("OPTIONS", "*"),
		"a length of nothing":          get("POST", "/seen", "content-length", "0"),
		"no authority":                 {":method", "GET", ":scheme", "http", ":path", "/seen"},
		"no path":                      {":method", "GET", ":scheme", "http", ":authority", "x"},
		"an unknown pseudo-header":     append([]string{":what", "x"}, get("GET", "/")...),
		"a pseudo-header twice":        append([]string{":method", "GET"}, get("GET", "/")...),
		"a pseudo-header behind":       {":method", "GET", ":scheme", "http", "a", "b", ":path", "/"},
		"capitals":                     get("GET", "/", "Accept", "x"),
		"a bad name":                   get("GET", "/", "a b", "x"),
		"a line break":                 get("GET", "/", "a", "b\r\nc: d"),
		"userinfo":                     {":method", "GET", ":scheme", "http", ":authority", "u@x", ":path", "/"},
		"a scheme":                     {":method", "GET", ":scheme", "ftp", ":authority", "x", ":path", "/"},
		"extended CONNECT":             append([]string{":protocol", "websocket"}, get("CONNECT", "/")...),
		"CONNECT with a path":          get("CONNECT", "/"),
		"a path without a slash":       get("GET", "x"),
		"an answer's":                  {":status", "200"},
		"a trailer's announcement":     get("GET", "/seen", "trailer", "a, content-length"),
		"an expectation, and nothing":  get("GET", "/seen", "expect", "100-continue"),
		"an expectation, not the kind": get("GET", "/seen", "expect", "more"),
	}
	for name, fields := range requests {
		inBubble(t, name, func(t *testing.T) {
			same(t, func(c *client) { c.ask(1, end, fields...) })
		})
	}
}

// TestBodiesSameAsStock is the same for requests with content.
func TestBodiesSameAsStock(t *testing.T) {
	t.Parallel()
	post := func(c *client, path string, more ...string) { c.ask(1, 0, get("POST", path, more...)...) }
	requests := map[string]func(c *client){
		"a body": func(c *client) {
			post(c, "/read")
			c.send(frame{data, 0, 1, []byte("abc")}, frame{data, end, 1, []byte("def")})
		},
		"of a length": func(c *client) {
			post(c, "/read", "content-length", "3")
			c.send(frame{data, end, 1, []byte("abc")})
		},
		"padded": func(c *client) {
			post(c, "/read")
			c.send(frame{data, padded | end, 1, []byte("\x03abc\x00\x00\x00")})
		},
		"with an empty end": func(c *client) {
			post(c, "/read")
			c.send(frame{data, 0, 1, []byte("abc")}, frame{data, end, 1, nil})
		},
		"trailers": func(c *client) {
			post(c, "/read", "trailer", "a")
			c.send(frame{data, 0, 1, []byte("abc")})
			c.ask(1, end, "a", "1", "b", "2")
		},
		"too long": func(c *client) {
			post(c, "/read", "content-length", "2")
			c.send(frame{data, end, 1, []byte("abc")})
		},
		"too much padding": func(c *client) {
			post(c, "/read")
			c.send(frame{data, padded | end, 1, []byte("\x09abc")})
		},
		"trailers that do not end": func(c *client) {
			post(c, "/read")
			c.ask(1, 0, "a", "1")
		},
		"trailers with pseudo-headers": func(c *client) {
			post(c, "/read")
			c.ask(1, end, ":path", "/")
		},
		"an expectation": func(c *client) {
			post(c, "/read", "expect", "100-continue")
			c.send(frame{data, end, 1, []byte("abc")})
		},
		"nobody reads":                   func(c *client) { post(c, "/write=3") },
		"nobody reads what is hoped for": func(c *client) { post(c, "/write=3", "expect", "100-continue") },
	}
	for name, play := range requests {
		inBubble(t, name, func(t *testing.T) { same(t, play) })
	}
}

// same plays a request to both servers.
func same(t *testing.T, request func(*client)) {
	t.Helper()
	outcome := func(stock bool) answer {
		c := dial(t, setup{stock: stock}, play)
		request(c)
		return c.answer(1)
	}
	if ours, theirs := outcome(false), outcome(true); !reflect.DeepEqual(ours, theirs) {
		t.Errorf("ours:  %.500v\nstock: %.500v", ours, theirs)
	}
}
