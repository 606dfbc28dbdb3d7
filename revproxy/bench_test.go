package revproxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

// rawAnswerer is an app that costs next to nothing.
func rawAnswerer(b *testing.B) *url.URL {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var conns sync.WaitGroup
	b.Cleanup(func() { l.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if _, err := readHead(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello, world")
				}
			})
		}
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

// BenchmarkSmallGET is one small exchange without a client's connection: the
// proxy, the way to the app, and back. Stock is net/http/httputil's ReverseProxy
// with idle connections enough, which forwards but does little of what a gateway must.
func BenchmarkSmallGET(b *testing.B) {
	app := rawAnswerer(b)
	stock := httputil.NewSingleHostReverseProxy(app)
	tuned := &http.Transport{MaxIdleConnsPerHost: 500, DisableCompression: true}
	defer tuned.CloseIdleConnections()
	stock.Transport = tuned
	type way struct {
		name string
		http.Handler
	}
	ways := []way{{"stock", stock}}
	for name, netHTTP := range map[string]bool{"nethttp": true, "upstream": false} {
		p, err := revproxy.New(revproxy.Config{Apps: []*url.URL{app}, Log: discard(), NetHTTP: netHTTP})
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		ways = append(ways, way{name, p})
	}
	for _, h := range ways {
		b.Run(h.name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context()) // as a server's context, it can end
			defer cancel()
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/path?query", nil)
			r.Header.Set("User-Agent", "benchmark")
			r.Header.Set("Accept", "*/*")
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
