package route

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// MaxPeek is the most that a client may say before its name is known, in bytes.
	// A ClientHello with a post-quantum key share has about 2 KiB.
	MaxPeek = 16 << 10
	// peekTimeout is how long it may take for that.
	peekTimeout = 10 * time.Second
)

// ErrNoName reports that a client said nothing that a name can be found in: it is
// neither TLS nor HTTP, or malformed, or too long. Its connection must be closed.
var ErrNoName = errors.New("route: no name in the client's first bytes")

// A Peeked is what a client said while its name was looked for. Release it once
// Said has been passed on.
type Peeked struct {
	Name string // in lower case, without a port; empty if the client named nobody
	Said []byte

	buffer *[MaxPeek]byte
}

// Release gives the memory of Said back, if there is any.
func (p *Peeked) Release() {
	if p != nil && p.buffer != nil {
		buffers.Put(p.buffer)
		p.buffer, p.Said = nil, nil
	}
}

var buffers = sync.Pool{New: func() any { return new([MaxPeek]byte) }}

// Peek reads from a client until it has said whom it wants to reach. The error is
// ErrNoName, or that of reading; a client that takes too long times out, and so
// does one that is still asked when ctx ends.
func Peek(ctx context.Context, client net.Conn) (*Peeked, error) {
	p := &Peeked{buffer: buffers.Get().(*[MaxPeek]byte)}
	if err := p.bounded(ctx, client); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

// bounded reads with a deadline, and takes it away again.
func (p *Peeked) bounded(ctx context.Context, client net.Conn) error {
	if err := client.SetReadDeadline(time.Now().Add(peekTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) })
	err := p.read(client)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return client.SetReadDeadline(time.Time{})
}

func (p *Peeked) read(client net.Conn) error {
	for n := 0; n < MaxPeek; {
		got, err := client.Read(p.buffer[n:])
		n += got
		if got > 0 {
			name, ok, wrong := find(p.buffer[:n])
			if wrong != nil {
				return wrong
			}
			if ok {
				p.Name, p.Said = name, p.buffer[:n]
				return nil
			}
		}
		if err == io.EOF {
			return fmt.Errorf("%w: it ended after %d bytes", ErrNoName, n)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: none in %d bytes", ErrNoName, MaxPeek)
}

// find returns the name that the bytes ask for, or not ok if more are needed.
func find(said []byte) (name string, ok bool, err error) {
	if said[0] == recordHandshake {
		name, ok, err = serverName(said)
	} else {
		name, ok, err = requestHost(said)
	}
	if !ok || err != nil {
		return "", false, err
	}
	return strings.TrimSuffix(strings.ToLower(name), "."), true, nil
}
