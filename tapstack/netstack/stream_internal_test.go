package netstack

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWriteAllGivesUpOnlyWhenNothingMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host, enclave := net.Pipe()
		defer host.Close()
		var reading sync.WaitGroup
		reading.Go(func() {
			buf := make([]byte, 1)
			for range 4 { // slower than the timeout in all, but moving
				time.Sleep(writeTimeout * 9 / 10)
				if _, err := io.ReadFull(enclave, buf); err != nil {
					t.Errorf("read: %v", err)
				}
			}
		})
		start := time.Now()
		if err := new(Stack).writeAll(host, make([]byte, 4)); err != nil {
			t.Errorf("slow peer: writeAll = %v after %s", err, time.Since(start))
		}
		reading.Wait()
		start = time.Now()
		if err := new(Stack).writeAll(host, make([]byte, 4)); !errors.Is(err, ErrStalled) {
			t.Errorf("stalled peer: writeAll = %v, want ErrStalled", err)
		}
		if took := time.Since(start); took != writeTimeout {
			t.Errorf("gave up after %s, want %s", took, writeTimeout)
		}
		enclave.Close()
		if err := new(Stack).writeAll(host, make([]byte, 4)); err == nil || errors.Is(err, ErrStalled) {
			t.Errorf("closed peer: writeAll = %v, want its error", err)
		}
	})
}
