package h2

// Sizes of windows (RFC 9113 sections 5.2 and 6.9).
const (
	initialWindow = 65535 // of a peer that says nothing
	maxWindow     = 1<<31 - 1
	defaultWindow = 1 << 20 // of ours, for a stream and for a connection, as net/http's
)

// An inflow is a window that the client may fill.
type inflow struct {
	size   int64 // that it is opened to again
	avail  int64 // what the client may still send
	unsent int64 // what could be opened, and is not yet
}

func newInflow(size int64) inflow { return inflow{size: size, avail: size} }

// take takes n bytes, which came. It reports whether the client was allowed to send them.
func (f *inflow) take(n int64) bool {
	if n > f.avail {
		return false
	}
	f.avail -= n
	return true
}

// give opens the window by n bytes, which were consumed. It returns by how much the
// client is to be told: nothing until half of the window has gathered.
func (f *inflow) give(n int64) uint32 {
	f.unsent += n
	if f.unsent == 0 || f.unsent < f.size/2 {
		return 0
	}
	n, f.unsent = f.unsent, 0
	f.avail += n
	return uint32(n) //nolint:gosec // never more than the window, which is an int31
}
