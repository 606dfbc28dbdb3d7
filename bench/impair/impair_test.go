package impair_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/bench/impair"
)

// A duplex is one end of an in-memory connection that can be closed by halves,
// which net.Pipe cannot.
type duplex struct {
	net.Conn // nil: what is not below is not used
	r        *io.PipeReader
	w        *io.PipeWriter
}

func pair() (a, b duplex) {
	a.r, b.w = io.Pipe()
	b.r, a.w = io.Pipe()
	return a, b
}

func (d duplex) Read(b []byte) (int, error)  { return d.r.Read(b) }
func (d duplex) Write(b []byte) (int, error) { return d.w.Write(b) }
func (d duplex) CloseWrite() error           { return d.w.Close() }
func (d duplex) Close() error                { return errors.Join(d.w.Close(), d.r.Close()) }

// ends are the two users of an impaired line.
type ends struct {
	enclave, host duplex
	result        impair.Result
	err           error
	relay         sync.WaitGroup
}

// join starts a relay between two in-memory connections.
func join(ctx context.Context, o impair.Options) *ends {
	e := &ends{}
	var a, b duplex
	e.enclave, a = pair()
	b, e.host = pair()
	e.relay.Go(func() { e.result, e.err = impair.Relay(ctx, a, b, o) })
	return e
}

// done closes both ends and waits for the relay.
func (e *ends) done() {
	_ = e.enclave.Close()
	_ = e.host.Close()
	e.relay.Wait()
}

// send writes everything in the background, and ends the stream if last.
func (e *ends) send(wg *sync.WaitGroup, c duplex, last bool, pieces ...[]byte) {
	wg.Go(func() {
		for _, p := range pieces {
			if _, err := c.Write(p); err != nil {
				return // the reader's side sees what is missing
			}
		}
		if last {
			_ = c.CloseWrite()
		}
	})
}

func frame(i int) []byte {
	b := make([]byte, 2+60)
	binary.LittleEndian.PutUint16(b, 60)
	binary.BigEndian.PutUint32(b[2:], uint32(i))
	return b
}

func frames(n int) [][]byte {
	var all [][]byte
	for i := range n {
		all = append(all, frame(i))
	}
	return all
}

// receive reads numbered frames to the end of the stream.
func receive(t *testing.T, c io.Reader) (numbers []int) {
	t.Helper()
	buf := make([]byte, 62)
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			return numbers
		}
		if binary.LittleEndian.Uint16(buf) != 60 {
			t.Fatalf("the stream is out of step: % x", buf[:8])
		}
		numbers = append(numbers, int(binary.BigEndian.Uint32(buf[2:])))
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	const n = 2000
	tests := []struct {
		name    string
		profile impair.Profile
		check   func(t *testing.T, got []int, c impair.Counts)
	}{
		{"untouched", impair.Profile{}, func(t *testing.T, got []int, _ impair.Counts) {
			if len(got) != n || !slices.IsSorted(got) {
				t.Errorf("%d frames, in order: %t", len(got), slices.IsSorted(got))
			}
		}},
		{"loss", impair.Profile{Loss: 0.1}, func(t *testing.T, got []int, c impair.Counts) {
			if c.Lost < n/20 || int64(len(got)) != n-c.Lost || !slices.IsSorted(got) {
				t.Errorf("%d of %d frames, %d lost", len(got), n, c.Lost)
			}
		}},
		{"duplicates", impair.Profile{Duplicate: 0.1}, func(t *testing.T, got []int, c impair.Counts) {
			if c.Duplicated < n/20 || int64(len(got)) != n+c.Duplicated || len(slices.Compact(got)) != n {
				t.Errorf("%d frames, %d twice", len(got), c.Duplicated)
			}
		}},
		{"reordering", impair.Profile{Reorder: 0.1, Delay: time.Millisecond}, func(t *testing.T, got []int, c impair.Counts) {
			if c.Reordered < n/20 || slices.IsSorted(got) {
				t.Errorf("%d overtook, in order: %t", c.Reordered, slices.IsSorted(got))
			}
			slices.Sort(got)
			if len(slices.Compact(got)) != n {
				t.Errorf("%d different frames of %d", len(got), n)
			}
		}},
		{"a full queue", impair.Profile{Rate: 6200, Queue: 6200}, func(t *testing.T, got []int, c impair.Counts) {
			if len(got) != 100 || c.Overflowed != n-100 {
				t.Errorf("%d frames, %d overflowed; want the 100 that the queue holds", len(got), c.Overflowed)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := join(t.Context(), impair.Options{Frames: true, Uplink: tt.profile, Seed: 5})
				var sending sync.WaitGroup
				e.send(&sending, e.enclave, true, frames(n)...)
				got := receive(t, e.host)
				sending.Wait()
				e.done()
				if e.result.Uplink.Packets != n || e.result.Uplink.Bytes != n*62 || e.result.Downlink.Packets != 0 {
					t.Errorf("%+v, want %d packets uplink", e.result, n)
				}
				tt.check(t, got, e.result.Uplink)
			})
		})
	}
}

