package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/revproxy/eventloop"
	"github.com/corridor-enclave/corridor/tapstack/stream"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const loopPort = 9998

// A looped is one end of a stream on an event loop, which echoes, and the other end.
type looped struct {
	inside *stream.Lingering
	peer   *stream.Conn
	socket chan *eventloop.Conn // once it is on the loop
	ended  chan error           // of the echo
}

// loops checks that sockets of AF_VSOCK are served on event loops as others are: their
// bytes, their ends, ends from elsewhere, and the way back.
func loops(ctx context.Context, vsock vsockconn.Transport) (values, error) {
	listener, err := vsock.Listen(loopPort)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	var engine eventloop.Engine
	if _, err := engine.Open(1); err != nil {
		return nil, err
	}
	defer engine.Close()
	var lingering sync.WaitGroup
	defer lingering.Wait()
	const n = 8 << 20
	for _, check := range []struct {
		name string
		does func(*looped) error
		want error // what ends the echo
	}{
		{"bytes and an end", func(l *looped) error { return l.bulk(n) }, nil},
		{"peer gives up", func(l *looped) error { return l.peer.Close() }, syscall.ECONNRESET},
		{"closed elsewhere", func(l *looped) error { return l.closed() }, net.ErrClosed},
		{"reset elsewhere", func(l *looped) error { return l.reset() }, net.ErrClosed},
		{"returned", func(l *looped) error { return l.returned() }, net.ErrClosed},
	} {
		l, err := newLooped(ctx, vsock, listener, &engine, &lingering)
		if err != nil {
			return nil, fmt.Errorf("guest: loops: %w", err)
		}
		err = errors.Join(l.ping(), check.does(l))
		ended := <-l.ended
		_ = l.peer.Close()
		if err != nil || !errors.Is(ended, check.want) {
			return nil, fmt.Errorf("guest: loops: %s: %w; the echo ended with %w, want %w", check.name, err, ended, check.want)
		}
	}
	return values{"bytes": n}, nil
}

func newLooped(ctx context.Context, vsock vsockconn.Transport, listener net.Listener, engine *eventloop.Engine, lingering *sync.WaitGroup) (*looped, error) {
	dialed, err := vsock.Dial(ctx, vsockconn.Addr{CID: vsockconn.CIDLocal, Port: loopPort})
	if err != nil {
		return nil, err
	}
	accepted, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	l := &looped{
		inside: stream.Linger(stream.New(accepted), lingering), peer: stream.New(dialed),
		socket: make(chan *eventloop.Conn, 1), ended: make(chan error, 1),
	}
	engine.Go(func(task *eventloop.Task) {
		socket, err := task.Take(l.inside.Inner())
		if err != nil {
			l.ended <- err
			return
		}
		l.inside.Move(socket)
		l.socket <- socket
		_, err = io.Copy(struct{ io.Writer }{l.inside}, struct{ io.Reader }{l.inside})
		_ = l.inside.Close()
		l.ended <- err
	})
	return l, l.peer.SetDeadline(time.Now().Add(patience))
}

// ping has one byte come back.
func (l *looped) ping() error {
	if _, err := l.peer.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(l.peer, make([]byte, 1))
	return err
}

// bulk has more come back than all buffers hold, and the end behind it.
func (l *looped) bulk(n int64) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(l.peer, sampleapp.Pattern(n))
		sent <- errors.Join(err, l.peer.CloseWrite())
	}()
	time.Sleep(100 * time.Millisecond) // until the task has to wait for room, most likely
	sum := sha256.New()
	got, err := io.Copy(sum, l.peer)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if hex := fmt.Sprintf("%x", sum.Sum(nil)); got != n || hex != sampleapp.PatternSHA256(n) {
		return fmt.Errorf("%d bytes with SHA-256 %s came back", got, hex)
	}
	return nil
}

// closed closes the end that is on the loop: its peer may go on for a while.
func (l *looped) closed() error {
	if err := l.inside.Close(); err != nil {
		return err
	}
	if got, err := io.ReadAll(l.peer); len(got) > 0 || err != nil {
		return fmt.Errorf("%q came, and %w", got, err)
	}
	_, err := io.WriteString(l.peer, "too late")
	return errors.Join(err, l.peer.CloseWrite())
}

// reset cuts the end that is on the loop.
func (l *looped) reset() error {
	if err := l.inside.Reset(); err != nil {
		return err
	}
	if _, err := io.ReadAll(l.peer); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("the peer reads with %w", err)
	}
	return nil
}

// returned takes the socket off the loop, and goes on without.
func (l *looped) returned() error {
	back, err := (<-l.socket).Return()
	if err != nil {
		return err
	}
	defer back.Close()
	if cid, ok := vsockconn.PeerCID(back); !ok || cid != vsockconn.CIDLocal {
		return fmt.Errorf("then the peer is %s", back.RemoteAddr())
	}
	c := stream.New(back)
	if _, err := io.WriteString(l.peer, "y"); err != nil {
		return err
	}
	if _, err := io.CopyN(c, c, 1); err != nil {
		return err
	}
	if err := errors.Join(c.CloseWrite(), l.peer.CloseWrite()); err != nil {
		return err
	}
	if got, err := io.ReadAll(l.peer); string(got) != "y" || err != nil {
		return fmt.Errorf("off the loop %q came back, and %w", got, err)
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// onLoops asks by the stream road, and how many sockets of AF_VSOCK the enclave has on
// event loops then.
func (c *corridor) onLoops(ctx context.Context) (values, error) {
	if status, _, err := c.getFrom(ctx, streamed, "/hello"); err != nil || status != 200 {
		return nil, fmt.Errorf("guest: by stream: %d %w", status, err)
	}
	n, err := loopedSockets(c.enclave.PID())
	if err == nil && n == 0 {
		err = errors.New("guest: the enclave serves no stream on a loop")
	}
	return values{"sockets": n}, err
}

// loopedSockets counts a process's sockets of AF_VSOCK that an epoll watches for what
// comes alone. The runtime's own watches all for room to write too.
func loopedSockets(pid int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("guest: pidfd_open: %w", err)
	}
	defer unix.Close(process)
	infos := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, err := os.ReadDir(infos)
	if err != nil {
		return 0, err
	}
	found := map[int]bool{}
	for _, e := range entries {
		text, err := os.ReadFile(infos + "/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(text)) {
			if fd, ok := watched(line); ok && domain(process, fd) == unix.AF_VSOCK {
				found[fd] = true
			}
		}
	}
	return len(found), nil
}

// watched reads a line "tfd: 8 events: 80002001 data: ..." (proc_pid_fdinfo(5)).
func watched(line string) (fd int, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 || f[0] != "tfd:" || f[2] != "events:" {
		return 0, false
	}
	fd, err := strconv.Atoi(f[1])
	events, hexErr := strconv.ParseUint(f[3], 16, 32)
	return fd, err == nil && hexErr == nil && events&unix.EPOLLIN != 0 && events&unix.EPOLLOUT == 0
}

// domain is the address family of a process's socket, or -1.
func domain(process, fd int) int {
	ours, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(ours)
	family, err := unix.GetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return -1
	}
	return family
}
