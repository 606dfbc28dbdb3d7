package eventloop_test

import (
	"net"
	"os"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy/eventloop"
)

// A named socket is of a kind that package net does not know.
type named struct {
	*net.UnixConn
	name string
}

func (n *named) RemoteAddr() net.Addr { return &net.UnixAddr{Name: n.name, Net: "named"} }

func (n *named) Rebuild(file *os.File) (net.Conn, error) {
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return &named{c.(*net.UnixConn), n.name}, nil
}

// TestSockets: sockets of other kinds keep their addresses on a loop, and are of their
// kind again behind it.
func TestSockets(t *testing.T) {
	t.Parallel()
	e := engine(t)
	near, far := pair(t, "unix")
	s := &named{near.(*net.UnixConn), "us"}
	if !eventloop.Takes(s) {
		t.Fatal("not taken")
	}
	await(t, run(t, e, func(task *eventloop.Task) {
		c := take(t, task, s)
		if got := c.RemoteAddr(); got.String() != "us" || got.Network() != "named" {
			t.Errorf("on the loop it is %s", got)
		}
		_, _ = c.Write([]byte("x"))
		back, err := c.Return()
		if err != nil {
			t.Error(err)
			return
		}
		defer back.Close()
		if n, ok := back.(*named); !ok || n.name != "us" {
			t.Errorf("a %T came back", back)
		}
		_, _ = back.Write([]byte("y"))
	}), "the task")
	b := make([]byte, 3)
	for n := 0; n < 2; {
		m, err := far.Read(b[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(b[:2]) != "xy" {
		t.Errorf("the peer read %q", b[:2])
	}
}

// TestReturnElsewhere: whoever waits for a connection that another goroutine takes off
// the loop is resumed, and what comes later is the other's to read.
func TestReturnElsewhere(t *testing.T) {
	t.Parallel()
	e := engine(t)
	near, far := pair(t, "tcp")
	taken := make(chan *eventloop.Conn)
	got := make(chan error, 1)
	run(t, e, func(task *eventloop.Task) {
		c := take(t, task, near)
		taken <- c
		_, err := c.Read(make([]byte, 1))
		got <- err
	})
	back, err := (<-taken).Return()
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if err := <-got; err != net.ErrClosed {
		t.Errorf("Read says %v", err)
	}
	_, _ = far.Write([]byte("x"))
	if n, err := back.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
