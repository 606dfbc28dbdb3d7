package tapstack_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// numbered returns a frame of random length with a number and a checksum in it,
// so that a frame that was cut, joined or repeated is found out.
func numbered(random *rand.Rand, number uint32) []byte {
	payload := make([]byte, 8+random.IntN(tapstack.DefaultMTU-8+1))
	for i := range payload {
		payload[i] = byte(random.Uint32())
	}
	binary.BigEndian.PutUint32(payload[4:], number)
	binary.BigEndian.PutUint32(payload, crc32.ChecksumIEEE(payload[4:]))
	return tapstacktest.Ethernet(tapstack.GatewayMAC(), tapstack.EnclaveMAC(), tapstacktest.EtherTypeIPv4, payload)
}

// numberOf returns the number of an intact frame, and false for a damaged one.
func numberOf(frame []byte) (uint32, bool) {
	if len(frame) < tapstack.MinFrame+8 {
		return 0, false
	}
	payload := frame[tapstack.MinFrame:]
	return binary.BigEndian.Uint32(payload[4:]), binary.BigEndian.Uint32(payload) == crc32.ChecksumIEEE(payload[4:])
}

// A cutConn dies after a number of bytes in either direction, in the middle of
// a write if that is where the number falls.
type cutConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutConn) take(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.left)
	c.left -= n
	return n
}

func (c *cutConn) Write(b []byte) (int, error) {
	n := c.take(len(b))
	wrote, err := c.Conn.Write(b[:n])
	if err == nil && n < len(b) {
		c.Close()
		err = io.ErrClosedPipe
	}
	return wrote, err
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.take(n) < n {
		c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// TestLinkOverStreamsThatAreCut cuts every stream at a random byte of either
// direction and demands that frames keep passing, that none is damaged, and
// that they arrive in order.
func TestLinkOverStreamsThatAreCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			up := make(chan []byte)
			stop := make(chan struct{})
			host := &cutHost{r: r, random: rand.New(rand.NewPCG(seed, 2)), uplink: up, stop: stop}
			var work sync.WaitGroup
			defer work.Wait()
			defer close(stop)
			defer r.app.Close()
			work.Go(host.run)
			feed := rand.New(rand.NewPCG(seed, 3))
			work.Go(func() {
				for number := uint32(1); r.app.WriteFrame(plain(numbered(feed, number))) == nil; number++ {
				}
			})
			down := make(chan []byte)
			work.Go(func() { readAll(r.app, down, stop) })

			upOrder, downOrder := order{name: "uplink"}, order{name: "downlink"}
			for upOrder.count < 300 || downOrder.count < 300 || r.link.Status().Reconnects < 20 {
				select {
				case frame := <-up:
					upOrder.check(t, frame)
				case frame := <-down:
					downOrder.check(t, frame)
				}
			}
			if got := r.link.Status().Drops; got != (tapstack.LinkDrops{}) {
				t.Errorf("seed %d: drops %+v, want none", seed, got)
			}
		})
	}
}

// order checks the frames of one direction.
type order struct {
	name        string
	count, last uint32
}

func (o *order) check(t *testing.T, frame []byte) {
	t.Helper()
	number, intact := numberOf(frame)
	if !intact {
		t.Fatalf("%s: frame behind number %d is damaged: % x", o.name, o.last, frame)
	}
	// The same uplink number twice is a frame that was on its way when the
	// stream died: it is sent again.
	if number < o.last {
		t.Fatalf("%s: frame %d behind %d", o.name, number, o.last)
	}
	o.last = number
	o.count++
}

func readAll(d *tapstacktest.Device, to chan<- []byte, stop <-chan struct{}) {
	buf := make([]byte, tapstack.MaxFrame)
	for {
		n, err := d.ReadFrame(buf)
		if err != nil {
			return
		}
		select {
		case to <- bytes.Clone(buf[tapstack.OffloadHeader:n]):
		case <-stop:
			return
		}
	}
}

