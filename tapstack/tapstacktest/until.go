package tapstacktest

import "io"

// Until is a Reader that ends when Stop is closed.
type Until struct {
	io.Reader
	Stop <-chan struct{}
}

// Read reads, or returns io.EOF.
func (u Until) Read(b []byte) (int, error) {
	select {
	case <-u.Stop:
		return 0, io.EOF
	default:
		return u.Reader.Read(b)
	}
}
