package front

import (
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
)

// FuzzNonce: a nonce that is accepted is the one that the query holds.
func FuzzNonce(f *testing.F) {
	f.Add("nonce=000102030405060708090a0b0c0d0e0f10111213")
	f.Add("nonce=%30%30&nonce=;")
	f.Add("a=b&nonce=" + strings.Repeat("F", 40))
	f.Fuzz(func(t *testing.T, query string) {
		nonce, err := nonceOf(query)
		if err != nil {
			if nonce != nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("nonceOf(%q) = %x, %q", query, nonce, err)
			}
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil || len(nonce) != nonceSize || !strings.EqualFold(values.Get("nonce"), hex.EncodeToString(nonce)) {
			t.Fatalf("nonceOf(%q) = %x of %q, %v", query, nonce, values, err)
		}
	})
}

// FuzzReserved: however a path is written, what an app could take for a page of
// the enclave never reaches the app, and everything else does.
func FuzzReserved(f *testing.F) {
	for _, p := range []string{"/enclave", "//enclave/x", "/a/../enclave/config", "/enclave%2fconfig", "/enclaves", "/%65nclave", "/"} {
		f.Add(p)
	}
	reached := false
	front, err := New(Config{
		App: readyApp{}, Log: slog.New(slog.DiscardHandler),
		Proxy: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(target, "/") {
			return // net/http refuses it before us, or it names a host
		}
		reached = false
		front.server.Handler.ServeHTTP(httptest.NewRecorder(), &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}})
		decoded, err := url.PathUnescape(u.EscapedPath())
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean(decoded), "/"), "/")
		if reached == (first == "enclave") {
			t.Fatalf("%q reached the app: %v", target, reached)
		}
	})
}
