package nsmdevice

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

// request is one of the kernel's, with the number 7.
func request(op uint32, body []byte) []byte {
	b := le.AppendUint32(nil, uint32(inHeaderSize+len(body)))
	b = le.AppendUint32(b, op)
	b = le.AppendUint64(b, 7)
	b = append(b, make([]byte, 24)...)
	return append(b, body...)
}

// ioctlRequest is an ioctl on address 0x1000, with what of the caller's memory was brought.
func ioctlRequest(cmd uint32, memory ...[]byte) []byte {
	b := make([]byte, 12) // handle, flags
	b = le.AppendUint32(b, cmd)
	b = le.AppendUint64(b, 0x1000)
	b = append(b, make([]byte, 8)...) // sizes
	return request(opIoctl, append(b, bytes.Join(memory, nil)...))
}

// raw is struct nsm_raw.
func raw(message, room uint64) []byte {
	b := le.AppendUint64(nil, 0x2000)
	b = le.AppendUint64(b, message)
	b = le.AppendUint64(b, 0x3000)
	return le.AppendUint64(b, room)
}

func newModule(t *testing.T) nsm.Module {
	t.Helper()
	m, err := attestationtest.NewModule(attestationtest.Options{Seed: "device"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		request []byte
		want    syscall.Errno
	}{
		"read":                    {request(15, make([]byte, 40)), syscall.ENOSYS},
		"ioctl cut short":         {request(opIoctl, make([]byte, 31)), syscall.EIO},
		"another ioctl":           {ioctlRequest(0x5401), syscall.ENOTTY},
		"message too large":       {ioctlRequest(command, raw(nsm.MaxRequest+1, nsm.MaxAnswer)), syscall.EMSGSIZE},
		"empty message":           {ioctlRequest(command, raw(0, nsm.MaxAnswer)), syscall.EIO},
		"no room for the answer":  {ioctlRequest(command, raw(11, 0), []byte("\x6bDescribeNSM")), syscall.EIO},
		"longer than what it has": {ioctlRequest(command, raw(12, 3), []byte("\x6bDescribeNSM")), syscall.EIO},
	} {
		out, err := answer(t.Context(), tc.request, failsOnNothing{newModule(t)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := syscall.Errno(-int32(le.Uint32(out[4:]))); got != tc.want || le.Uint64(out[8:]) != 7 || len(out) != outHeaderSize {
			t.Errorf("%s: %v, %d bytes, want %v alone", name, got, len(out), tc.want)
		}
	}
	for name, in := range map[string][]byte{
		"shorter than a header": make([]byte, 39),
		"another length":        append(request(opOpen, nil), 0),
		"another version":       request(opCUSEInit, le.AppendUint64(le.AppendUint64(nil, 8), 0)),
		"init cut short":        request(opCUSEInit, make([]byte, 15)),
	} {
		if _, err := answer(t.Context(), in, newModule(t)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// failsOnNothing is a module that has no answer to an empty message.
type failsOnNothing struct{ nsm.Module }

func (m failsOnNothing) Send(ctx context.Context, message []byte) ([]byte, error) {
	if len(message) == 0 {
		return nil, errors.New("nothing was asked")
	}
	return m.Module.Send(ctx, message)
}

// echo is a module that answers with the question.
type echo struct{}

func (echo) Send(_ context.Context, message []byte) ([]byte, error) { return message, nil }
func (echo) Close() error                                           { return nil }

// TestIoctl: the kernel is asked for the structure, then for the message, and then
// gets the structure with the answer's length, and the answer.
func TestIoctl(t *testing.T) {
	t.Parallel()
	module := echo{}
	message := []byte("\x6bDescribeNSM")
	given := raw(uint64(len(message)), nsm.MaxAnswer)
	rounds := []struct {
		memory [][]byte
		want   []byte
	}{
		{nil, again([]segment{{0x1000, 32}}, nil)},
		{[][]byte{given}, again([]segment{{0x1000, 32}, {0x2000, uint64(len(message))}}, []segment{{0x1000, 32}, {0x3000, nsm.MaxAnswer}})},
	}
	for i, r := range rounds {
		out, err := answer(t.Context(), ioctlRequest(command, r.memory...), module)
		if err != nil || !bytes.Equal(out[outHeaderSize:], r.want) {
			t.Errorf("round %d: %x, %v; want %x", i, out, err, r.want)
		}
	}
	out, err := answer(t.Context(), ioctlRequest(command, given, message), module)
	if err != nil {
		t.Fatal(err)
	}
	body := out[outHeaderSize:]
	if n := le.Uint64(body[16+24:]); n != uint64(len(message)) || !bytes.Equal(body[16+32:], message) || le.Uint32(body[4:]) != 0 {
		t.Errorf("the last round answers %x; want %d bytes: %x", body, len(message), message)
	}
}

// TestServe: what has no answer gets none, and the end of the file is the end.
func TestServe(t *testing.T) {
	t.Parallel()
	kernel := &script{requests: [][]byte{
		request(opCUSEInit, le.AppendUint64(le.AppendUint64(nil, major), 0)),
		request(opInterrupt, make([]byte, 8)),
		request(opOpen, make([]byte, 8)),
		request(opRelease, make([]byte, 24)),
	}}
	if err := Serve(t.Context(), kernel, newModule(t)); !errors.Is(err, io.EOF) {
		t.Errorf("Serve = %v; want the end of the file", err)
	}
	if len(kernel.answers) != 3 || !strings.HasSuffix(string(kernel.answers[0]), "DEVNAME=nsm\x00") {
		t.Errorf("answers %q", kernel.answers)
	}
}

// A script is a /dev/cuse that asks these requests.
type script struct{ requests, answers [][]byte }

func (s *script) Read(b []byte) (int, error) {
	if len(s.requests) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.requests[0])
	s.requests = s.requests[1:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	s.answers = append(s.answers, bytes.Clone(b))
	return len(b), nil
}
