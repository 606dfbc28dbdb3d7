package resolvconf_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/resolvconf"
)

var (
	gateway = resolvconf.Config{Nameservers: []netip.Addr{netip.MustParseAddr("192.168.127.1")}}
	old     = strings.Repeat("# what was here before\n", 10)
)

const written = "nameserver 192.168.127.1\n"

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	one := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name   string
		config resolvconf.Config
		want   string
	}{
		{"no nameserver", resolvconf.Config{}, "0 nameservers"},
		{"four nameservers", resolvconf.Config{Nameservers: []netip.Addr{one, one, one, one}}, "4 nameservers"},
		{"no address", resolvconf.Config{Nameservers: []netip.Addr{{}}}, "no address"},
		{"two words", resolvconf.Config{Nameservers: []netip.Addr{one}, Search: []string{"a b"}}, `"a b"`},
		{"a second line", resolvconf.Config{Nameservers: []netip.Addr{one}, Search: []string{"a\nnameserver 6.6.6.6"}}, "one word"},
		{"ndots", resolvconf.Config{Nameservers: []netip.Addr{one}, Ndots: 16}, "ndots 16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "f")
			if err := resolvconf.Write(path, tt.config); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Write says %v; want %q and the file in it", err, tt.want)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Error("the file was made all the same")
			}
		})
	}
}

func TestWriteContent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	err := resolvconf.Write(path, resolvconf.Config{
		Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")},
		Search:      []string{"a.example", "b.example"},
		Ndots:       2,
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, path, "nameserver 192.0.2.1\nnameserver fd00::1\nsearch a.example b.example\noptions ndots:2\n")
}

// check reads a file through whatever leads to it.
func check(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is %q, %v; want %q", path, got, err, want)
	}
}

func TestWriteWhateverIsThere(t *testing.T) {
	t.Parallel()
	file := func(t *testing.T, path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(t *testing.T, to, path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		before func(t *testing.T, dir string)
		target string // the file that must be written; etc/resolv.conf must read the same
		err    error
	}{
		{name: "a loop", before: func(t *testing.T, dir string) { link(t, "resolv.conf", dir+"/etc/resolv.conf") }, err: syscall.ELOOP},
		{name: "missing", before: func(*testing.T, string) {}, target: "etc/resolv.conf"},
		{name: "a file", before: func(t *testing.T, dir string) { file(t, dir+"/etc/resolv.conf") }, target: "etc/resolv.conf"},
		{name: "a relative link", before: func(t *testing.T, dir string) {
			file(t, dir+"/run/stub")
			link(t, "../run/stub", dir+"/etc/resolv.conf")
		}, target: "run/stub"},
		{name: "an absolute link", before: func(t *testing.T, dir string) {
			file(t, dir+"/run/stub")
			link(t, dir+"/run/stub", dir+"/etc/resolv.conf")
		}, target: "run/stub"},
		{name: "a link to nothing in no directory", before: func(t *testing.T, dir string) {
			link(t, "../run/systemd/resolve/stub", dir+"/etc/resolv.conf")
		}, target: "run/systemd/resolve/stub"},
		{name: "links to links, out of a linked directory", before: func(t *testing.T, dir string) {
			link(t, "real/deep/etc", dir+"/etc")
			link(t, "../first", dir+"/real/deep/etc/resolv.conf")
			link(t, "second", dir+"/real/deep/first")
		}, target: "real/deep/second"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tt.before(t, dir)
			path := filepath.Join(dir, "etc/resolv.conf")
			wasLink := isLink(path)
			if err := resolvconf.Write(path, gateway); !errors.Is(err, tt.err) {
				t.Fatalf("Write = %v; want %v", err, tt.err)
			}
			if isLink(path) != wasLink {
				t.Errorf("%s is a link: %t; before: %t", path, !wasLink, wasLink)
			}
			if tt.err != nil {
				return
			}
			check(t, path, written)
			check(t, filepath.Join(dir, tt.target), written)
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("mode %v, %v; every user has to read it", info.Mode(), err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Join(dir, tt.target)), ".resolv*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

func TestWriteRefusesADirectory(t *testing.T) {
	t.Parallel()
	if err := resolvconf.Write(t.TempDir(), gateway); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("Write = %v", err)
	}
}

// Whoever has the old file open goes on reading the old file.
func TestWriteIsAtomic(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := resolvconf.Write(path, gateway); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(old))
	if _, err := reader.ReadAt(got, 0); err != nil || string(got) != old {
		t.Errorf("the old reader sees %q, %v", got, err)
	}
	check(t, path, written)
}
