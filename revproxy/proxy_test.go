package revproxy_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := []struct {
		name   string
		config revproxy.Config
		want   string
	}{
		{"no app", revproxy.Config{Log: log}, "no app"},
		{"https", revproxy.Config{Apps: []*url.URL{parse("https://127.0.0.1")}, Log: log}, "none of"},
		{"no host", revproxy.Config{Apps: []*url.URL{parse("http://:80")}, Log: log}, "none of"},
		{"no path", revproxy.Config{Apps: []*url.URL{parse("unix:")}, Log: log}, "none of"},
		{"a path", revproxy.Config{Apps: []*url.URL{parse("http://a/b")}, Log: log}, "more than"},
		{"a user", revproxy.Config{Apps: []*url.URL{parse("http://u@a")}, Log: log}, "more than"},
		{"no logger", revproxy.Config{Apps: []*url.URL{parse("http://a")}}, "no logger"},
		{"negative", revproxy.Config{Apps: []*url.URL{parse("http://a")}, Log: log, MaxConcurrent: -1}, "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := revproxy.New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("New says %v; want %q in it", err, tt.want)
			}
		})
	}
}

func TestTargetsArePassedOnByteByByte(t *testing.T) {
	t.Parallel()
	app := rawApp(t, func(head string, c net.Conn) {
		line, _, _ := strings.Cut(head, "\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(line), line)
	})
	front := serve(t, newProxy(t, app, nil))
	for _, target := range []string{
		"/", "/?", "/a?a=1;b=2&c=3", "/a?%zz&=&&", "/a%2Fb/../c/./", "/a%2fb%7Ec~", "/|^{}`<>\"", "/\xc3\xa9\xff?\xff",
		"//double/slash", "/a//b", "/:80", "/?a=b?c=d", "/%41", "///", "//?", "/a#b?c#d",
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			res := speak(t, dial(t, front), "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if got, want := body(t, res), "GET "+target+" HTTP/1.1"; got != want {
				t.Errorf("the app saw %q; want %q", got, want)
			}
		})
	}
}

// A told is a connection that is not TCP, such as a stream from a host, whose client
// somebody has told.
type told struct{ net.Conn }

func (told) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 9} }

func (told) LocalAddr() net.Addr { return &net.UnixAddr{Name: "vsock:16:1443", Net: "vsock"} }

type tellingListener struct{ net.Listener }

func (l tellingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return told{c}, err
}

// What the app is told about the client by hearsay, it is told so, whichever way
// the request takes, and no client can say it.
func TestHearsayIsMarked(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Asserted"])
	}))
	for _, telling := range []bool{false, true} {
		want := "[127.0.0.1] []"
		s := httptest.NewUnstartedServer(newProxy(t, app.URL, nil))
		if telling {
			want = "[192.0.2.7] [for]"
			s.Listener = tellingListener{s.Listener}
		}
		withLane(t, s)
		s.Start()
		t.Cleanup(s.Close)
		for _, version := range []string{"1.0", "1.1"} { // the lane leaves 1.0 alone
			res := speak(t, dial(t, s), "GET / HTTP/"+version+"\r\nHost: x\r\nX-Forwarded-Asserted: x\r\nX_Forwarded_Asserted: y\r\n\r\n")
			if got := body(t, res); got != want {
				t.Errorf("HTTP/%s: %s, want %s", version, got, want)
			}
		}
	}
}

func TestForwardingFields(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for field, values := range r.Header {
			w.Header().Set("Saw-"+field, strings.Join(values, "|"))
		}
		w.Header().Set("Saw-Host", r.Host)
	}))
	p := newProxy(t, app.URL, nil)
	claims := []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Ssl", "X-Forwarded-Anything",
		"Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP", "X-Request-ID", "CF-Connecting-IP", "X_Forwarded_For", "X_Real-IP",
		"X.Forwarded.For", "X~Forwarded-Host", "True!Client+IP", "WL-Proxy-Client-IP", "Proxy",
	}
	tests := []struct {
		name, url, remote string
		want              map[string]string // of the fields that say where a request comes from: exactly these
	}{
		{"an IPv4 client", "http://example.com:81/", "192.0.2.7:999", map[string]string{
			"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.com:81",
			"Forwarded": `for=192.0.2.7;host="example.com:81";proto=http`}},
		{"an IPv6 client over TLS", "https://example.com/", "[2001:db8::1%eth0]:999", map[string]string{
			"X-Forwarded-For": "2001:db8::1", "X-Real-Ip": "2001:db8::1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com",
			"Forwarded": `for="[2001:db8::1]";host="example.com";proto=https`}},
		{"an IPv4 client on an IPv6 socket", "http://h/", "[::ffff:192.0.2.7]:1", map[string]string{
			"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "h",
			"Forwarded": `for=192.0.2.7;host="h";proto=http`}},
		{"a VSOCK client", "http://h/", "vsock:3:99", map[string]string{
			"X-Forwarded-Proto": "http", "X-Forwarded-Host": "h", "Forwarded": `host="h";proto=http`}},
		{"a unix client", "http://h/", "@", map[string]string{
			"X-Forwarded-Proto": "http", "X-Forwarded-Host": "h", "Forwarded": `host="h";proto=http`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
			r.RemoteAddr = tt.remote
			for _, claim := range claims {
				r.Header[claim] = []string{"198.51.100.66"}
			}
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			got := map[string]string{}
			for field, values := range w.Header() {
				name, ok := strings.CutPrefix(field, "Saw-")
				if !ok {
					continue
				}
				if strings.Contains(values[0], "198.51.100.66") {
					t.Errorf("the app believes %s: %s", name, values[0])
				}
				if name == "X-Request-Id" && len(values[0]) < 20 {
					t.Errorf("request id %q", values[0])
				}
				if (strings.HasPrefix(name, "X-") && name != "X-Request-Id") || name == "Forwarded" {
					got[name] = values[0]
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("the app saw %v; want %v", got, tt.want)
			}
			if host := w.Header().Get("Saw-Host"); host != r.Host {
				t.Errorf("the app saw Host %q; want %q", host, r.Host)
			}
			if via := w.Header().Get("Saw-Via"); !strings.HasPrefix(via, "1.1 corridor (") {
				t.Errorf("the app saw Via %q", via)
			}
		})
	}
}

func TestMaxForwards(t *testing.T) {
	t.Parallel()
	front, _ := appFunc(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Saw", r.Header.Get("Max-Forwards")) })
	for sent, want := range map[string]string{"0": "", "1": "0", "70": "69", "x": "x"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, front.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Max-Forwards", sent)
		res, err := front.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Saw"); got != want || (sent == "0") != (res.StatusCode == http.StatusNoContent) {
			t.Errorf("Max-Forwards %s: %s, the app saw %q; want %q", sent, res.Status, got, want)
		}
	}
}
