package revproxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Types of frames, flags, settings and error codes of RFC 9113 sections 6 and 7, and
// RFC 8441 section 3.
const (
	h2Data, h2Headers, h2Reset, h2Settings, h2GoAway, h2Continuation = 0, 1, 3, 4, 7, 9

	h2EndStream, h2EndHeaders = 1, 4

	h2MaxConcurrentStreams, h2EnableConnectProtocol = 3, 8

	h2ProtocolError, h2InternalError, h2RefusedStream, h2Cancel = 1, 2, 7, 8
)

// A rawH2 is a client of HTTP/2 that sends whatever frames it likes.
type rawH2 struct {
	t        *testing.T
	conn     *tls.Conn
	fields   bytes.Buffer
	encoder  *hpack.Encoder
	decoder  *hpack.Decoder
	settings map[uint16]uint32 // the server's
	answers  map[uint32]*h2Answer
	ended    error // of reading
}

// An h2Answer is what became of a stream.
type h2Answer struct {
	fields  map[string]string // the last ones of each name, trailers too
	body    string
	whole   bool   // it has ended well
	reset   bool   // it was reset
	code    uint32 // with this
	refused bool   // the connection was ended instead
}

func dialH2(t *testing.T, front *httptest.Server) *rawH2 {
	t.Helper()
	conn := tls.Client(dial(t, front), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // a test's own server
	c := &rawH2{t: t, conn: conn, decoder: hpack.NewDecoder(4096, nil), settings: map[uint16]uint32{}, answers: map[uint32]*h2Answer{}}
	c.encoder = hpack.NewEncoder(&c.fields)
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.send(h2Settings, 0, 0, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends one frame.
func (c *rawH2) send(kind, flags byte, stream uint32, payload []byte) error {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	frame = binary.BigEndian.AppendUint32(append(frame, flags), stream)
	_, err := c.conn.Write(append(frame, payload...))
	return err
}

// ask sends the head of a request: names and values in turn.
func (c *rawH2) ask(stream uint32, end bool, fields ...string) {
	c.t.Helper()
	flags := byte(h2EndHeaders)
	if end {
		flags |= h2EndStream
	}
	if err := c.send(h2Headers, flags, stream, c.block(fields...)); err != nil {
		c.t.Fatal(err)
	}
}

// finish sends a body, which a server that has had enough does not take.
func (c *rawH2) finish(stream uint32, body string) {
	_ = c.send(h2Data, h2EndStream, stream, []byte(body))
}

func (c *rawH2) block(fields ...string) []byte {
	c.fields.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to memory
	}
	return bytes.Clone(c.fields.Bytes())
}

// get is the head of a simple request, and more fields.
func get(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/"}, more...)
}

// answer reads until a stream has ended, or the connection has.
func (c *rawH2) answer(stream uint32) *h2Answer {
	c.t.Helper()
	a := c.stream(stream)
	for !a.whole && !a.reset && c.ended == nil {
		if c.ended = c.read(); isTimeout(c.ended) {
			c.t.Fatalf("the server says nothing: %v", c.ended)
		}
	}
	a.refused = !a.whole && !a.reset
	return a
}

func (c *rawH2) stream(id uint32) *h2Answer {
	if c.answers[id] == nil {
		c.answers[id] = &h2Answer{fields: map[string]string{}}
	}
	return c.answers[id]
}

// read reads one frame.
func (c *rawH2) read() error {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	var head [9]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return err
	}
	payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		return err
	}
	a := c.stream(binary.BigEndian.Uint32(head[5:]))
	ends := head[4]&h2EndStream != 0
	switch head[3] {
	case h2Headers: // these servers send neither padding nor priorities, and short heads
		fields, err := c.decoder.DecodeFull(payload)
		if err != nil {
			return err
		}
		for _, field := range fields {
			a.fields[field.Name] = field.Value
		}
		a.whole = ends
	case h2Data:
		a.body += string(payload)
		a.whole = ends
	case h2Reset:
		if !a.whole { // else it only says that no more of the request is wanted
			a.reset, a.code = true, binary.BigEndian.Uint32(payload)
		}
	case h2Settings:
		for ; len(payload) >= 6; payload = payload[6:] {
			c.settings[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
		}
	case h2GoAway:
		return errors.New("GOAWAY")
	}
	return nil
}
