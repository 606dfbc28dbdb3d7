package nonblock_test

import (
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

// TestWaiting is what one Receive brings.
func TestWaiting(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	for _, n := range []int{0, 1, 70_000} {
		if _, err := b.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := raw(t, a).Control(func(fd uintptr) {
			if got := nonblock.Waiting(int(fd)); got != n {
				t.Errorf("%d bytes wait, want %d", got, n)
			}
			if got, err := nonblock.Receive(int(fd), make([]byte, 1<<20)); got != n || (err != nil) != (n == 0) {
				t.Errorf("received %d, %v; want %d", got, err, n)
			}
		}); err != nil {
			t.Error(err)
		}
	}
}
