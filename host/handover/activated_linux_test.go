package handover

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestActivatedCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		environ string
		n       int
		says    string
	}{
		{"LISTEN_PID=7 LISTEN_FDS=x", 0, "LISTEN_FDS=x is no number"},
		{"LISTEN_PID=7 LISTEN_FDS=-1", 0, "no number"},
		{"LISTEN_PID=7 LISTEN_FDS=100000", 0, "no number"},
		{"LISTEN_PID=7", 0, "no number"},
		{"", 0, ""},
		{"LISTEN_PID=8 LISTEN_FDS=2", 0, ""},
		{"LISTEN_PID=7 LISTEN_FDS=2 LISTEN_FDNAMES=a:b", 2, ""},
	} {
		n, err := activatedCount(strings.Fields(tt.environ), 7)
		if n != tt.n || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %d, %v; want %d with %q", tt.environ, n, err, tt.n, tt.says)
		}
	}
}

// fileOf returns the file of a socket, which ends with the test.
func fileOf(t *testing.T, socket interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSocketName(t *testing.T) {
	t.Parallel()
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if name, err := socketName(pipe); err == nil {
		t.Errorf("a pipe is called %s", name)
	}
	path := filepath.Join(t.TempDir(), "c.sock")
	for _, tt := range []struct{ network, addr, want string }{
		{"tcp", "127.0.0.1:0", "tcp:127.0.0.1:"},
		{"tcp", ":0", "tcp::"},
		{"tcp4", "0.0.0.0:0", "tcp::"},
		{"unix", path, ""},
	} {
		l, err := net.Listen(tt.network, tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		f := fileOf(t, l.(interface{ File() (*os.File, error) }))
		if name, err := socketName(f); (err == nil) != (tt.want != "") || !strings.HasPrefix(name, tt.want) {
			t.Errorf("%s: %q, %v; want %s", tt.addr, name, err, tt.want)
		}
		if _, err := os.Stat(path); tt.network == "unix" && err != nil {
			t.Errorf("its name is gone: %v", err)
		}
		l.Close()
	}
}
