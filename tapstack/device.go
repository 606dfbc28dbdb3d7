package tapstack

import "io"

// A Device exchanges whole Ethernet frames with a kernel, a stack, or a test.
// Every frame has a virtio-net header of OffloadHeader bytes in front, which may
// leave work to the receiver (see CheckOffload); there is no frame check
// sequence. One goroutine may read while another writes; Close may be called at
// any time and ends both.
type Device interface {
	// ReadFrames waits for a frame, then reads it and those that are ready behind
	// it into b, without waiting for more. It returns with at least one frame, or
	// with an error; after Close with one for which errors.Is(err, os.ErrClosed)
	// or errors.Is(err, net.ErrClosed) holds.
	ReadFrames(b *Batch) error
	// WriteFrame writes one frame. An error that is not about a closed device
	// concerns this frame alone: the frame is dropped, the device lives on.
	WriteFrame(frame []byte) error
	// Offloads reports whether the device takes frames with work left in them,
	// and larger than MTU.
	Offloads() bool
	// MTU is the largest payload of a frame that is not to be segmented, without
	// the 14 bytes of its Ethernet header.
	MTU() int
	// Close releases the device. ReadFrames and WriteFrame return.
	io.Closer
}
