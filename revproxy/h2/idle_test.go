package h2_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/corridor-enclave/corridor/revproxy/h2"
)

// TestIdleConnectionsHoldLittle: what a connection keeps between requests, whatever
// it was asked for, is what reads it, and tables.
func TestIdleConnectionsHoldLittle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // no stranger reaches it
		_, _ = w.Write(make([]byte, 60_000)) // more than its handler sends by itself
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	if _, err := h2.Configure(srv); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	const many = 300
	askOnce(t, l.Addr()) // what all share
	before := memory()
	for range many {
		askOnce(t, l.Addr())
	}
	// Some 20 KiB with the client's end; a chunk, a batch or a frame would be 16 more.
	if each := (memory() - before) / many; each > 32<<10 {
		t.Errorf("%d bytes for each", each)
	}
}

// askOnce has one request answered on a connection, which lives as long as the test.
func askOnce(t *testing.T, to net.Addr) {
	t.Helper()
	c, err := net.Dial(to.Network(), to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	ask := &client{}
	ask.encoder = hpack.NewEncoder(&ask.block)
	said := append([]byte(clientPreface), frame{kind: settings}.bytes()...)
	said = append(said, frame{headers, end | endHeaders, 1, ask.encode(get("GET", "/")...)}.bytes()...)
	if _, err := c.Write(said); err != nil {
		t.Fatal(err)
	}
	r, head := bufio.NewReaderSize(c, 16), make([]byte, 9)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Discard(int(binary.BigEndian.Uint32(head) >> 8)); err != nil {
			t.Fatal(err)
		}
		if head[3] == data && head[4]&end != 0 {
			return
		}
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
