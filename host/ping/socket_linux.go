package ping

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Socket is a ping socket of one version of IP. One goroutine may receive while
// others send.
type Socket struct {
	is6  bool
	file *os.File
	raw  syscall.RawConn // of file

	mu   sync.Mutex // held to send
	hops int        // that the socket gives to what it sends
	out  []byte

	in receiving
}

// Open returns a socket for IPv4 or IPv6. The error is ErrNotPermitted if the kernel
// refuses.
func Open(is6 bool) (*Socket, error) {
	family, protocol, level, option := unix.AF_INET, unix.IPPROTO_ICMP, unix.SOL_IP, unix.IP_RECVERR
	if is6 {
		family, protocol, level, option = unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil, ErrNotPermitted
	}
	if err != nil {
		return nil, fmt.Errorf("ping: open: %w", os.NewSyscallError("socket", err))
	}
	// Without it the kernel keeps most errors to itself.
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ping: open: %w", os.NewSyscallError("setsockopt", err))
	}
	s := &Socket{is6: is6, file: os.NewFile(uintptr(fd), "ping")}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("ping: open: %w", err)
	}
	s.in.step = s.in.once
	return s, nil
}

// Close ends the socket, and the Receive that waits.
func (s *Socket) Close() error { return s.file.Close() }

// Send sends one request that may take so many hops, 1 to 255. It does not wait: the
// error is EAGAIN if too much waits to be sent, else why there is no way.
func (s *Socket) Send(to netip.Addr, hops int, sequence uint16, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := byte(request4)
	if s.is6 {
		kind = request6
	}
	// The kernel sets identifier and checksum.
	s.out = append(s.out[:0], kind, 0, 0, 0, 0, 0, byte(sequence>>8), byte(sequence))
	s.out = append(s.out, payload...)
	var err error
	if closed := s.raw.Control(func(fd uintptr) { err = s.send(int(fd), to, hops) }); closed != nil {
		return net.ErrClosed
	}
	if cap(s.out) > keptMessage {
		s.out = nil
	}
	return err
}

// keptMessage is the longest message whose memory a silent socket keeps.
const keptMessage = 2048

func (s *Socket) send(fd int, to netip.Addr, hops int) error {
	if hops != s.hops {
		level, option := unix.SOL_IP, unix.IP_TTL
		if s.is6 {
			level, option = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS
		}
		if err := unix.SetsockoptInt(fd, level, option, hops); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		s.hops = hops
	}
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.As16()}
	if !s.is6 {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	}
	err := unix.Sendto(fd, s.out, unix.MSG_DONTWAIT, addr)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		// It may be the error of an earlier request, which is in the queue too.
		err = unix.Sendto(fd, s.out, unix.MSG_DONTWAIT, addr)
	}
	return os.NewSyscallError("sendto", err)
}

// messages caches buffers and holds no state; a socket has one only while there is
// something to receive.
var messages = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// receiving is what one call of Receive works on. Only who receives touches it.
type receiving struct {
	buf    *[maxMessage]byte // of the last answer
	answer Answer
	err    error
	step   func(fd uintptr) (done bool) // once; as a closure of the call it would be an allocation
}

// Receive waits for what comes back for one of the socket's requests. The error is
// net.ErrClosed after Close.
func (s *Socket) Receive() (Answer, error) {
	s.in.giveBack()
	if err := s.raw.Read(s.in.step); err != nil {
		s.in.giveBack()
		return Answer{}, net.ErrClosed
	}
	return s.in.answer, s.in.err
}

func (r *receiving) giveBack() {
	if r.buf != nil {
		messages.Put(r.buf)
		r.buf = nil
	}
}

// once receives one answer. It reports whether there was one; if not, the poller
// waits for the socket and calls it again.
func (r *receiving) once(fd uintptr) bool {
	if r.buf == nil {
		r.buf = messages.Get().(*[maxMessage]byte)
	}
	for {
		n, from, err := unix.Recvfrom(int(fd), r.buf[:], unix.MSG_DONTWAIT)
		switch {
		case err == nil && n >= header:
			addr := addrOf(from)
			r.answer = Answer{Sequence: binary.BigEndian.Uint16(r.buf[6:]), From: addr, To: addr, Payload: r.buf[header:n]}
			return true
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if r.takeError(int(fd)) {
				return true
			}
			r.giveBack()
			return false
		default: // that of a request: the queue says of which
			if r.takeError(int(fd)) {
				return true
			}
		}
	}
}

// takeError receives one error of a request, if there is one.
func (r *receiving) takeError(fd int) bool {
	var control [512]byte
	for {
		n, controls, _, to, err := unix.Recvmsg(fd, r.buf[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		if a, ok := parseError(control[:controls]); ok && n >= header {
			a.Sequence, a.To = binary.BigEndian.Uint16(r.buf[6:]), addrOf(to)
			r.answer = a
			return true
		}
	}
}

// parseError reads the control message with a struct sock_extended_err of ip(7),
// behind which is the address of who reports the error. ok is false for errors that
// no ICMP message brought.
func parseError(control []byte) (a Answer, ok bool) {
	const origin, kind, code, size = 4, 5, 6, 16
	all, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return Answer{}, false
	}
	for _, c := range all {
		is4 := c.Header.Level == unix.SOL_IP && c.Header.Type == unix.IP_RECVERR
		is6 := c.Header.Level == unix.SOL_IPV6 && c.Header.Type == unix.IPV6_RECVERR
		if (!is4 && !is6) || len(c.Data) < size || (c.Data[origin] != unix.SO_EE_ORIGIN_ICMP && c.Data[origin] != unix.SO_EE_ORIGIN_ICMP6) {
			continue
		}
		a = Answer{Failed: true, Type: c.Data[kind], Code: c.Data[code]}
		const addr4, addr6 = size + 4, size + 8 // struct sockaddr_in, sockaddr_in6
		family := uint16(0)
		if len(c.Data) >= size+2 {
			family = binary.NativeEndian.Uint16(c.Data[size:])
		}
		switch {
		case family == unix.AF_INET && len(c.Data) >= addr4+4:
			a.From = netip.AddrFrom4([4]byte(c.Data[addr4:]))
		case family == unix.AF_INET6 && len(c.Data) >= addr6+16:
			a.From = netip.AddrFrom16([16]byte(c.Data[addr6:]))
		}
		return a, true
	}
	return Answer{}, false
}

func addrOf(from unix.Sockaddr) netip.Addr {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}
