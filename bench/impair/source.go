package impair

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxOpening bounds what comes before the frames: an HTTP request, or answer.
	maxOpening = 8 << 10
	// maxChunk is how much of a stream travels as one packet at most.
	maxChunk = 16 << 10
	minChunk = 512
)

// fill reads from the connection below and puts what it reads on the line, until
// that ends.
func (c *conn) fill() {
	if c.stream {
		c.finish(c.fillBytes())
		return
	}
	c.finish(c.fillFrames(bufio.NewReaderSize(c.Conn, 64<<10)))
}

func (c *conn) fillBytes() error {
	buf := make([]byte, c.chunk())
	for {
		n, err := c.Conn.Read(buf)
		if n > 0 && !c.put(bytes.Clone(buf[:n])) {
			return io.ErrClosedPipe
		}
		if err != nil {
			return err
		}
	}
}

// chunk is a hundredth of a second at the rate, so that a slow line trickles.
func (c *conn) chunk() int64 {
	rate := c.line.dice.p.Rate
	if rate == 0 {
		return maxChunk
	}
	return min(maxChunk, max(minChunk, rate/100))
}

// A framing is how frames follow each other (tapstack/WIRE.md): a little-endian
// length in the lowest bits of a header, and above it, in one of the two framings,
// what the record is.
type framing struct {
	header  int    // bytes
	length  uint32 // mask of the length's bits
	longest uint32
}

// plain is the framing of gvproxy, extended the one that is asked for by Upgrade
// and answered with 101.
func plain() framing    { return framing{header: 2, length: 1<<16 - 1, longest: 1<<16 - 1} }
func extended() framing { return framing{header: 4, length: 1<<28 - 1, longest: 1 << 17} }

// fillFrames puts each frame on the line with its header. What opens the link is
// no frame, nor is a record of control: they arrive whole and in order.
func (c *conn) fillFrames(r *bufio.Reader) error {
	f, err := c.passOpening(r)
	if err != nil {
		return err
	}
	header := make([]byte, 4)
	for {
		if _, err := io.ReadFull(r, header[:f.header]); err != nil {
			return err
		}
		clear(header[f.header:])
		word := binary.LittleEndian.Uint32(header)
		n := word & f.length
		if n > f.longest {
			return fmt.Errorf("impair: a frame of %d bytes: these are no link frames", n)
		}
		record := make([]byte, f.header+int(n))
		copy(record, header)
		if _, err := io.ReadFull(r, record[f.header:]); err != nil {
			return noEOF(err)
		}
		if word&^f.length != 0 {
			c.pass(record)
		} else if !c.put(record) {
			return io.ErrClosedPipe
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// passOpening passes on what comes before the frames of this direction and
// returns their framing. Behind an answer that refuses there are none: it returns
// io.EOF when that has ended.
func (c *conn) passOpening(r *bufio.Reader) (framing, error) {
	start, err := r.Peek(5) // less than the shortest frame with its header
	if err != nil && len(start) > 0 {
		return framing{}, noEOF(err)
	}
	if err != nil {
		return framing{}, err
	}
	if string(start) != "HTTP/" && string(start) != "POST " {
		return plain(), nil
	}
	head, err := readHead(r)
	if err != nil {
		return framing{}, err
	}
	c.pass(head)
	switch {
	case bytes.Contains(head, []byte("\r\nUpgrade: ")) && !bytes.Contains(head, []byte(" 426 ")):
		return extended(), nil
	case string(start) == "POST ":
		return plain(), nil
	}
	text, err := io.ReadAll(io.LimitReader(r, maxOpening))
	if err != nil {
		return framing{}, err
	}
	c.pass(text)
	return framing{}, io.EOF
}

// readHead reads up to the empty line of an HTTP message.
func readHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		b, err := r.ReadByte()
		if err != nil {
			return nil, noEOF(err)
		}
		if head = append(head, b); len(head) > maxOpening {
			return nil, fmt.Errorf("impair: more than %d bytes before the first frame", maxOpening)
		}
	}
	return head, nil
}

// pass sends bytes that chance has no part in.
func (c *conn) pass(b []byte) {
	c.mu.Lock()
	p := c.line.dice.p
	c.line.last = max(c.line.last, c.now()+p.Delay)
	c.hold(packet{bytes: b, arrives: c.line.last})
	c.mu.Unlock()
	notify(c.wake)
}
