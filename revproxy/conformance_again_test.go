package revproxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// TestSentAgain: what meets a kept connection that ends without a byte is sent again if
// its method allows it, and once, whatever the client speaks.
func TestSentAgain(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, h2 bool) {
		for method, status := range map[string]int{"GET": 200, "HEAD": 200, "DELETE": 200, "POST": 502, "PATCH": 502} {
			var requests atomic.Int32
			app := rawApp(t, func(_ string, c net.Conn) {
				if requests.Add(1) == 3 {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				if _, err := readHead(bufio.NewReader(c)); err == nil {
					requests.Add(1) // it has seen it, and says nothing
				}
			})
			front := servesBoth(t, newProxy(t, app, nil), h2)
			if res := request(t, front, http.MethodGet, ""); res.StatusCode != http.StatusNoContent {
				t.Errorf("the first: %s", res.Status)
			}
			if res := request(t, front, method, ""); res.StatusCode != status {
				t.Errorf("%s: %s, want %d", method, res.Status, status)
			}
			want := int32(3)
			if status != http.StatusOK {
				want = 2
			}
			if n := requests.Load(); n != want {
				t.Errorf("%s: the app had %d requests, want %d", method, n, want)
			}
		}
	})
}
