package simvsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// ends returns the host's and an enclave's transport on one directory.
func ends(t testing.TB, cid vsockconn.CID) (path string, host, enclave vsockconn.Transport) {
	t.Helper()
	path = shortDir(t)
	host, err := Dir(path, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	enclave, err = Dir(path, cid)
	if err != nil {
		t.Fatal(err)
	}
	return path, host, enclave
}

func listen(t testing.TB, tr vsockconn.Transport, port uint32) net.Listener {
	t.Helper()
	l, err := tr.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// meet returns both ends of one connection from tr to l.
func meet(ctx context.Context, tr vsockconn.Transport, to vsockconn.Addr, l net.Listener) (dialed, accepted net.Conn, err error) {
	var wait sync.WaitGroup
	var dialErr error
	wait.Go(func() { dialed, dialErr = tr.Dial(ctx, to) })
	accepted, err = l.Accept()
	wait.Wait()
	return dialed, accepted, errors.Join(dialErr, err)
}

func TestDirRefusesPaths(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, path, want string
		local            vsockconn.CID
	}{
		{name: "empty", path: "", local: 3, want: "no path given"},
		{name: "too long", path: "/" + strings.Repeat("x", 79), local: 3, want: "has 80 bytes, at most 79 fit"},
		{name: "any CID", path: "/x", local: vsockconn.CIDAny, want: "must be one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tr, err := Dir(tt.path, tt.local); tr != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dir = %v, %v; want %q", tr, err, tt.want)
			}
		})
	}
}

// The longest path that is accepted has room for the longest names.
func TestDirLongestPathWorks(t *testing.T) {
	t.Parallel()
	path := shortDir(t)
	path += "/" + strings.Repeat("x", maxSocketPath-maxSocketName-len(path)-1)
	tr, err := Dir(path, 4294967294)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, tr, 4294967295)
	dialed, accepted, err := meet(t.Context(), tr, vsockconn.Addr{CID: vsockconn.CIDLocal, Port: 4294967295}, l)
	if err != nil {
		t.Fatal(err)
	}
	dialed.Close()
	accepted.Close()
}

