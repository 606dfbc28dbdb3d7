package eventloop_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/revproxy/eventloop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a broken test waits for.
const patience = 10 * time.Second

// engine is one with a single loop, so that tasks meet each other.
func engine(t *testing.T) *eventloop.Engine {
	t.Helper()
	e := &eventloop.Engine{}
	if _, err := e.Open(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// run runs f as a task, and returns what is closed at its end.
func run(t *testing.T, e *eventloop.Engine, f func(*eventloop.Task)) <-chan struct{} {
	t.Helper()
	ended := make(chan struct{})
	if !e.Go(func(task *eventloop.Task) {
		defer close(ended)
		f(task)
	}) {
		t.Fatal("the engine takes no task")
	}
	t.Cleanup(func() { await(t, ended, "the end of a task") })
	return ended
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

// pair is two ends of a connection, closed with the test.
func pair(t *testing.T, network string) (near, far net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	deadline := time.Now().Add(patience)
	_ = far.SetDeadline(deadline)
	return near, far
}

// take brings a connection to the loop; what waits for it gives up in the end.
func take(t *testing.T, task *eventloop.Task, c net.Conn) *eventloop.Conn {
	t.Helper()
	x, err := task.Take(c)
	if err != nil {
		t.Errorf("Take: %v", err)
		return nil
	}
	_ = x.SetReadDeadline(time.Now().Add(patience))
	return x
}

var networks = []string{"tcp", "unix"}

func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	e := engine(t)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if eventloop.Takes(a) {
		t.Error("Takes a pipe, which is no socket")
	}
	closed, _ := pair(t, "tcp")
	closed.Close()
	await(t, run(t, e, func(task *eventloop.Task) {
		for name, c := range map[string]net.Conn{"pipe": a, "closed": closed} {
			if _, err := task.Take(c); err == nil {
				t.Errorf("%s: taken", name)
			}
		}
	}), "the task")
}

func TestGoWithoutLoops(t *testing.T) {
	t.Parallel()
	var e eventloop.Engine
	if e.Go(func(*eventloop.Task) {}) {
		t.Error("a task was begun")
	}
}

// TestBytesArrive moves more than sockets hold, both ways at once, between tasks of
// one loop and goroutines.
func TestBytesArrive(t *testing.T) {
	t.Parallel()
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			e := engine(t)
			for i := range 4 {
				near, far := pair(t, network)
				run(t, e, func(task *eventloop.Task) {
					c := take(t, task, near)
					defer c.Close()
					if _, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 1<<(10+2*i))); err != nil {
						t.Errorf("echo: %v", err)
					}
				})
				sent := bytes.Repeat([]byte{byte(i), 1, 2, 3, 5, 8, 13}, 1<<18)
				var writing sync.WaitGroup
				writing.Go(func() {
					if _, err := far.Write(sent); err != nil {
						t.Error(err)
					}
					_ = far.(interface{ CloseWrite() error }).CloseWrite()
				})
				got, err := io.ReadAll(far)
				if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
					t.Errorf("%d bytes came back of %d, or others: %v", len(got), len(sent), err)
				}
				writing.Wait()
			}
		})
	}
}

func TestReadWaitsNoLongerThanTold(t *testing.T) {
	t.Parallel()
	e := engine(t)
	near, far := pair(t, "tcp")
	read := make(chan error, 3)
	ended := run(t, e, func(task *eventloop.Task) {
		c := take(t, task, near)
		defer c.Close()
		var b [1]byte
		for _, until := range []time.Duration{-time.Second, 5 * time.Millisecond, patience} {
			_ = c.SetReadDeadline(time.Now().Add(until))
			_, err := c.Read(b[:])
			read <- err
		}
	})
	for range 2 {
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read with nothing to read: %v", err)
		}
	}
	_, _ = far.Write([]byte("x"))
	if err := <-read; err != nil {
		t.Errorf("Read after two deadlines: %v", err)
	}
	await(t, ended, "the task")
}

func TestWriteGivesUpOnStalledPeer(t *testing.T) {
	t.Parallel()
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			e := engine(t)
			near, far := pair(t, network)
			stalled := make(chan error, 1)
			run(t, e, func(task *eventloop.Task) {
				c := take(t, task, near)
				_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
				defer c.Close()
				_, err := c.Write(make([]byte, 64<<20))
				stalled <- err
			})
			if err := <-stalled; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write to a peer that takes nothing: %v", err)
			}
			_ = far
		})
	}
}

