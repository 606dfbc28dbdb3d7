package handover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Both processes talk by a pair of SOCK_SEQPACKET sockets:
//
//	old                                 new
//	 |── 's' name, with a descriptor ───►|   for each socket
//	 |── 'd' bytes ─────────────────────►|   the state, in pieces
//	 |── 'e' ───────────────────────────►|
//	 |◄───────────────────────────── 'r' |   ready: it accepts
//	 |  accepts nothing any more         |
//	 |  ...                              |
//	 |── end of file ───────────────────►|   the old one is gone
const (
	kindSocket = 's'
	kindData   = 'd'
	kindEnd    = 'e'
	kindReady  = 'r'
	maxPiece   = 16 << 10
)

// A Successor is a new process.
type Successor struct {
	Process *os.Process
	pair    *os.File
}

// Start starts a new process with the sockets and a state, and returns when it
// is ready. If it is not before ctx ends, or if it ends, it is killed, and the
// error wraps ErrNotReady. Its environment is that of cmd, with Variable.
func (s *Sockets) Start(ctx context.Context, cmd *exec.Cmd, state []byte) (*Successor, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	// ExtraFiles begin at 3. The pair is not used here before it is inherited, so
	// that it may be blocking.
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(cmd.Env, Variable+"=3")
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err = s.send(ours, state); err == nil {
		err = awaitReady(ours)
	}
	if err != nil || !stop() {
		_ = cmd.Process.Kill()
		ours.Close()
		return nil, fmt.Errorf("%w: %w", ErrNotReady, errors.Join(err, ctx.Err(), cmd.Wait()))
	}
	return &Successor{Process: cmd.Process, pair: ours}, nil
}

// Close tells the new process that the old one is gone, as its end does.
func (s *Successor) Close() error { return s.pair.Close() }

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "successor"), os.NewFile(uintptr(fds[1]), "predecessor"), nil
}

// send gives everything to the new process.
func (s *Sockets) send(to *os.File, state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, l := range s.open {
		if err := sendSocket(to, name, l.Listener); err != nil {
			return fmt.Errorf("send socket %s: %w", name, err)
		}
	}
	for len(state) > 0 {
		n := min(maxPiece, len(state))
		if _, err := to.Write(append([]byte{kindData}, state[:n]...)); err != nil {
			return err
		}
		state = state[n:]
	}
	_, err := to.Write([]byte{kindEnd})
	return err
}

func sendSocket(to *os.File, name string, l net.Listener) error {
	c, ok := l.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", l)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		sendErr = unix.Sendmsg(int(to.Fd()), append([]byte{kindSocket}, name...), unix.UnixRights(int(fd)), nil, unix.MSG_NOSIGNAL)
	}); err != nil {
		return err
	}
	return sendErr
}

func awaitReady(from *os.File) error {
	answer := make([]byte, 1)
	n, err := from.Read(answer)
	if err != nil {
		return err
	}
	if n != 1 || answer[0] != kindReady {
		return errors.New("the new process says what it should not")
	}
	return nil
}

// A Predecessor is the process that started this one.
type Predecessor struct {
	Sockets map[string]*os.File
	State   []byte
	pair    *os.File
}

// Receive returns what the predecessor left, or nil if there is none: if Variable
// is not in environ.
func Receive(environ []string) (*Predecessor, error) {
	fd := -1
	for _, kv := range environ {
		if v, ok := bytes.CutPrefix([]byte(kv), []byte(Variable+"=")); ok {
			n, err := strconv.Atoi(string(v))
			if err != nil || n < 3 {
				return nil, fmt.Errorf("handover: %s is %q: only a host sets it, for the process that it starts", Variable, v)
			}
			fd = n
		}
	}
	if fd < 0 {
		return nil, nil
	}
	unix.CloseOnExec(fd)
	p := &Predecessor{Sockets: map[string]*os.File{}, pair: os.NewFile(uintptr(fd), "predecessor")}
	if err := p.receive(); err != nil {
		p.close()
		return nil, fmt.Errorf("handover: from the predecessor: %w", err)
	}
	return p, nil
}

func (p *Predecessor) receive() error {
	data, rights := make([]byte, 1+maxPiece), make([]byte, unix.CmsgSpace(4))
	for {
		n, nr, _, _, err := unix.Recvmsg(int(p.pair.Fd()), data, rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		if n == 0 {
			return errors.New("it ended")
		}
		switch data[0] {
		case kindSocket:
			if err := p.keep(string(data[1:n]), rights[:nr]); err != nil {
				return err
			}
		case kindData:
			p.State = append(p.State, data[1:n]...)
		case kindEnd:
			return nil
		default:
			return fmt.Errorf("unknown message %q", data[0])
		}
	}
}

func (p *Predecessor) keep(name string, rights []byte) error {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("socket %s came without a descriptor", name)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("socket %s came without a descriptor", name)
	}
	p.Sockets[name] = os.NewFile(uintptr(fds[0]), name)
	return nil
}

func (p *Predecessor) close() {
	p.pair.Close()
	for _, f := range p.Sockets {
		f.Close()
	}
}

// Ready tells the predecessor that this process accepts. The channel is closed
// when the predecessor is gone.
func (p *Predecessor) Ready() (gone <-chan struct{}, err error) {
	if _, err := p.pair.Write([]byte{kindReady}); err != nil {
		return nil, fmt.Errorf("handover: tell the predecessor: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer p.pair.Close()
		_, _ = p.pair.Read(make([]byte, 1)) // says nothing more: it ends
	}()
	return ended, nil
}
