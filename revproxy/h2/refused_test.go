package h2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestStricterThanStock: what RFC 9113 calls malformed and net/http lets pass.
func TestStricterThanStock(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"connection":                   get("GET", "/", "connection", "close"),
		"keep-alive":                   get("GET", "/", "keep-alive", "5"),
		"transfer-encoding":            get("GET", "/", "transfer-encoding", "chunked"),
		"te":                           get("GET", "/", "te", "gzip"),
		"another host":                 get("GET", "/", "host", "y"),
		"an absolute path":             get("GET", "http://y/"),
		"a length that is no number":   get("POST", "/", "content-length", "+1"),
		"two lengths":                  get("POST", "/", "content-length", "1", "content-length", "1"),
		"a length and no content":      get("POST", "/", "content-length", "1"),
		"a method that is not a token": get("G T", "/"),
	}
	for name, fields := range tests {
		inBubble(t, name, func(t *testing.T) {
			c := dial(t, setup{}, func(http.ResponseWriter, *http.Request) { t.Error("the handler was asked") })
			c.ask(1, end, fields...)
			if a := c.answer(1); a.reset != protocol {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestConnectionErrors: what ends a connection, and what it is told.
func TestConnectionErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		send func(c *client)
		code uint32
	}{
		"DATA on no stream":       {func(c *client) { c.send(frame{data, 0, 0, nil}) }, protocol},
		"DATA on an idle stream":  {func(c *client) { c.send(frame{data, 0, 1, nil}) }, protocol},
		"an even stream":          {func(c *client) { c.ask(2, end, get("GET", "/")...) }, protocol},
		"CONTINUATION alone":      {func(c *client) { c.send(frame{continuation, 0, 1, nil}) }, protocol},
		"a block interrupted":     {func(c *client) { c.send(frame{headers, 0, 1, nil}, frame{ping, 0, 0, make([]byte, 8)}) }, protocol},
		"a bad block":             {func(c *client) { c.send(frame{headers, endHeaders, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff}}) }, compression},
		"a long frame":            {func(c *client) { c.send(frame{data, 0, 1, make([]byte, 16385)}) }, frameSize},
		"a short PING":            {func(c *client) { c.send(frame{ping, 0, 0, nil}) }, frameSize},
		"a short PRIORITY within": {func(c *client) { c.send(frame{headers, endHeaders | withPriority, 1, []byte{1}}) }, frameSize},
		"PUSH_PROMISE":            {func(c *client) { c.send(frame{push, 0, 1, nil}) }, protocol},
		"an ACK too many":         {func(c *client) { c.send(frame{settings, ack, 0, nil}, frame{settings, ack, 0, nil}) }, protocol},
		"a large window":          {func(c *client) { c.send(frame{window, 0, 0, number(1)}) }, flow},
		"no window":               {func(c *client) { c.send(frame{window, 0, 0, number(0)}) }, protocol},
		"a bad setting":           {func(c *client) { c.send(frame{settings, 0, 0, setting(4, 1<<31)}) }, flow},
		"many settings":           {func(c *client) { c.send(frame{settings, 0, 0, bytes.Repeat(setting(99, 1), 101)}) }, calm},
		"a stream that went down": {func(c *client) { c.ask(3, end, get("GET", "/")...); c.ask(1, end, get("GET", "/")...) }, streamClosed},
		"more than the window": {func(c *client) {
			c.ask(1, 0, get("POST", "/wait")...)
			for range 1<<20/16384 + 1 {
				c.send(frame{data, 0, 1, make([]byte, 16384)})
			}
		}, flow},
	}
	for name, tt := range tests {
		inBubble(t, name, func(t *testing.T) {
			c := dial(t, setup{}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			go tt.send(c)
			if code := c.ended(); code != tt.code {
				t.Errorf("GOAWAY %d; want %d", code, tt.code)
			}
		})
	}
}

// TestFloods: what a client sends without end ends the connection, or waits; nothing
// grows meanwhile.
func TestFloods(t *testing.T) {
	t.Parallel()
	forever := func(send func(c *client, id uint32)) func(c *client) {
		return func(c *client) {
			for id := uint32(1); id < 30_001; id += 2 {
				send(c, id)
			}
		}
	}
	open := get("GET", "/")
	tests := map[string]func(c *client){
		"PING":        forever(func(c *client, _ uint32) { c.send(frame{ping, 0, 0, make([]byte, 8)}) }),
		"SETTINGS":    forever(func(c *client, _ uint32) { c.send(frame{settings, 0, 0, nil}) }),
		"PRIORITY":    forever(func(c *client, id uint32) { c.send(frame{priority, 0, id + 2, make([]byte, 5)}) }),
		"unknown":     forever(func(c *client, _ uint32) { c.send(frame{99, 0, 0, nil}) }),
		"rapid reset": forever(func(c *client, id uint32) { c.ask(id, end, open...); c.send(frame{reset, 0, id, number(8)}) }),
		"made you reset": forever(func(c *client, id uint32) {
			c.ask(id, end, open...)
			c.send(frame{window, 0, id, number(0)})
		}),
		"malformed": forever(func(c *client, id uint32) { c.ask(id, end, "a", "b") }),
		"empty DATA": func(c *client) {
			c.ask(1, 0, get("POST", "/")...)
			forever(func(c *client, _ uint32) { c.send(frame{data, 0, 1, nil}) })(c)
		},
		"CONTINUATION": func(c *client) {
			c.send(frame{headers, 0, 1, c.encode(open...)})
			forever(func(c *client, _ uint32) { c.send(frame{continuation, 0, 1, nil}) })(c)
		},
		"long CONTINUATION": func(c *client) {
			c.send(frame{headers, 0, 1, c.encode(open...)})
			forever(func(c *client, _ uint32) { c.send(frame{continuation, 0, 1, c.encode("x", strings.Repeat("x", 9000))}) })(c)
		},
	}
	for name, send := range tests {
		inBubble(t, name, func(t *testing.T) {
			var handlers, most atomic.Int32
			c := dial(t, setup{}, func(_ http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), handlers.Add(1)))
				<-r.Context().Done()
				<-time.After(time.Minute) // it takes its time
				handlers.Add(-1)
			})
			go send(c)
			if code := c.ended(); code != calm {
				t.Errorf("GOAWAY %d", code)
			}
			if most.Load() > 250 {
				t.Errorf("%d handlers at a time", most.Load())
			}
			<-time.After(5 * time.Minute)
		})
	}
}