func TestDirTellsAddresses(t *testing.T) {
	t.Parallel()
	path, host, enclave := ends(t, 17)
	l := listen(t, host, 1024)
	if want := (vsockconn.Addr{CID: 3, Port: 1024}); l.Addr() != want {
		t.Errorf("listener is at %v, want %v", l.Addr(), want)
	}
	dialed, accepted, err := meet(t.Context(), enclave, vsockconn.Addr{CID: 3, Port: 1024}, l)
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	defer accepted.Close()
	if got := dialed.RemoteAddr(); got != (vsockconn.Addr{CID: 3, Port: 1024}) {
		t.Errorf("the enclave sees %v, want vsock:3:1024", got)
	}
	if cid, ok := vsockconn.PeerCID(accepted); !ok || cid != 17 || accepted.RemoteAddr() != dialed.LocalAddr() {
		t.Errorf("the host sees %v, want the enclave's %v", accepted.RemoteAddr(), dialed.LocalAddr())
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || entries[0].Name() != "3_1024.sock" {
		t.Errorf("directory holds %v, %v; want the listener's socket alone", entries, err)
	}
	l.Close()
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 0 {
		t.Errorf("after Close the directory holds %v, %v; want nothing", entries, err)
	}
}

// A stock peer opens the socket without a name of its own.
func TestDirUnnamedPeer(t *testing.T) {
	t.Parallel()
	path, host, enclave := ends(t, 17)
	tests := []struct {
		name   string
		tr     vsockconn.Transport
		socket string
		want   vsockconn.CID
	}{
		{name: "at the host", tr: host, socket: "3_1024.sock", want: 16},
		{name: "at an enclave", tr: enclave, socket: "17_1024.sock", want: 3},
	}
	for _, tt := range tests {
		l := listen(t, tt.tr, 1024)
		raw, err := net.Dial("unix", filepath.Join(path, tt.socket))
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if cid, ok := vsockconn.PeerCID(accepted); !ok || cid != tt.want {
			t.Errorf("%s: peer has CID %v, want %v", tt.name, cid, tt.want)
		}
		accepted.Close()
		raw.Close()
	}
}

func TestDirNobodyListens(t *testing.T) {
	t.Parallel()
	path, host, enclave := ends(t, 16)
	to := vsockconn.Addr{CID: 3, Port: 1024}
	missing, err := Dir(path+"/none", 16)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, host, 1024)
	l.(*listener).SetUnlinkOnClose(false) // as after a crash
	l.Close()
	for name, tr := range map[string]vsockconn.Transport{"no directory": missing, "no socket": enclave, "a dead socket": enclave} {
		if name == "no socket" {
			to.Port = 1025
		} else {
			to.Port = 1024
		}
		c, err := tr.Dial(t.Context(), to)
		if c != nil || err == nil || !strings.Contains(err.Error(), "nobody listens there (start the other end") {
			t.Errorf("%s: Dial = %v, %v; want that nobody listens", name, c, err)
			continue
		}
		if strings.Contains(err.Error(), "/.") {
			t.Errorf("%s: error %q names a socket that differs in each attempt", name, err)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 {
		t.Errorf("failed dials left %v, %v", entries, err)
	}
}

func TestDirListenTwice(t *testing.T) {
	t.Parallel()
	path, host, _ := ends(t, 16)
	l := listen(t, host, 1024)
	second, err := host.Listen(1024)
	if second != nil || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second Listen = %v, %v; want that it is in use", second, err)
	}
	l.(*listener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Lstat(path + "/3_1024.sock"); err != nil {
		t.Fatalf("no stale socket to replace: %v", err)
	}
	l = listen(t, host, 1024) // replaces it
	l.Close()
	if err := os.WriteFile(path+"/3_1024.sock", []byte("not a socket"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := host.Listen(1024); l != nil || err == nil {
		t.Errorf("Listen over a file = %v, %v; want an error", l, err)
	}
	if b, err := os.ReadFile(path + "/3_1024.sock"); err != nil || string(b) != "not a socket" {
		t.Errorf("a file that is no socket was replaced: %q, %v", b, err)
	}
}

func TestDirStops(t *testing.T) {
	t.Parallel()
	_, host, enclave := ends(t, 16)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	listen(t, host, 1024)
	if c, err := enclave.Dial(ctx, vsockconn.Addr{CID: 3, Port: 1024}); c != nil || !strings.Contains(err.Error(), "cancel") {
		t.Errorf("Dial with an ended context = %v, %v", c, err)
	}
}

// The connections behave as connections do: deadlines, concurrent use, closing
// in the middle of a read or a write.
func TestDirConnsAreConns(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		_, host, enclave := ends(t, 16)
		l, err := host.Listen(1024)
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c1, c2, err = meet(ctx, enclave, vsockconn.Addr{CID: 3, Port: 1024}, l)
		if err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// halfConn is what a Transport promises beyond net.Conn.
type halfConn interface {
	CloseRead() error
	CloseWrite() error
}

func TestDirHalfClose(t *testing.T) {
	t.Parallel()
	_, host, enclave := ends(t, 16)
	l := listen(t, host, 1024)
	dialed, accepted, err := meet(t.Context(), enclave, vsockconn.Addr{CID: 3, Port: 1024}, l)
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	defer accepted.Close()
	checkHalfClose(t, dialed, accepted)
}

// checkHalfClose ends one direction and uses the other.
func checkHalfClose(t *testing.T, a, b net.Conn) {
	t.Helper()
	if _, err := io.WriteString(a, "question"); err != nil {
		t.Fatal(err)
	}
	if err := a.(halfConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
		t.Errorf("read %q, %v; want the question and its end", got, err)
	}
	if _, err := io.WriteString(b, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Errorf("read %q, %v; want the answer and its end", got, err)
	}
	if err := a.(halfConn).CloseRead(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("CloseRead = %v", err)
	}
}

// FuzzParsePeerName: any process chooses the name. What is accepted is exactly
// what a dialer of ours would be called.
func FuzzParsePeerName(f *testing.F) {
	for _, name := range []string{".16_49152.sock", "16_1.sock", ".16_1", ".4294967295_1.sock", ".016_1.sock", ".16_4294967296.sock", "@", ".", ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		addr, ok := parsePeerName(name)
		if !ok {
			return
		}
		d := &dir{path: "/x"}
		if got := filepath.Base(d.peerName(addr)); got != name {
			t.Fatalf("parsePeerName(%q) = %v, whose name is %q", name, addr, got)
		}
		if addr.CID == vsockconn.CIDAny {
			t.Fatalf("parsePeerName(%q) is everybody", name)
		}
	})
}
