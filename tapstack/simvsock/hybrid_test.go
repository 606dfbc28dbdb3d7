package simvsock

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A vmm is the other side of the convention: it accepts on PATH, reads one
// CONNECT line and gives the rest to serve, which answers it.
func vmm(t *testing.T, serve func(line string, c net.Conn)) vsockconn.Transport {
	t.Helper()
	path := shortDir(t) + "/v.sock"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(readLine(c), c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	tr, err := Hybrid(path, 16)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func readLine(r io.Reader) string {
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil || b[0] == '\n' {
			return string(line)
		}
	}
}

func TestHybridRefusesAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer, want string
	}{
		{name: "closed", answer: "", want: "nobody listens there in the guest"},
		{name: "closed in the middle", answer: "OK 1", want: "read the VMM's answer: EOF"},
		{name: "refused", answer: "NO\n", want: `answered "NO"`},
		{name: "no port", answer: "OK \n", want: "no port number"},
		{name: "no number", answer: "OK 12x\n", want: "no port number"},
		{name: "a number too large", answer: "OK 4294967296\n", want: "no port number"},
		{name: "a line without end", answer: strings.Repeat("O", 1000), want: "longer than 32 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := vmm(t, func(_ string, c net.Conn) { _, _ = io.WriteString(c, tt.answer) })
			c, err := tr.Dial(t.Context(), vsockconn.Addr{CID: 16, Port: 1443})
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "vsock:16:1443") {
				t.Errorf("Dial = %v, %v; want nil and %q", c, err, tt.want)
			}
		})
	}
}

func TestHybridDials(t *testing.T) {
	t.Parallel()
	lines := make(chan string, 1)
	tr := vmm(t, func(line string, c net.Conn) {
		lines <- line
		_, _ = io.WriteString(c, "OK 1073741824\nfrom the guest") // in one write
		_, _ = io.Copy(c, c)
	})
	c, err := tr.Dial(t.Context(), vsockconn.Addr{CID: 16, Port: 1443})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-lines; got != "CONNECT 1443" {
		t.Errorf("the VMM was asked %q, want CONNECT 1443", got)
	}
	if c.LocalAddr() != (vsockconn.Addr{CID: 2, Port: 1073741824}) || c.RemoteAddr() != (vsockconn.Addr{CID: 16, Port: 1443}) {
		t.Errorf("connection is %v to %v", c.LocalAddr(), c.RemoteAddr())
	}
	if _, err := io.WriteString(c, " and back"); err != nil {
		t.Fatal(err)
	}
	if err := c.(halfConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "from the guest and back" {
		t.Errorf("read %q, %v; want all that is behind the answer", got, err)
	}
}

func TestHybridDialIsBounded(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	gone := make(chan struct{})
	tr := vmm(t, func(_ string, c net.Conn) { close(asked); <-gone }) // never answers
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	c, err := tr.Dial(ctx, vsockconn.Addr{CID: 16, Port: 1})
	close(gone)
	if c != nil || err == nil || !strings.Contains(err.Error(), "does not answer CONNECT") {
		t.Errorf("Dial = %v, %v; want that the VMM does not answer", c, err)
	}
	if c, err := tr.Dial(t.Context(), vsockconn.Addr{CID: 17, Port: 1}); c != nil || err == nil || !strings.Contains(err.Error(), "leads to CID 16 alone") {
		t.Errorf("Dial of another CID = %v, %v; want an error", c, err)
	}
}

// shakeHands leaves no deadline behind.
func TestHandshakeLeavesNoDeadline(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		readLine(b)
		_, _ = io.WriteString(b, "OK 7\n")
		_, _ = io.WriteString(b, "x")
		b.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	port, err := shakeHands(ctx, a, 1)
	cancel()
	if err != nil || port != 7 {
		t.Fatalf("shakeHands = %d, %v; want 7", port, err)
	}
	if got, err := io.ReadAll(a); err != nil || string(got) != "x" {
		t.Errorf("read %q, %v behind the handshake; want x", got, err)
	}
}

func TestHybridListens(t *testing.T) {
	t.Parallel()
	path := shortDir(t) + "/v.sock"
	tr, err := Hybrid(path, 16)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, tr, 1024)
	guest, err := net.Dial("unix", path+"_1024")
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if cid, ok := vsockconn.PeerCID(c); !ok || cid != 16 {
		t.Errorf("peer has CID %v, want 16", cid)
	}
	checkHalfClose(t, guest, c)
	if l, err := tr.Listen(1024); l != nil || err == nil {
		t.Errorf("second Listen = %v, %v; want an error", l, err)
	}
}

func TestHybridRefusesPaths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/" + strings.Repeat("x", 96)} {
		if tr, err := Hybrid(path, 16); tr != nil || err == nil {
			t.Errorf("Hybrid(%q) = %v, %v; want an error", path, tr, err)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value string
		local vsockconn.CID
		err   string
	}{
		{value: "", local: 3, err: "is not kernel, dir:PATH or hybrid:PATH"},
		{value: "kernel:", local: 3, err: "is not kernel"},
		{value: "dir", local: 3, err: "is not kernel"},
		{value: "dir:", local: 3, err: "is not kernel"},
		{value: "hybrid:", local: 3, err: "is not kernel"},
		{value: "vsock:/x", local: 3, err: "is not kernel"},
		{value: "hybrid:/x", local: 16, err: "for the host alone"},
		{value: "dir:" + strings.Repeat("x", 200), local: 16, err: "200 bytes"},
		{value: "kernel", local: 16},
		{value: "dir:/run/x", local: 16},
		{value: "dir:/run/a:b", local: 16},
		{value: "hybrid:/run/x", local: 3},
	}
	for _, tt := range tests {
		tr, err := Parse(tt.value, tt.local)
		if tt.err != "" {
			if tr != nil || err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Parse(%q) = %v, %v; want %q", tt.value, tr, err, tt.err)
			}
			continue
		}
		if err != nil || tr.String() != tt.value {
			t.Errorf("Parse(%q) = %v, %v; want it back", tt.value, tr, err)
		}
	}
}

// FuzzReadAnswer: at most 32 bytes are read, none behind the line's end, and
// what is accepted prints as it came.
func FuzzReadAnswer(f *testing.F) {
	for _, answer := range []string{"OK 1\n", "OK 4294967295\nx", "OK 01\n", "OK -1\n", "NO\n", "OK", "", strings.Repeat(" ", 40)} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		port, err := readAnswer(iotest.OneByteReader(r))
		read := len(in) - r.Len()
		if read > maxAnswer {
			t.Fatalf("read %d bytes", read)
		}
		if end := bytes.IndexByte(in, '\n'); end >= 0 && read > end+1 {
			t.Fatalf("read %d bytes, the line has %d", read, end+1)
		}
		if want := fmt.Sprintf("OK %d\n", port); err == nil && string(in[:read]) != want {
			t.Fatalf("accepted %q as %q", in[:read], want)
		}
	})
}