// TestUnreadPings: whoever does not read what he asks for is not read either.
func TestUnreadPings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := dial(t, setup{}, func(http.ResponseWriter, *http.Request) {})
		synctest.Wait()
		c.stop()
		var sent atomic.Int32
		go func() {
			for range 9000 {
				c.send(frame{ping, 0, 0, make([]byte, 8)})
				sent.Add(1)
			}
		}()
		synctest.Wait()
		if n := sent.Load(); n*17 > 128<<10 {
			t.Errorf("%d PINGs were taken", n)
		}
	})
}

// TestSlowReader: a client that opens no window costs a bounded number of bytes, and
// its handlers notice when it leaves.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var written atomic.Int64
		failed := make(chan error, 250)
		c := dial(t, setup{hush: true}, func(w http.ResponseWriter, _ *http.Request) {
			for {
				n, err := w.Write(make([]byte, 4096))
				written.Add(int64(n))
				if err != nil {
					failed <- err
					return
				}
			}
		})
		for id := range uint32(250) {
			c.ask(2*id+1, end, get("GET", "/")...)
		}
		synctest.Wait()
		if n := written.Load(); n > 65535+2<<20+250<<14 {
			t.Errorf("%d bytes were taken for a client that takes 65535", n)
		}
		c.conn.Close()
		for range 250 {
			if err := <-failed; err == nil {
				t.Error("a handler wrote everything")
			}
		}
	})
}

