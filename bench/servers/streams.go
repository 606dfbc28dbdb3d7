package servers

import (
	"bytes"
	"io"
	"net"
	"sync"
)

// streams serves connections, each on a goroutine of its own, and at the end closes
// those that are open.
func streams(handle func(net.Conn)) *Server {
	var (
		mu     sync.Mutex
		open   = map[net.Conn]struct{}{}
		closed bool
		wg     sync.WaitGroup
	)
	serve := func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			mu.Lock()
			open[c] = struct{}{}
			late := closed
			mu.Unlock()
			if late {
				c.Close()
			}
			wg.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	}
	stop := func() {
		mu.Lock()
		closed = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	}
	return &Server{serve: serve, close: stop}
}

// answer sends a fixed answer for each end of a head. Requests with a body are not
// for it.
func answer(c net.Conn) {
	head, reply := []byte("\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Type: text/plain\r\n\r\nhello world\n")
	buf, kept := make([]byte, 64<<10), 0
	for {
		n, err := c.Read(buf[kept:])
		if err != nil {
			return
		}
		kept += n
		for {
			i := bytes.Index(buf[:kept], head)
			if i < 0 {
				break
			}
			if _, err := c.Write(reply); err != nil {
				return
			}
			kept = copy(buf, buf[i+len(head):kept])
		}
		if kept == len(buf) {
			return // a head beyond all measure
		}
	}
}

// carry copies both ways, with the system's own means where Go has them, and passes
// on the end of each direction.
func carry(c net.Conn, network, to string) {
	out, err := net.Dial(network, to)
	if err != nil {
		return
	}
	defer out.Close()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, out}, {out, c}} {
		wg.Go(func() {
			_, err := io.Copy(way[1], way[0])
			if half, ok := way[1].(interface{ CloseWrite() error }); ok && err == nil {
				err = half.CloseWrite()
			}
			if err != nil { // the other way would wait for ever
				c.Close()
				out.Close()
			}
		})
	}
	wg.Wait()
}

// bufferSize is that of httputil's own buffers.
const bufferSize = 32 << 10

// buffers implements httputil.BufferPool.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{pool: sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get returns a buffer.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put takes one back.
func (b *buffers) Put(p []byte) {
	if cap(p) >= bufferSize {
		b.pool.Put((*[bufferSize]byte)(p[:bufferSize]))
	}
}
