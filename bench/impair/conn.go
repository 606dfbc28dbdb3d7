package impair

import (
	"container/heap"
	"net"
	"sync"
	"time"
)

// maxHeld bounds the bytes on one line. Whoever sends more has to wait, as with a
// line that is full.
const maxHeld = 64 << 20

// A packet is on the line.
type packet struct {
	bytes   []byte
	err     error // instead of bytes: what ended the other side
	arrives time.Duration
	order   uint64 // of sending; equal times arrive in this order
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if p[i].arrives != p[j].arrives {
		return p[i].arrives < p[j].arrives
	}
	return p[i].order < p[j].order
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = packet{}
	*p = (*p)[:last]
	return x
}

// A conn is a connection from which one reads what has come through a line.
// Writes go straight through. It has no read deadlines: relay sets none.
type conn struct {
	net.Conn
	stream bool
	start  time.Time
	closed chan struct{}
	once   sync.Once
	wake   chan struct{} // something was put on the line
	room   chan struct{} // something was taken off

	mu     sync.Mutex
	line   line
	held   packets
	size   int64 // bytes held
	sent   uint64
	rest   []byte // of a packet that has arrived and was read in part
	ended  error  // what the other side ended by, once it has arrived
	counts Counts
}

func newConn(inner net.Conn, p Profile, stream bool, seed, number uint64) *conn {
	return &conn{
		Conn: inner, stream: stream, start: time.Now(), line: line{dice: newDice(p, seed, number)},
		closed: make(chan struct{}), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

func (c *conn) now() time.Duration { return time.Since(c.start) }

// notify leaves a message for the one goroutine that may be waiting.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// put sends one packet, and waits while the line is full. It reports false when
// the connection was closed meanwhile.
func (c *conn) put(b []byte) bool {
	for !c.tryPut(b) {
		select {
		case <-c.room:
		case <-c.closed:
			return false
		}
	}
	notify(c.wake)
	return true
}

func (c *conn) tryPut(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size > 0 && c.size+int64(len(b)) > c.capacity() {
		return false
	}
	v := c.line.admit(c.now(), len(b), c.stream)
	c.counts.add(len(b), v)
	if v.lost || v.overflow {
		return true
	}
	copies := 1
	if v.twice {
		copies = 2
	}
	for range copies {
		c.hold(packet{bytes: b, arrives: v.arrives})
	}
	return true
}

// capacity is how many bytes the line holds. A stream with a rate has the queue
// and what is under way at that rate; more would be buffers that no line has.
func (c *conn) capacity() int64 {
	p := c.line.dice.p
	if !c.stream || p.Rate == 0 {
		return maxHeld
	}
	underWay := float64(p.Rate) * (p.Delay + p.Jitter).Seconds()
	return min(maxHeld, p.queue()+int64(underWay))
}

// finish sends the end of the stream, behind everything else.
func (c *conn) finish(err error) {
	c.mu.Lock()
	p := c.line.dice.p
	c.hold(packet{err: err, arrives: max(c.now()+p.Delay, c.line.free+p.Delay, c.line.last)})
	c.mu.Unlock()
	notify(c.wake)
}

func (c *conn) hold(p packet) {
	p.order = c.sent
	c.sent++
	c.size += int64(len(p.bytes))
	heap.Push(&c.held, p)
}

// Read returns bytes that have arrived.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.take(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		var arrived <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			arrived = timer.C
		}
		select {
		case <-arrived:
		case <-c.wake:
		case <-c.closed:
			err = net.ErrClosed
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return 0, err
		}
	}
}

// take copies what has arrived. Where that is nothing it returns how long the
// next packet still needs, 0 if there is none.
func (c *conn) take(b []byte) (n int, wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for n < len(b) && c.ended == nil {
		if len(c.rest) == 0 {
			if len(c.held) == 0 || c.held[0].arrives > now {
				break
			}
			p := heap.Pop(&c.held).(packet)
			c.rest, c.ended = p.bytes, p.err
			c.size -= int64(len(p.bytes))
			notify(c.room)
			continue
		}
		copied := copy(b[n:], c.rest)
		c.rest = c.rest[copied:]
		n += copied
	}
	if n == 0 && c.ended != nil {
		return 0, 0, c.ended
	}
	if len(c.held) > 0 {
		wait = c.held[0].arrives - now
	}
	return n, wait, nil
}

// CloseWrite ends the stream of what is written. A connection that cannot say so
// says it by its Close.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Reset implements relay.Resetter.
func (c *conn) Reset() error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // fails only on a closed socket, and then Close says so
	}
	return c.Close()
}

// Close closes the connection and forgets what is on the line.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
