package netstack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// A writer writes to one stream. Where the stream is a socket, pieces that lie
// apart leave with one call.
type writer struct {
	conn   net.Conn
	most   int // bytes of one write; 0 is no limit
	counts *counters

	socket *nonblock.Writer // nil: conn takes one piece at a time
	vector [][]byte         // what one call writes
}

func newWriter(conn net.Conn, most int, counts *counters) *writer {
	socket, _ := tapstack.StreamWriter(conn).(*nonblock.Writer)
	return &writer{conn: conn, most: most, counts: counts, socket: socket, vector: make([][]byte, 0, nonblock.MaxPieces)}
}

// writeAll writes the pieces, however slow, as long as something moves. It changes
// pieces.
func (w *writer) writeAll(pieces [][]byte) error {
	for len(pieces) > 0 {
		if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return fmt.Errorf("netstack: downlink: %w", err)
		}
		n, err := w.write(pieces)
		pieces = advance(pieces, n)
		w.counts.writes.Add(1)
		if n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%w: nothing for %s", ErrStalled, writeTimeout)
		}
		if err != nil {
			return fmt.Errorf("netstack: downlink: %w", err)
		}
	}
	return nil
}

// write writes, of the pieces, once what one write may have.
func (w *writer) write(pieces [][]byte) (int, error) {
	w.vector = w.vector[:0]
	room := w.most
	for _, p := range pieces {
		if w.most > 0 {
			p = p[:min(len(p), room)]
			room -= len(p)
		}
		w.vector = append(w.vector, p)
		if len(w.vector) == nonblock.MaxPieces || w.socket == nil || (w.most > 0 && room == 0) {
			break
		}
	}
	if w.socket == nil {
		return w.conn.Write(w.vector[0])
	}
	return w.socket.WriteSome(w.vector...)
}

// advance takes n bytes from the front of pieces.
func advance(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}
