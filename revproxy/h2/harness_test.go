package h2_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2/hpack"

	"github.com/corridor-enclave/corridor/revproxy/h2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Types of frames, flags and codes (RFC 9113 sections 6 and 7).
const (
	data, headers, priority, reset, settings, push, ping, goAway, window, continuation = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9

	ack, end, endHeaders, padded, withPriority = 0x1, 0x1, 0x4, 0x8, 0x20

	noError, protocol, internal, flow, streamClosed, frameSize, refused, compression, calm = 0, 1, 2, 3, 5, 6, 7, 9, 11
)

const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// largest is the largest window (RFC 9113 section 6.9.1).
const largest = 1<<31 - 1

// A frame is one on the wire.
type frame struct {
	kind, flags byte
	id          uint32
	payload     []byte
}

func (f frame) bytes() []byte {
	n := len(f.payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), f.kind, f.flags}
	return append(binary.BigEndian.AppendUint32(b, f.id), f.payload...)
}

// code is that of RST_STREAM or GOAWAY.
func (f frame) code() uint32 { return binary.BigEndian.Uint32(f.payload[len(f.payload)-4:]) }

func number(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func setting(id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, id), v)
}

// A client speaks frames.
type client struct {
	t       *testing.T
	conn    net.Conn
	frames  chan frame // closed when the connection ends
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	seen    []frame // that were passed over
	deaf    atomic.Bool
}

// A oneListener accepts one connection.
type oneListener struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A setup is how a server is made.
type setup struct {
	stock   bool // by net/http
	hush    bool // the client opens no windows
	nothing bool // nor says anything at first
	more    func(*http.Server)
	wrap    func(net.Conn) net.Conn
}

// dial starts a server of a handler, and speaks to it. All is gone with the test,
// which is to be in a bubble of synctest.
func dial(t *testing.T, s setup, h http.HandlerFunc) *client {
	t.Helper()
	c, _ := dialServer(t, s, h)
	return c
}

func dialServer(t *testing.T, s setup, h http.HandlerFunc) (*client, *http.Server) {
	t.Helper()
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{}} //nolint:gosec // no stranger reaches it
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	if s.more != nil {
		s.more(srv)
	}
	if !s.stock {
		if _, err := h2.Configure(srv); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs := net.Pipe()
	if s.wrap != nil {
		theirs = s.wrap(theirs)
	}
	l := &oneListener{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- theirs
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	c := &client{t: t, conn: ours, frames: make(chan frame, 1<<16)}
	c.encoder = hpack.NewEncoder(&c.block)
	c.decoder = hpack.NewDecoder(4096, nil)
	go c.read()
	t.Cleanup(func() {
		ours.Close()
		srv.Close()
		<-done
		<-time.After(5 * time.Second) // simulated: net/http's lingers behind GOAWAY
	})
	if s.nothing {
		return c, srv
	}
	c.write([]byte(clientPreface))
	if s.hush {
		c.send(frame{kind: settings})
	} else {
		c.send(frame{settings, 0, 0, setting(4, largest)}, frame{window, 0, 0, number(largest - 65535)})
	}
	return c, srv
}

func (c *client) read() {
	defer close(c.frames)
	for head := make([]byte, 9); !c.deaf.Load(); {
		if _, err := io.ReadFull(c.conn, head); err != nil {
			return
		}
		f := frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))}
		if _, err := io.ReadFull(c.conn, f.payload); err != nil {
			return
		}
		c.frames <- f
	}
}

// stop has the client read no more than one frame.
func (c *client) stop() { c.deaf.Store(true) }

// write writes bytes, unless the server has gone.
func (c *client) write(b []byte) { _, _ = c.conn.Write(b) }

func (c *client) send(frames ...frame) {
	for _, f := range frames {
		c.write(f.bytes())
	}
}

// encode makes a header block of names and values.
func (c *client) encode(fields ...string) []byte {
	c.block.Reset()
	for f := range slices.Chunk(fields, 2) {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// get are the pseudo-header fields of a request.
func get(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":authority", "x", ":path", path}, more...)
}

// ask sends HEADERS.
func (c *client) ask(id uint32, flags byte, fields ...string) {
	c.send(frame{headers, endHeaders | flags, id, c.encode(fields...)})
}

// next returns the next frame, or false at the connection's end.
func (c *client) next() (frame, bool) {
	f, ok := <-c.frames
	c.seen = append(c.seen, f)
	return f, ok
}

// await returns the next frame of a type, which has to come.
func (c *client) await(kind byte) frame {
	c.t.Helper()
	for {
		f, ok := c.next()
		if !ok {
			c.t.Fatalf("the connection ended without a frame of type %d; it had %v", kind, kinds(c.seen))
		}
		if f.kind == kind {
			return f
		}
	}
}

// ended reports whether the connection ends, and the code of GOAWAY before that.
func (c *client) ended() (code uint32) {
	code = 1 << 31
	for {
		f, ok := c.next()
		if !ok {
			return code
		}
		if f.kind == goAway {
			code = f.code()
		}
	}
}

func kinds(frames []frame) (k []byte) {
	for _, f := range frames {
		k = append(k, f.kind)
	}
	return k
}

// An answer is what came for a stream.
type answer struct {
	informed []string // informational ones, with their fields
	fields   []string // "name: value", sorted, without Date
	body     string
	trailers []string
	reset    int64 // the code of RST_STREAM; -1: none
	goAway   int64 // the code of GOAWAY, which ended it; -1: none, -2: the connection ended without
}

func (a answer) status() string {
	for _, f := range a.fields {
		if s, ok := strings.CutPrefix(f, ":status: "); ok {
			return s
		}
	}
	return ""
}

// answer collects what comes for a stream until it ends. A RST_STREAM right behind
// END_STREAM counts if it is there when everybody waits.
func (c *client) answer(id uint32) answer {
	c.t.Helper()
	a := answer{reset: -1, goAway: -1}
	for ended := false; ; {
		if ended {
			synctest.Wait()
			if len(c.frames) == 0 {
				return a
			}
		}
		f, ok := c.next()
		switch {
		case !ok && ended:
			return a
		case !ok:
			a.goAway = -2
			return a
		case f.kind == goAway:
			a.goAway = int64(f.code())
			return a
		case f.kind == headers:
			fields := c.decode(f) // of any stream, or the table is lost
			switch {
			case f.id != id:
			case len(a.fields) > 0:
				a.trailers = fields
			case strings.HasPrefix(fields[0], ":status: 1"):
				a.informed = append(a.informed, strings.Join(fields, ", "))
			default:
				a.fields = fields
			}
		}
		if f.id != id {
			continue
		}
		switch f.kind {
		case data:
			a.body += string(f.payload)
		case reset:
			a.reset = int64(f.code())
			return a
		}
		ended = ended || f.flags&end != 0 && (f.kind == data || f.kind == headers)
	}
}

func (c *client) decode(f frame) []string {
	c.t.Helper()
	for f.flags&endHeaders == 0 {
		next, ok := c.next()
		if !ok || next.kind != continuation || next.id != f.id {
			c.t.Fatalf("%d behind HEADERS", next.kind)
		}
		f.flags |= next.flags
		f.payload = append(f.payload, next.payload...)
	}
	list, err := c.decoder.DecodeFull(f.payload)
	if err != nil {
		c.t.Fatal(err)
	}
	var fields []string
	for _, f := range list {
		if f.Name != "date" {
			fields = append(fields, f.Name+": "+f.Value)
		}
	}
	slices.Sort(fields)
	return fields
}

// inBubble runs a test in which time is simulated.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	})
}
