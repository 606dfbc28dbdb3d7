package h2_test

import (
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A guarded connection has a minute for each write, as the enclave's front gives it.
type guarded struct{ net.Conn }

func (g guarded) Write(p []byte) (int, error) {
	_ = g.SetWriteDeadline(time.Now().Add(time.Minute))
	return g.Conn.Write(p)
}

// TestByteAMinute: who sends or takes a byte a minute has the time that one has who does
// nothing at all.
func TestByteAMinute(t *testing.T) {
	t.Parallel()
	slowly := func(c *client, bytes []byte) {
		for i := range bytes {
			c.write(bytes[i : i+1])
			<-time.After(time.Minute)
		}
	}
	sends := map[string]struct {
		begin func(c *client) (rest []byte)
		took  time.Duration
	}{
		"the preface": {func(*client) []byte { return []byte(clientPreface) }, 10 * time.Second},
		"a frame": {func(c *client) []byte {
			c.write([]byte(clientPreface))
			c.send(frame{kind: settings})
			return frame{headers, end | endHeaders, 1, c.encode(get("GET", "/")...)}.bytes()
		}, 45 * time.Second}, // PING after 30, and 15 for the answer
	}
	for name, tt := range sends {
		inBubble(t, "sends "+name, func(t *testing.T) {
			c := dial(t, setup{nothing: true, more: func(s *http.Server) {
				s.ReadHeaderTimeout, s.HTTP2.SendPingTimeout = 10*time.Second, 30*time.Second
			}}, func(http.ResponseWriter, *http.Request) { t.Error("the handler was asked") })
			begin := time.Now()
			go slowly(c, tt.begin(c))
			c.ended()
			if took := time.Since(begin); took != tt.took {
				t.Errorf("closed after %s; want %s", took, tt.took)
			}
			<-time.After(time.Hour)
		})
	}
	inBubble(t, "sends content", func(t *testing.T) {
		c := dial(t, setup{}, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(30 * time.Second))
			for buf := make([]byte, 10); ; {
				if _, err := r.Body.Read(buf); err != nil {
					w.WriteHeader(http.StatusRequestTimeout)
					return
				}
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(30 * time.Second))
			}
		})
		begin := time.Now()
		c.ask(1, 0, get("POST", "/")...)
		c.send(frame{data, 0, 1, []byte("x")})
		if a, took := c.answer(1), time.Since(begin); a.status() != "408" || took != 30*time.Second {
			t.Errorf("%+v after %s", a, took)
		}
	})
	inBubble(t, "takes the answer", takesAByteAMinute)
}

// takesAByteAMinute answers PINGs that it has not come to yet.
func takesAByteAMinute(t *testing.T) {
	var written atomic.Int64
	failed := make(chan struct{})
	c := dial(t, setup{
		more: func(s *http.Server) { s.HTTP2.SendPingTimeout = 30 * time.Second },
		wrap: func(c net.Conn) net.Conn { return guarded{c} },
	}, func(w http.ResponseWriter, _ *http.Request) {
		defer close(failed)
		for {
			n, err := w.Write(make([]byte, 4096))
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	synctest.Wait()
	c.stop()
	begin := time.Now()
	c.ask(1, end, get("GET", "/")...)
	stop := make(chan struct{})
	go func() {
		for one := make([]byte, 1); ; {
			<-time.After(time.Minute)
			if _, err := io.ReadFull(c.conn, one); err != nil {
				close(stop)
				return
			}
		}
	}()
	go func() {
		for {
			c.send(frame{ping, ack, 0, []byte("corridor")})
			select {
			case <-time.After(10 * time.Second):
			case <-stop:
				return
			}
		}
	}()
	<-failed
	<-stop
	if took := time.Since(begin); took > 3*time.Minute {
		t.Errorf("served for %s", took)
	}
	if n := written.Load(); n > 1<<20 {
		t.Errorf("%d bytes were taken of the handler", n)
	}
}