func TestEndsAreTold(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  func(far net.Conn)
		want func(error) bool
	}{
		{"reset", func(far net.Conn) { _ = far.(*net.TCPConn).SetLinger(0); far.Close() }, func(err error) bool { return err != nil && err != io.EOF }},
		{"closed", func(far net.Conn) { far.Close() }, func(err error) bool { return err == io.EOF }},
		{"half closed", func(far net.Conn) { _ = far.(*net.TCPConn).CloseWrite() }, func(err error) bool { return err == io.EOF }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := engine(t)
			near, far := pair(t, "tcp")
			_, _ = far.Write([]byte("last"))
			read := make(chan string, 2)
			ended := run(t, e, func(task *eventloop.Task) {
				c := take(t, task, near)
				defer c.Close()
				b := make([]byte, 64)
				n, err := c.Read(b)
				read <- string(b[:n])
				if err == nil {
					_, err = c.Read(b)
				}
				if !tt.want(err) {
					t.Errorf("the end: %v", err)
				}
				if !c.Gone() || c.Quiet(false) || c.Quiet(true) {
					t.Error("nothing is known of the end")
				}
			})
			if got := <-read; got != "last" {
				t.Errorf("read %q before the end", got)
			}
			tt.end(far)
			await(t, ended, "the end")
		})
	}
}

// TestCloseElsewhere: whoever waits for a connection that another goroutine closes
// is resumed, also if it waits for another connection and minds that one.
func TestCloseElsewhere(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		wait func(task *eventloop.Task, closed, other *eventloop.Conn) error
		want error
	}{
		{"read", func(_ *eventloop.Task, closed, _ *eventloop.Conn) error {
			_, err := closed.Read(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"write", func(_ *eventloop.Task, closed, _ *eventloop.Conn) error {
			_, err := closed.Write(make([]byte, 64<<20))
			return err
		}, net.ErrClosed},
		{"minded", func(task *eventloop.Task, closed, other *eventloop.Conn) error {
			task.Mind(closed, false)
			_, err := other.Read(make([]byte, 1))
			return err
		}, eventloop.ErrGone},
		{"closed before", func(task *eventloop.Task, closed, other *eventloop.Conn) error {
			closed.Close()
			task.Mind(closed, false)
			_, err := other.Read(make([]byte, 1))
			return err
		}, eventloop.ErrGone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := engine(t)
			near, _ := pair(t, "tcp")
			other, _ := pair(t, "tcp")
			taken := make(chan *eventloop.Conn)
			got := make(chan error, 1)
			run(t, e, func(task *eventloop.Task) {
				c, o := take(t, task, near), take(t, task, other)
				defer o.Close()
				taken <- c
				got <- tt.wait(task, c, o)
			})
			c := <-taken
			c.Close()
			if err := <-got; !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if c.Close() == nil {
				t.Error("closed twice")
			}
		})
	}
}

func TestMindsPeer(t *testing.T) {
	t.Parallel()
	e := engine(t)
	client, far := pair(t, "tcp")
	app, answers := pair(t, "tcp")
	first, gone := make(chan struct{}), make(chan struct{})
	ended := run(t, e, func(task *eventloop.Task) {
		c, a := take(t, task, client), take(t, task, app)
		defer c.Close()
		defer a.Close()
		b := make([]byte, 8)
		task.Mind(c, true)
		if n, err := a.Read(b); n != 1 || err != nil {
			t.Errorf("Read while a peer is there that only speaks: %d, %v", n, err)
		}
		close(first)
		if _, err := a.Read(b); !errors.Is(err, eventloop.ErrGone) {
			t.Errorf("Read while the minded peer goes: %v", err)
		}
		close(gone)
		task.Mind(c, false)
		if n, err := a.Read(b); n != 1 || err != nil {
			t.Errorf("Read when the peer is no longer minded: %d, %v", n, err)
		}
	})
	_, _ = far.Write([]byte("next"))
	_, _ = answers.Write([]byte("1"))
	await(t, first, "the first answer")
	_ = far.(*net.TCPConn).CloseWrite()
	await(t, gone, "the end of the minded peer")
	_, _ = answers.Write([]byte("2"))
	await(t, ended, "the task")
}

// What a task waited for came before Now, and Now is not ahead of the clock.
func TestNowIsBehindWhatCame(t *testing.T) {
	near, far := pair(t, "unix")
	defer far.Close()
	sent := make(chan time.Time, 1)
	done := run(t, engine(t), func(task *eventloop.Task) {
		c := take(t, task, near)
		defer c.Close()
		begin := task.Now()
		task.Do(func() {
			sent <- time.Now()
			_, _ = far.Write([]byte("x"))
		})
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if now, was := task.Now(), <-sent; now.Before(was) || now.Before(begin) || now.After(time.Now()) {
			t.Errorf("sent at %v, and it is %v", was, now)
		}
	})
	await(t, done, "the task")
}

