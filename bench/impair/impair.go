// Package impair makes a line between two sockets as bad as lines are: late, slow,
// lossy, out of order, by a seed. It stands in for the kernel's netem where there
// is none, and is repeatable where netem is not. It knows streams of bytes and
// streams of link frames; what is said on them it does not look at.
package impair

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/corridor-enclave/corridor/tapstack/relay"
)

// Options say how to impair one connection.
type Options struct {
	// Frames says that both directions carry link frames (tapstack/WIRE.md), which
	// can be lost; otherwise they are streams of bytes, which cannot.
	Frames bool
	// Uplink is from the first connection of Relay to the second, Downlink back.
	Uplink, Downlink Profile
	// Seed decides all that chance does. Number is of the connection among those
	// with the same Seed, so that not all of them suffer the same.
	Seed, Number uint64
}

// Check says what is wrong with the options.
func (o Options) Check() error {
	if !o.Frames && (o.Uplink.forFrames() || o.Downlink.forFrames()) {
		return errors.New("impair: a stream loses, doubles and reorders nothing; frames do")
	}
	return nil
}

// Counts are what one direction of a line did. A packet is a frame, or a piece of
// a stream of up to 16 KiB.
type Counts struct {
	Packets, Bytes int64 // that were sent
	Lost           int64 // packets, by Loss
	Overflowed     int64 // packets, because the queue was full
	Duplicated     int64 // packets
	Reordered      int64 // packets
}

func (c *Counts) add(size int, v verdict) {
	c.Packets++
	c.Bytes += int64(size)
	switch {
	case v.lost:
		c.Lost++
		return
	case v.overflow:
		c.Overflowed++
		return
	}
	if v.twice {
		c.Duplicated++
	}
	if v.overtakes {
		c.Reordered++
	}
}

// A Result is what became of one connection.
type Result struct{ Uplink, Downlink Counts }

// Relay joins a and b through an impaired line until both directions have ended,
// and closes both. Ends of streams and resets arrive as late as everything else.
// It returns an error as relay.Relay does; all goroutines are gone then.
func Relay(ctx context.Context, a, b net.Conn, o Options) (Result, error) {
	if err := o.Check(); err != nil {
		return Result{}, errors.Join(err, a.Close(), b.Close())
	}
	up := newConn(a, o.Uplink, !o.Frames, o.Seed, 2*o.Number)
	down := newConn(b, o.Downlink, !o.Frames, o.Seed, 2*o.Number+1)
	var fillers sync.WaitGroup
	fillers.Go(up.fill)
	fillers.Go(down.fill)
	_, err := relay.Relay(ctx, up, down, relay.Options{})
	fillers.Wait()
	if err != nil {
		err = fmt.Errorf("impair: %w", err)
	}
	return Result{Uplink: up.counts, Downlink: down.counts}, err
}
