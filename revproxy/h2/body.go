package h2

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// A body is the content of a request, between the reader and the handler. The
// window bounds it.
type body struct {
	conn   *conn
	stream *stream

	mu      sync.Mutex
	more    sync.Cond
	content bytes.Buffer
	err     error  // what Read returns behind the content; nil: more may come
	ending  func() // called before Read returns io.EOF
	closed  bool   // by the handler

	needsContinue bool // of the handler's goroutine
}

func newBody(st *stream) *body {
	b := &body{conn: st.conn, stream: st}
	b.more.L = &b.mu
	return b
}

// add adds what came. It reports whether anybody wants it.
func (b *body) add(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.err != nil {
		return false
	}
	b.content.Write(p)
	b.more.Signal()
	return true
}

// end ends the content with what Read is to return then; the first call counts.
func (b *body) end(err error, ending func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err, b.ending = err, ending
		b.more.Broadcast()
	}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.needsContinue {
		b.needsContinue = false
		b.conn.sendContinue(b.stream)
	}
	n, err := b.read(p)
	if n > 0 {
		b.conn.consumed(b.stream, int64(n))
	}
	return n, err
}

func (b *body) read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.closed:
			return 0, http.ErrBodyReadAfterClose
		case b.content.Len() > 0:
			return b.content.Read(p)
		case b.err != nil:
			if b.ending != nil && b.err == io.EOF {
				b.ending()
				b.ending = nil
			}
			return 0, b.err
		}
		b.more.Wait()
	}
}

// Close implements io.Closer: what comes from now on is dropped. It does not wait
// for it, and ends a Read under way.
func (b *body) Close() error {
	b.mu.Lock()
	unread := b.content.Len()
	b.content = bytes.Buffer{}
	b.closed = true
	b.more.Broadcast()
	b.mu.Unlock()
	if unread > 0 {
		b.conn.consumed(nil, int64(unread))
	}
	return nil
}
