package h2_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/corridor-enclave/corridor/revproxy/h2"
)

// FuzzConn gives a server foreign bytes: it neither panics nor stays when they end.
func FuzzConn(f *testing.F) {
	c := &client{}
	c.encoder = hpack.NewEncoder(&c.block)
	request := frame{headers, endHeaders, 1, c.encode(get("POST", "/read", "content-length", "3")...)}.bytes()
	hello := frame{kind: settings}.bytes()
	f.Add(hello)
	f.Add(append(hello, request...))
	f.Add(append(append(hello, request...), frame{data, end | padded, 1, []byte("\x01abc\x00")}.bytes()...))
	f.Add(append(append(hello, request...), frame{reset, 0, 1, number(8)}.bytes()...))
	f.Add(append(append(hello, frame{window, 0, 0, number(1)}.bytes()...), frame{goAway, 0, 0, make([]byte, 8)}.bytes()...))
	f.Fuzz(func(t *testing.T, in []byte) {
		srv := &http.Server{Handler: http.HandlerFunc(play), ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols), ReadHeaderTimeout: time.Second}
		srv.Protocols.SetUnencryptedHTTP2(true)
		if _, err := h2.Configure(srv); err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		l := &oneListener{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conn <- theirs
		ended := make(chan struct{})
		srv.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				close(ended)
			}
		}
		go func() { _ = srv.Serve(l) }()
		go func() { _, _ = io.Copy(io.Discard, ours) }()
		_, _ = ours.Write(append([]byte(clientPreface), in...))
		ours.Close()
		<-ended
		srv.Close()
	})
}
