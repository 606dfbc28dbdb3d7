package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/nonblock"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
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
		if err := newWriter(host, 0, new(counters)).writeAll([][]byte{make([]byte, 4)}); err != nil {
			t.Errorf("slow peer: writeAll = %v after %s", err, time.Since(start))
		}
		reading.Wait()
		start = time.Now()
		if err := newWriter(host, 0, new(counters)).writeAll([][]byte{make([]byte, 4)}); !errors.Is(err, ErrStalled) {
			t.Errorf("stalled peer: writeAll = %v, want ErrStalled", err)
		}
		if took := time.Since(start); took != writeTimeout {
			t.Errorf("gave up after %s, want %s", took, writeTimeout)
		}
		enclave.Close()
		if err := newWriter(host, 0, new(counters)).writeAll([][]byte{make([]byte, 4)}); err == nil || errors.Is(err, ErrStalled) {
			t.Errorf("closed peer: writeAll = %v, want its error", err)
		}
	})
}

// TestWriterKeepsOrder writes pieces of all sizes, by sockets that take them with
// one call and by pipes that do not, through writes of every limit.
func TestWriterKeepsOrder(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 1000, 31 << 10} {
		for name, pair := range map[string]func(*testing.T) (net.Conn, net.Conn){"socket": socketPair, "pipe": pipePair} {
			host, enclave := pair(t)
			var pieces [][]byte
			for i := range 30 { // more than one call takes
				pieces = append(pieces, bytes.Repeat([]byte{byte(i)}, i*i*100))
			}
			want := slices.Concat(pieces...)
			got := make([]byte, len(want))
			var reading sync.WaitGroup
			reading.Go(func() {
				if _, err := io.ReadFull(enclave, got); err != nil {
					t.Errorf("%s: read: %v", name, err)
				}
			})
			counts := new(counters)
			if err := newWriter(host, limit, counts).writeAll(pieces); err != nil {
				t.Errorf("%s: writeAll = %v", name, err)
			}
			reading.Wait()
			if !bytes.Equal(got, want) {
				t.Errorf("%s, limit %d: other bytes arrive", name, limit)
			}
			if writes := int(counts.writes.Load()); limit > 0 && writes < len(want)/limit {
				t.Errorf("%s: %d bytes in %d writes of at most %d", name, len(want), writes, limit)
			}
			enclave.Close()
			if err := newWriter(host, limit, counts).writeAll([][]byte{want}); err == nil {
				t.Errorf("%s: no error where nobody reads any more", name)
			}
			host.Close()
		}
	}
}

// TestWriterAllocatesNothing where it gathers.
func TestWriterAllocatesNothing(t *testing.T) {
	host, enclave := socketPair(t)
	defer host.Close()
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, enclave) })
	defer reading.Wait()
	defer host.Close()
	w := newWriter(host, 0, new(counters))
	if !nonblock.Possible {
		tapstacktest.Require(t, errors.ErrUnsupported, "writes that gather", "run on Linux")
	}
	header, payload, pieces := make([]byte, 80), make([]byte, 16<<10), make([][]byte, 20)
	n := testing.AllocsPerRun(200, func() {
		for i := range pieces {
			pieces[i] = [...][]byte{header, payload}[i%2]
		}
		if err := w.writeAll(pieces); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("a write allocates %v times, want 0", n)
	}
}

func pipePair(*testing.T) (host, enclave net.Conn) { return net.Pipe() }

func socketPair(t *testing.T) (host, enclave net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if host, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if enclave, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return host, enclave
}
