package revproxy_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// TestAppThatTakesNothing: an app that accepts connections and does not read holds no
// request for longer than an app that does not answer.
func TestAppThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*revproxy.Config){
		"all of it": func(c *revproxy.Config) { c.RequestTimeout = 50 * time.Millisecond },
		"its answer": func(c *revproxy.Config) {
			c.ResponseHeaderTimeout, c.ResponseBodyTimeout = 50*time.Millisecond, 50*time.Millisecond
		},
	} {
		t.Run("a limit of "+name, func(t *testing.T) {
			t.Parallel()
			// Buffers so small that they hold no request that the fast lane takes.
			small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
			}}
			app, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { app.Close() })
			p := newProxy(t, "http://"+app.Addr().String(), func(c *revproxy.Config) {
				change(c)
				c.Dial = func(ctx context.Context) (net.Conn, error) {
					conn, err := new(net.Dialer).DialContext(ctx, "tcp", app.Addr().String())
					if err == nil {
						err = conn.(*net.TCPConn).SetWriteBuffer(1)
					}
					return conn, err
				}
			})
			c := dial(t, serve(t, p))
			res := speak(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 15000\r\n\r\n"+strings.Repeat("x", 15000))
			if res.StatusCode != http.StatusGatewayTimeout || p.Counts().Causes[revproxy.ResponseTimeout] != 1 {
				t.Errorf("%s, %+v", res.Status, p.Counts())
			}
		})
	}
}
