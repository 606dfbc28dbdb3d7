package netstack

import (
	"fmt"
	"io"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// A filling is the tcpip.Payloader of a Fill.
type filling struct {
	read func(p []byte) (int, error)
	left int // still to be read
	got  int
	err  error // of read
}

// Len is how many bytes are still to come.
func (f *filling) Len() int { return f.left }

// Read has bytes put where they are sent from. No room is no reason to ask for any: so
// the stack finds out whether this is the end.
func (f *filling) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.read(p[:min(len(p), f.left)])
	if err == nil && n == 0 {
		err = io.ErrNoProgress // the stack would ask for ever
	}
	f.left, f.got, f.err = f.left-n, f.got+n, err
	return n, err
}

// Fill queues up to n bytes for the enclave that read has, and puts where they are sent
// from: bulk is copied once less than by Write. read must have all n, though in pieces.
// It is called less often if the enclave takes less, and not at all if it takes nothing
// for the moment; then Fill returns 0. After an error, that of read or of the
// connection, bytes that were read may be lost, and the connection is to be reset.
func (c *Conn) Fill(n int, read func(p []byte) (int, error)) (int, error) {
	c.writes.mu.Lock()
	defer c.writes.mu.Unlock()
	f := &c.filling
	*f = filling{read: read, left: n}
	defer func() { f.read = nil }()
	sent, err := c.ep.Write(f, tcpip.WriteOptions{})
	_, full := err.(*tcpip.ErrWouldBlock)
	switch {
	case f.err != nil:
		return int(sent), f.err
	case full && f.got == 0:
		return 0, nil
	case err != nil:
		return int(sent), c.failed("write", errnoOf(err))
	case int(sent) != f.got: // the stack had less room in the end
		return int(sent), c.failed("write", fmt.Errorf("%d of %d bytes that were read: %w", sent, f.got, io.ErrShortWrite))
	}
	return int(sent), nil
}

// Drain writes to to what the enclave sent, in pieces and from where it is kept, until
// there is no more or to has an error, which is to's to keep; the piece that it did not
// take, or the rest of it, stays. It returns how many bytes to took. It waits for nothing,
// and to must not either: the connection is locked meanwhile. The error is that of Read.
func (c *Conn) Drain(to io.Writer) (int, error) {
	c.reads.mu.Lock()
	defer c.reads.mu.Unlock()
	n, _, err := c.readTo(to)
	if err == io.ErrShortBuffer {
		return 0, nil
	}
	return n, err
}

// AwaitRoom returns when Fill may take something, or fail. It may return sooner.
func (c *Conn) AwaitRoom() {
	c.writes.mu.Lock()
	defer c.writes.mu.Unlock()
	c.writes.wait()
}