// A cutHost serves a Link over streams that die.
type cutHost struct {
	r      *rig
	random *rand.Rand
	uplink chan<- []byte
	stop   <-chan struct{}
	number uint32 // of the last downlink frame
}

func (h *cutHost) run() {
	for {
		select {
		case conn := <-h.r.streams:
			h.serve(&cutConn{Conn: conn, left: h.random.IntN(60_000)})
		case <-h.stop:
			return
		}
	}
}

// serve answers the request and the probe, then sends and receives until the
// stream is cut.
func (h *cutHost) serve(conn *cutConn) {
	defer conn.Close()
	if _, err := io.CopyN(io.Discard, conn, int64(len(vector(h.r.t, "connect-request.hex")))); err != nil {
		return
	}
	frames := tapstack.NewFrameReader(conn, tapstack.Plain, tapstack.MaxFrame)
	buf := make([]byte, tapstack.MaxFrame)
	if _, err := readInto(frames, buf); err != nil { // the probe
		return
	}
	if _, err := conn.Write(vector(h.r.t, "arp-reply.hex")); err != nil {
		return
	}
	var downlink sync.WaitGroup
	defer downlink.Wait()
	defer conn.Close()
	downlink.Go(func() {
		for {
			h.number++
			if _, err := conn.Write(tapstack.AppendFrame(nil, numbered(h.random, h.number))); err != nil {
				return
			}
		}
	})
	for {
		n, err := readInto(frames, buf)
		if err != nil {
			return
		}
		select {
		case h.uplink <- bytes.Clone(buf[:n]):
		case <-h.stop:
			return
		}
	}
}

// FuzzDownlink: whatever a host sends behind its ARP reply, the link delivers
// exactly the frames in front of the first mistake, and comes back after it.
func FuzzDownlink(f *testing.F) {
	for _, name := range []string{"frames-two.hex", "frame-short.hex", "frame-zero.hex", "frame-cut.hex", "arp-reply.hex"} {
		f.Add(vector(f, name))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			want := framesIn(in)
			r := newRig(t, nil)
			h := r.acceptUp()
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				_, _ = h.Write(in) // fails when the link closes in the middle
				h.Close()
			}()
			for i, frame := range want {
				if got := r.readDown(); !bytes.Equal(got, frame) {
					t.Fatalf("frame %d is % x, want % x", i, got, frame)
				}
			}
			<-wrote
			r.acceptUp()
			if got := r.link.Status().Downlink.Frames; got != uint64(len(want)) {
				t.Fatalf("%d frames delivered, want %d", got, len(want))
			}
		})
	})
}

// framesIn is the slow and obvious reader: it cuts b at its lengths.
func framesIn(b []byte) (frames [][]byte) {
	for len(b) >= 2 {
		n := int(b[0]) | int(b[1])<<8
		if n < 14 || n > 1514 || len(b) < 2+n {
			break
		}
		frames = append(frames, b[2:2+n])
		b = b[2+n:]
	}
	return frames
}

func TestLinkMovesFramesWithoutAllocating(t *testing.T) {
	r := newRig(t, nil)
	h := r.acceptUp()
	frame := frameOf(string(make([]byte, 1000)))
	stream := tapstack.AppendFrame(nil, frame)
	buf := make([]byte, tapstack.MaxFrame)
	up := plain(frame)
	roundTrip := func() {
		if err := r.app.WriteFrame(up); err != nil {
			t.Fatal(err)
		}
		if _, err := readInto(h.frames, buf); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Write(stream); err != nil {
			t.Fatal(err)
		}
		if _, err := r.app.ReadFrame(buf); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 { // every buffer of the Pipe has been used
		roundTrip()
	}
	if allocs := testing.AllocsPerRun(1000, roundTrip); allocs != 0 {
		t.Errorf("a frame in each direction allocates %v times, want 0", allocs)
	}
}