// TestLimits: the lists of fields, and the streams.
func TestLimits(t *testing.T) {
	t.Parallel()
	inBubble(t, "a long list", func(t *testing.T) {
		c := dial(t, setup{more: func(s *http.Server) { s.MaxHeaderBytes = 1000 }}, play)
		c.ask(1, end, get("GET", "/", "x", strings.Repeat("x", 1000), "y", strings.Repeat("x", 500))...)
		if a := c.answer(1); a.status() != "431" {
			t.Errorf("%+v", a)
		}
		c.ask(3, end, get("GET", "/")...)
		if a := c.answer(3); a.status() != "200" {
			t.Errorf("after that: %+v", a)
		}
	})
	inBubble(t, "many streams", func(t *testing.T) {
		c := dial(t, setup{more: func(s *http.Server) { s.HTTP2.MaxConcurrentStreams = 2 }}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		for id := uint32(1); id < 7; id += 2 {
			c.ask(id, end, get("GET", "/")...)
		}
		if a := c.answer(5); a.reset != refused {
			t.Errorf("%+v", a)
		}
	})
}

// TestTimes: what a client has time for.
func TestTimes(t *testing.T) {
	t.Parallel()
	quiet := func(s *http.Server) {
		s.IdleTimeout, s.HTTP2.SendPingTimeout = time.Minute, 20*time.Second
	}
	inBubble(t, "idle", func(t *testing.T) {
		c := dial(t, setup{more: quiet}, play)
		var told atomic.Bool
		go func() {
			for f := range c.frames {
				if f.kind == ping {
					c.send(frame{ping, ack, 0, f.payload})
				}
				if f.kind == goAway && f.code() == noError {
					told.Store(true)
				}
			}
		}()
		<-time.After(59 * time.Second)
		c.ask(1, end, get("GET", "/")...)
		<-time.After(59 * time.Second)
		if told.Load() {
			t.Error("told to go too early")
		}
		<-time.After(3 * time.Second)
		if !told.Load() {
			t.Error("not told to go")
		}
	})
	inBubble(t, "unanswered PING", func(t *testing.T) {
		c := dial(t, setup{more: quiet}, play)
		begin := time.Now()
		c.ended()
		if took := time.Since(begin); took != 35*time.Second {
			t.Errorf("closed after %s", took)
		}
	})
	inBubble(t, "no SETTINGS", func(t *testing.T) {
		c := dial(t, setup{nothing: true}, play)
		c.write([]byte(clientPreface))
		begin := time.Now()
		c.ended()
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("closed after %s", took)
		}
	})
}

// TestDeadlines: those of http.ResponseController.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	inBubble(t, "reading", func(t *testing.T) {
		c := dial(t, setup{}, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
			_, err := io.ReadAll(r.Body)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read = %v", err)
			}
			w.WriteHeader(http.StatusRequestTimeout)
		})
		c.ask(1, 0, get("POST", "/")...)
		if a := c.answer(1); a.status() != "408" || a.reset != noError {
			t.Errorf("%+v", a)
		}
	})
	inBubble(t, "writing", func(t *testing.T) {
		c := dial(t, setup{hush: true}, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := w.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write = %v", err)
			}
		})
		c.ask(1, end, get("GET", "/")...)
		if a := c.answer(1); a.reset != internal || len(a.body) != 65535 {
			t.Errorf("%d bytes, RST_STREAM %d", len(a.body), a.reset)
		}
	})
}

// TestCancel: a client that resets a stream, or leaves, cancels the request.
func TestCancel(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(c *client){
		"reset": func(c *client) { c.send(frame{reset, 0, 1, number(8)}) },
		"gone":  func(c *client) { c.conn.Close() },
	} {
		inBubble(t, name, func(t *testing.T) {
			cancelled := make(chan error, 1)
			c := dial(t, setup{}, func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				_, err := io.WriteString(w, "late")
				cancelled <- errors.Join(err, http.NewResponseController(w).Flush())
			})
			c.ask(1, end, get("GET", "/")...)
			synctest.Wait()
			leave(c)
			if err := <-cancelled; err == nil {
				t.Error("the answer was taken")
			}
		})
	}
}

// TestShutdown: streams are finished, no others are begun.
func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, srv := dialServer(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
			<-release
			_, _ = io.WriteString(w, "whole")
		})
		c.ask(1, end, get("GET", "/")...)
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(context.Background()) }()
		if f := c.await(goAway); f.code() != noError || !slices.Equal(f.payload[:4], number(1)) {
			t.Errorf("%+v", f)
		}
		c.ask(3, end, get("GET", "/")...)
		close(release)
		if a := c.answer(1); a.body != "whole" {
			t.Errorf("%+v", a)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}
