package relay

import (
	"bytes"
	"errors"
	"net"
	"syscall"
	"testing"
)

// datagramPair is two UDP sockets of loopback that talk to each other.
func datagramPair(t *testing.T) (near, far *net.UDPConn) {
	t.Helper()
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	near, err = net.DialUDP("udp4", nil, far.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

func TestDatagrams(t *testing.T) {
	t.Parallel()
	near, far := datagramPair(t)
	d := NewDatagrams(near)
	for _, sent := range [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), MaxDatagram), []byte("two")} {
		if _, err := far.WriteTo(sent, near.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Next(); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes, %v; want %d", len(got), err, len(sent))
		}
	}
	// The error of one datagram is not the end of the others.
	far.Close()
	if _, err := near.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Next of a socket that was refused = %v, want ECONNREFUSED", err)
	}
	near.Close()
	if _, err := d.Next(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Next of a closed socket = %v, want net.ErrClosed", err)
	}
}

// TestQuietDatagramsHoldNoBuffer: also after one has come, and while Next waits.
func TestQuietDatagramsHoldNoBuffer(t *testing.T) {
	t.Parallel()
	near, far := datagramPair(t)
	d := NewDatagrams(near)
	if d.raw == nil {
		t.Skipf("needs sockets that can be read while they are waited for (remedy: run on a unix)")
	}
	waits := make(chan bool, 1)
	d.read = func(fd uintptr) bool {
		done := d.readSocket(fd)
		if !done {
			waits <- d.buf == nil
		}
		return done
	}
	came := make(chan int)
	go func() {
		defer close(came)
		for {
			got, err := d.Next()
			if err != nil {
				return
			}
			came <- len(got)
		}
	}()
	for range 3 {
		if empty := <-waits; !empty {
			t.Error("a buffer is held while there is nothing in it")
		}
		if _, err := far.WriteTo([]byte("ping"), near.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if n := <-came; n != 4 {
			t.Errorf("a datagram of %d bytes, want 4", n)
		}
	}
	<-waits
	near.Close()
	<-came
}

// awaited is a connection that is no socket and can be waited for.
type awaited struct {
	net.Conn
	readable chan struct{}
}

func (a awaited) AwaitReadable() { <-a.readable }

func TestDatagramsOfWhatCanBeWaitedFor(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	a := awaited{near, make(chan struct{})}
	d := NewDatagrams(a)
	go func() {
		a.readable <- struct{}{} // Next waits, and so holds nothing
		far.Write([]byte("hello"))
	}()
	if got, err := d.Next(); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if d.Done(); d.buf != nil {
		t.Error("Done gives nothing back")
	}
}

func TestDatagramsAllocateNothing(t *testing.T) {
	near, far := datagramPair(t)
	d := NewDatagrams(near)
	to := near.LocalAddr().(*net.UDPAddr).AddrPort()
	sent := []byte("hello")
	step := func() {
		if _, err := far.WriteToUDPAddrPort(sent, to); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations for each datagram", n)
	}
}
