package tapstacktest

import (
	"fmt"
	"os"
	"sync"

	"github.com/corridor-enclave/corridor/tapstack"
)

// pipeFrames is how many frames one direction of a Pipe holds.
const pipeFrames = 64

// A Device is one end of a Pipe. It implements tapstack.Device.
type Device struct {
	mtu       int
	in, out   *queue
	done      chan struct{} // closed by Close
	closeOnce sync.Once
	peer      *Device
}

// Pipe returns two devices: what is written to one is read from the other, in
// order, without loss. A write waits while 64 frames wait to be read, until
// either end is closed; frames for a closed end are dropped, as by a kernel
// whose interface is gone. Moving a frame allocates nothing once the Pipe is
// warm.
func Pipe(mtu int) (a, b *Device) {
	ab, ba := newQueue(), newQueue()
	a = &Device{mtu: mtu, in: ba, out: ab, done: make(chan struct{})}
	b = &Device{mtu: mtu, in: ab, out: ba, done: make(chan struct{}), peer: a}
	a.peer = b
	return a, b
}

// MTU returns the MTU that the Pipe was made with.
func (d *Device) MTU() int { return d.mtu }

// Offloads returns true: the other end gets frames as they were written.
func (d *Device) Offloads() bool { return true }

// ReadFrames waits for a frame and puts it and those behind it into b.
func (d *Device) ReadFrames(b *tapstack.Batch) error {
	if d.isClosed() {
		return os.ErrClosed
	}
	room := b.Next()
	select {
	case frame := <-d.in.frames:
		d.put(b, room, frame)
	case <-d.done:
		b.Commit(0)
		return os.ErrClosed
	}
	for {
		room := b.Next()
		if room == nil {
			return nil
		}
		select {
		case frame := <-d.in.frames:
			d.put(b, room, frame)
		default:
			b.Commit(0)
			return nil
		}
	}
}

func (d *Device) put(b *tapstack.Batch, room, frame []byte) {
	b.Commit(copy(room, frame))
	d.in.free <- frame
}

// ReadFrame waits for a frame with its virtio-net header and copies it to buf,
// cut to its length like a TAP device would. After Close it returns os.ErrClosed.
func (d *Device) ReadFrame(buf []byte) (int, error) {
	if d.isClosed() {
		return 0, os.ErrClosed
	}
	select {
	case frame := <-d.in.frames:
		n := copy(buf, frame)
		d.in.free <- frame
		return n, nil
	case <-d.done:
		return 0, os.ErrClosed
	}
}

// WriteFrame queues a copy of frame, with its virtio-net header, for the other
// end. It refuses a frame shorter than an Ethernet header or, if it is not to be
// segmented, longer than the MTU allows, as a TAP device does.
func (d *Device) WriteFrame(frame []byte) error {
	if d.isClosed() {
		return os.ErrClosed
	}
	size := len(frame) - tapstack.OffloadHeader
	if size < tapstack.MinFrame || (size > d.mtu+tapstack.MinFrame && frame[1] == 0) {
		return fmt.Errorf("tapstacktest: write frame of %d bytes at MTU %d: %w", size, d.mtu, os.ErrInvalid)
	}
	select {
	case b := <-d.out.free:
		// The queue has room for every buffer that exists.
		d.out.frames <- append(b[:0], frame...)
		return nil
	case <-d.peer.done:
		return nil
	case <-d.done:
		return os.ErrClosed
	}
}

// Close ends both directions of this end. Frames that it has not read are lost.
func (d *Device) Close() error {
	d.closeOnce.Do(func() { close(d.done) })
	return nil
}

// Closed returns a channel that is closed when the device is.
func (d *Device) Closed() <-chan struct{} { return d.done }

func (d *Device) isClosed() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// A queue holds frames in a fixed number of buffers that go round.
type queue struct{ frames, free chan []byte }

func newQueue() *queue {
	q := &queue{frames: make(chan []byte, pipeFrames), free: make(chan []byte, pipeFrames)}
	for range pipeFrames {
		q.free <- nil
	}
	return q
}