// TestDoLeavesTheLoop: while one task waits for a goroutine, others go on.
func TestDoLeavesTheLoop(t *testing.T) {
	t.Parallel()
	e := engine(t)
	release, done := make(chan struct{}), false
	first := run(t, e, func(task *eventloop.Task) {
		task.Do(func() { <-release; done = true })
		if !done {
			t.Error("Do returned before its function")
		}
	})
	near, far := pair(t, "tcp")
	second := run(t, e, func(task *eventloop.Task) {
		c := take(t, task, near)
		defer c.Close()
		_, _ = c.Write([]byte("x"))
	})
	if n, err := far.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the loop stood still: %v", err)
	}
	await(t, second, "the second task")
	close(release)
	await(t, first, "the first task")
}

// TestTurns: a task whose socket always has something does not keep others from
// their turn.
func TestTurns(t *testing.T) {
	t.Parallel()
	e := engine(t)
	busy, flood := pair(t, "tcp")
	var pouring sync.WaitGroup
	pouring.Go(func() {
		for b := make([]byte, 64<<10); ; {
			if _, err := flood.Write(b); err != nil {
				return
			}
		}
	})
	stop := make(chan struct{})
	run(t, e, func(task *eventloop.Task) {
		c := take(t, task, busy)
		defer c.Close()
		for b := make([]byte, 1); ; {
			if _, err := c.Read(b); err != nil {
				t.Errorf("the flood: %v", err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	near, far := pair(t, "tcp")
	other := run(t, e, func(task *eventloop.Task) {
		c := take(t, task, near)
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write([]byte("y"))
	})
	_, _ = far.Write([]byte("x"))
	if n, err := far.Read(make([]byte, 1)); n != 1 {
		t.Errorf("no turn for the other: %v", err)
	}
	await(t, other, "the other task")
	close(stop)
	pouring.Wait()
}

// TestReturn: what a socket holds is the runtime's to read then.
func TestReturn(t *testing.T) {
	t.Parallel()
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			e := engine(t)
			near, far := pair(t, network)
			_, _ = far.Write([]byte("abc"))
			returned := make(chan net.Conn, 1)
			ended := run(t, e, func(task *eventloop.Task) {
				c := take(t, task, near)
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Error(err)
				}
				back, err := c.Return()
				if err != nil {
					t.Error(err)
				}
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read of what was returned: %v", err)
				}
				if _, err := c.Return(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("returned twice: %v", err)
				}
				returned <- back
			})
			await(t, ended, "the task")
			back := <-returned
			defer back.Close()
			b := make([]byte, 2)
			if _, err := io.ReadFull(back, b); err != nil || string(b) != "bc" {
				t.Errorf("read %q, %v", b, err)
			}
			_, _ = back.Write([]byte("d"))
			if n, err := far.Read(b); n != 1 || b[0] != 'd' {
				t.Errorf("the peer read %q, %v", b[:n], err)
			}
		})
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	e := engine(t)
	near, far := pair(t, "unix")
	wrote := make(chan struct{})
	asked := make(chan struct{})
	ended := run(t, e, func(task *eventloop.Task) {
		c := take(t, task, near)
		defer c.Close()
		if !c.Quiet(true) || !c.Quiet(false) {
			t.Error("a fresh connection is not quiet")
		}
		close(asked)
		task.Do(func() { <-wrote })
		if c.Quiet(true) {
			t.Error("quiet after the peer wrote")
		}
		if err := c.Wait(); err != nil || c.Quiet(false) {
			t.Errorf("quiet after the loop was told: %v", err)
		}
		_, _ = c.Read(make([]byte, 8))
		if !c.Quiet(true) || !c.Quiet(false) {
			t.Error("not quiet after all was read")
		}
	})
	await(t, asked, "the first look")
	_, _ = far.Write([]byte("x"))
	close(wrote)
	await(t, ended, "the task")
}

func TestMessagesAllocateNothing(t *testing.T) {
	e := engine(t)
	near, far := pair(t, "unix")
	run(t, e, func(task *eventloop.Task) {
		c := take(t, task, near)
		defer c.Close()
		b := make([]byte, 64)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			_, _ = c.Write(b[:n])
		}
	})
	const messages = 2000
	b := make([]byte, 64)
	var before, after runtime.MemStats
	for i := range 2 * messages {
		if i == messages { // AllocsPerRun would leave one processor
			runtime.ReadMemStats(&before)
		}
		_, _ = far.Write(b[:5])
		_, _ = far.Read(b)
	}
	runtime.ReadMemStats(&after)
	// A wait that is long, on a machine that does other things, is left to the runtime,
	// which allocates; so is each where there is one processor.
	most := uint64(messages / 2)
	if runtime.GOMAXPROCS(0) == 1 {
		most = 3 * messages
	}
	if n := after.Mallocs - before.Mallocs; n > most {
		t.Errorf("%d allocations for %d messages", n, messages)
	}
	far.Close()
}
