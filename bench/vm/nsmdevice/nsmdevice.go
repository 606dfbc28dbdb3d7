// Package nsmdevice is /dev/nsm for a machine that has no security module: a
// character device whose ioctl a program answers (CUSE, linux/fuse.h), so that
// what opens the device goes through its real system call. It answers no message
// itself; an nsm.Module does.
package nsmdevice

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/corridor-enclave/corridor/attestation/nsm"
)

// Name is the device's name below /dev.
const Name = "nsm"

// BufferSize is what a read from /dev/cuse must have room for: the largest
// request, of one ioctl with a message in it, and its headers.
const BufferSize = 64 << 10

// Operations of linux/fuse.h. All others are refused.
const (
	opOpen      = 14
	opRelease   = 18
	opFlush     = 25
	opInterrupt = 36 // has no answer
	opIoctl     = 39
	opCUSEInit  = 4096
)

const (
	// major and minor are the version of the protocol that is spoken here; minor 31
	// is older than every kernel that the tests boot.
	major, minor = 7, 31
	// unrestricted lets the answers to an ioctl say which memory of the caller's
	// they need (CUSE_UNRESTRICTED_IOCTL).
	unrestricted = 1 << 0
	// retry asks the kernel for the ioctl again, with that memory (FUSE_IOCTL_RETRY).
	retry = 1 << 2

	inHeaderSize, outHeaderSize = 40, 16
	initSize                    = 16
	ioctlSize                   = 32
	rawSize                     = 32 // struct nsm_raw: address and length of request and answer
	command                     = 0xC0200A00
)

var le = binary.LittleEndian

// Serve answers what the kernel asks through /dev/cuse until reading fails, as it
// does once the file is closed. The device exists as long as the file is open.
func Serve(ctx context.Context, cuse io.ReadWriter, module nsm.Module) error {
	buffer := make([]byte, BufferSize)
	for {
		n, err := cuse.Read(buffer)
		if err != nil {
			return fmt.Errorf("nsmdevice: reading a request: %w", err)
		}
		answer, err := answer(ctx, buffer[:n], module)
		if err != nil {
			return err
		}
		if answer == nil {
			continue
		}
		// ENOENT: whoever asked was killed meanwhile.
		if _, err := cuse.Write(answer); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("nsmdevice: answering: %w", err)
		}
	}
}

// answer makes the whole answer to one request, nil if there is none. It fails
// where the kernel speaks another protocol.
//
//	0        4        8        16       24    28    32    36     40
//	┌────────┬────────┬────────┬────────┬─────┬─────┬─────┬──────┐
//	│ length │ op     │ unique │ node   │ uid │ gid │ pid │ 0    │ body
//	└────────┴────────┴────────┴────────┴─────┴─────┴─────┴──────┘
//	┌────────┬────────┬────────┐
//	│ length │ -errno │ unique │ body
//	└────────┴────────┴────────┘
func answer(ctx context.Context, request []byte, module nsm.Module) ([]byte, error) {
	if len(request) < inHeaderSize || int(le.Uint32(request)) != len(request) {
		return nil, fmt.Errorf("nsmdevice: a request of %d bytes that claims another length", len(request))
	}
	var body []byte
	var errno syscall.Errno
	switch in := request[inHeaderSize:]; le.Uint32(request[4:]) {
	case opCUSEInit:
		if len(in) < initSize || le.Uint32(in) != major {
			return nil, errors.New("nsmdevice: the kernel speaks another version of the protocol")
		}
		body = hello()
	case opOpen:
		body = make([]byte, 16) // any handle will do
	case opRelease, opFlush:
	case opIoctl:
		body, errno = ioctl(ctx, in, module)
	case opInterrupt:
		return nil, nil
	default:
		errno = syscall.ENOSYS
	}
	out := make([]byte, outHeaderSize, outHeaderSize+len(body))
	le.PutUint32(out, uint32(outHeaderSize+len(body)))
	le.PutUint32(out[4:], uint32(-int32(errno)))
	copy(out[8:16], request[8:16])
	return append(out, body...), nil
}

// hello is struct cuse_init_out and the device's name.
func hello() []byte {
	b := le.AppendUint32(nil, major)
	b = le.AppendUint32(b, minor)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, unrestricted)
	b = le.AppendUint32(b, nsm.MaxAnswer) // of a read, which nobody does
	b = le.AppendUint32(b, nsm.MaxRequest)
	b = append(b, make([]byte, 4+4+10*4)...) // any device number
	return append(b, "DEVNAME="+Name+"\x00"...)
}

// ioctl answers one round of an ioctl, of which each brings more of the caller's
// memory:
//
//	nothing ──► struct nsm_raw ──► the message ──► the answer is written
func ioctl(ctx context.Context, in []byte, module nsm.Module) ([]byte, syscall.Errno) {
	if len(in) < ioctlSize {
		return nil, syscall.EIO
	}
	if le.Uint32(in[12:]) != command {
		return nil, syscall.ENOTTY
	}
	self := segment{le.Uint64(in[16:]), rawSize}
	data := in[ioctlSize:]
	if len(data) < rawSize {
		return again([]segment{self}, nil), 0
	}
	raw := data[:rawSize]
	message := segment{le.Uint64(raw), le.Uint64(raw[8:])}
	room := segment{le.Uint64(raw[16:]), le.Uint64(raw[24:])}
	switch {
	case message.size > nsm.MaxRequest:
		return nil, syscall.EMSGSIZE // as the driver has it
	case len(data) == rawSize && message.size > 0:
		return again([]segment{self, message}, []segment{self, room}), 0
	}
	reply, err := module.Send(ctx, data[rawSize:])
	if err != nil || uint64(len(reply)) > room.size {
		return nil, syscall.EIO
	}
	raw = append([]byte(nil), raw...)
	le.PutUint64(raw[24:], uint64(len(reply)))
	out := append(make([]byte, 16), raw...) // result 0, no flags
	return append(out, reply...), 0
}

// A segment is a piece of the caller's memory.
type segment struct{ address, size uint64 }

// again is struct fuse_ioctl_out with the segments that the next round has to
// bring, and those that its answer will be written to.
func again(bring, write []segment) []byte {
	b := le.AppendUint32(nil, 0)
	b = le.AppendUint32(b, retry)
	b = le.AppendUint32(b, uint32(len(bring)))
	b = le.AppendUint32(b, uint32(len(write)))
	for _, s := range append(bring, write...) {
		b = le.AppendUint64(b, s.address)
		b = le.AppendUint64(b, s.size)
	}
	return b
}