// TestDelay: it is as long as it was asked for, in both directions, and holds a
// stream's end back too.
func TestDelay(t *testing.T) {
	t.Parallel()
	for _, asFrames := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			e := join(t.Context(), impair.Options{
				Frames: asFrames, Uplink: impair.Profile{Delay: 20 * time.Millisecond}, Downlink: impair.Profile{Delay: 7 * time.Millisecond},
			})
			var sending sync.WaitGroup
			buf := make([]byte, 62)
			began := time.Now()
			e.send(&sending, e.enclave, false, frame(1))
			if _, err := io.ReadFull(e.host, buf); err != nil || time.Since(began) != 20*time.Millisecond {
				t.Errorf("uplink: %v after %v", err, time.Since(began))
			}
			began = time.Now()
			e.send(&sending, e.host, false, frame(2))
			if _, err := io.ReadFull(e.enclave, buf); err != nil || time.Since(began) != 7*time.Millisecond {
				t.Errorf("downlink: %v after %v", err, time.Since(began))
			}
			sending.Wait()
			began = time.Now()
			_ = e.enclave.CloseWrite()
			if n, err := e.host.Read(buf); n != 0 || err != io.EOF || time.Since(began) != 20*time.Millisecond {
				t.Errorf("the end: %d, %v after %v", n, err, time.Since(began))
			}
			e.done()
		})
	}
}

// TestStreamIsWhole: a stream arrives as it was sent, at its rate.
func TestStreamIsWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := join(t.Context(), impair.Options{
			Uplink: impair.Profile{Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond, Rate: 1_000_000, Queue: 10_000}, Seed: 9,
		})
		sent := make([]byte, 2_000_000)
		random := rand.New(rand.NewPCG(1, 1))
		for i := range sent {
			sent[i] = byte(random.Uint32())
		}
		var sending sync.WaitGroup
		began := time.Now()
		e.send(&sending, e.enclave, true, sent)
		got, err := io.ReadAll(e.host)
		took := time.Since(began)
		sending.Wait()
		e.done()
		if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
			t.Errorf("%d bytes of %d, changed or cut: %v", len(got), len(sent), err)
		}
		if took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("2 MB at 1 MB a second took %v", took)
		}
	})
}

// TestOpening: what opens the link reaches the other end whatever the loss, and
// decides the framing.
func TestOpening(t *testing.T) {
	t.Parallel()
	record := append([]byte{60, 0, 0, 0}, make([]byte, 60)...)
	control := append([]byte{8, 0, 0, 0x10}, "capacity"...)
	const upgrade = "Connection: Upgrade\r\nUpgrade: x\r\n\r\n"
	tests := []struct {
		name     string
		downlink bool
		sent     string
		got      string
		packets  int64
	}{
		{name: "gvproxy's request", sent: "POST /connect HTTP/1.1\r\nHost: \r\n\r\n" + string(frame(7)), got: "POST /connect HTTP/1.1\r\nHost: \r\n\r\n", packets: 1},
		{name: "a request for more", sent: "POST /more HTTP/1.1\r\n" + upgrade + string(record) + string(record), got: "POST /more HTTP/1.1\r\n" + upgrade, packets: 2},
		{name: "an answer, and control", downlink: true, sent: "HTTP/1.1 101 Switching Protocols\r\n" + upgrade + string(control) + string(record),
			got: "HTTP/1.1 101 Switching Protocols\r\n" + upgrade + string(control), packets: 1},
		{name: "a refusal", downlink: true, sent: "HTTP/1.1 404 Not Found\r\n\r\nno such link", got: "HTTP/1.1 404 Not Found\r\n\r\nno such link"},
		{name: "frames at once", downlink: true, sent: string(frame(7)), packets: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				all := impair.Profile{Loss: 1}
				e := join(t.Context(), impair.Options{Frames: true, Uplink: all, Downlink: all})
				from, to := e.enclave, e.host
				if tt.downlink {
					from, to = e.host, e.enclave
				}
				var sending sync.WaitGroup
				e.send(&sending, from, true, []byte(tt.sent))
				got, _ := io.ReadAll(to)
				sending.Wait()
				e.done()
				if string(got) != tt.got || e.result.Uplink.Lost+e.result.Downlink.Lost != tt.packets {
					t.Errorf("%q arrived, %+v; want %q and %d lost", got, e.result, tt.got, tt.packets)
				}
			})
		})
	}
}

func TestWhatIsNoLink(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, sent, want string
	}{
		{"cut at the start", "POS", "unexpected EOF"},
		{"cut in a request", "POST /connect HTTP/1.1\r\n", "unexpected EOF"},
		{"an endless request", "POST " + strings.Repeat("x", 10_000), "before the first frame"},
		{"cut in a frame", string(frame(1)[:20]), "unexpected EOF"},
		{"cut in a length", "POST / HTTP/1.1\r\n\r\n\x3c", "unexpected EOF"},
		{"a length beyond all", "POST / HTTP/1.1\r\nUpgrade: x\r\n\r\n\xff\xff\xff\x0f", "no link frames"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := join(t.Context(), impair.Options{Frames: true})
				var sending sync.WaitGroup
				e.send(&sending, e.enclave, true, []byte(tt.sent))
				_, _ = io.Copy(io.Discard, e.host)
				e.done()
				sending.Wait()
				if e.err == nil || !strings.Contains(e.err.Error(), tt.want) {
					t.Errorf("%v, want %q", e.err, tt.want)
				}
			})
		})
	}
}

func TestStreamsLoseNothing(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	if _, err := impair.Relay(t.Context(), a, b, impair.Options{Downlink: impair.Profile{Loss: 0.1}}); err == nil {
		t.Error("a stream with loss was accepted")
	}
	if _, err := a.Write([]byte("x")); err == nil {
		t.Error("the connections were left open")
	}
}

func TestStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		e := join(ctx, impair.Options{Uplink: impair.Profile{Delay: time.Minute, Rate: 10, Queue: 1}})
		var sending sync.WaitGroup
		e.send(&sending, e.enclave, false, bytes.Repeat([]byte("x"), 10_000)) // more than the line holds
		synctest.Wait()
		cancel(enough)
		e.relay.Wait() // without simulated time passing, or it would be a deadlock
		if !errors.Is(e.err, enough) {
			t.Errorf("%v, want the cause", e.err)
		}
		e.done()
		sending.Wait()
	})
}
