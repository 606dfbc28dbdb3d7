package openloop_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/bench/openloop"
)

// TestRefusalsKeepTheConnection: who is refused asks again on the connection, unless the
// server ends it. An overload is not one of connecting.
func TestRefusalsKeepTheConnection(t *testing.T) {
	t.Parallel()
	for ends, want := range map[bool]int{false: 1, true: 1000} {
		synctest.Test(t, func(t *testing.T) {
			l, stop := serve(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(time.Millisecond)
				if ends {
					w.Header().Set("Connection", "close")
				}
				http.Error(w, "not now", http.StatusServiceUnavailable)
			})
			defer stop()
			to, dialled := target(l), 0
			to.Dial = func(ctx context.Context) (net.Conn, error) {
				dialled++
				return l.dial(ctx)
			}
			r, err := openloop.Run(t.Context(), to, openloop.Load{Connections: 1, Duration: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if n := r.Failures[openloop.BadStatus]; n < 990 || dialled > want || dialled < want-10 {
				t.Errorf("the server ends connections is %t: %d refused, %d connections; want about %d", ends, n, dialled, want)
			}
		})
	}
}
