package front

import (
	"log/slog"
	"net"
	"testing"
	"time"
)

// A deadlines is a connection that takes everything, and counts the write deadlines
// that it was given.
type deadlines struct {
	net.Conn
	set int
}

func (d *deadlines) Write(p []byte) (int, error) { return len(p), nil }

func (d *deadlines) SetWriteDeadline(time.Time) error {
	d.set++
	return nil
}

// TestGuardMoves: a connection that comes in the place of another, which others may be
// around, has no deadline of its, and gets one with the next write.
func TestGuardMoves(t *testing.T) {
	t.Parallel()
	first, second := &deadlines{}, &deadlines{}
	counted := newBound(1, slog.New(slog.DiscardHandler)).admit(first, time.Now())
	c := &guardedConn{Conn: counted, timeout: time.Hour, start: time.Now()}
	write := func() {
		t.Helper()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	write()
	write() // the deadline is young
	c.Move(second)
	write()
	write()
	if first.set != 1 || second.set != 1 || counted.Inner() != net.Conn(second) {
		t.Errorf("%d deadlines on the first connection, %d on the second; want 1 and 1", first.set, second.set)
	}
}
