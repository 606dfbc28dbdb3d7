package tapstack

import "io"

// A Device exchanges whole Ethernet frames with a kernel, a stack, or a test.
// Frames carry no frame check sequence and no header in front of the Ethernet
// header. One goroutine may read while another writes; Close may be called at
// any time and ends both.
type Device interface {
	// ReadFrame reads one frame into buf, which must hold MTU+14 bytes, and
	// returns its length. After Close it returns an error for which
	// errors.Is(err, os.ErrClosed) or errors.Is(err, net.ErrClosed) holds.
	// A Device that also has a method SetReadDeadline(time.Time) error returns
	// os.ErrDeadlineExceeded when the deadline passes; no frame is lost by it.
	ReadFrame(buf []byte) (n int, err error)
	// WriteFrame writes one frame. An error that is not about a closed device
	// concerns this frame alone: the frame is dropped, the device lives on.
	WriteFrame(frame []byte) error
	// MTU is the largest payload of a frame, without the 14 bytes of its
	// Ethernet header.
	MTU() int
	// Close releases the device. ReadFrame and WriteFrame return.
	io.Closer
}
