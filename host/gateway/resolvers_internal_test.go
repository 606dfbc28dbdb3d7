package gateway

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestResolversFollowTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r := newResolvers(nil, path)
	if got, err := r.list(); err == nil {
		t.Errorf("without a file: %v", got)
	}
	for i, tt := range []struct {
		file string
		want []string
	}{
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1\noptions ndots:2\n", []string{"192.0.2.1:53", "[2001:db8::1]:53"}},
		{"nameserver 192.0.2.2\nnameserver 2001:db8::2\noptions ndots:2\n", []string{"192.0.2.2:53", "[2001:db8::2]:53"}},
		{"# none\n", []string{"127.0.0.1:53"}},
		{"nameserver fe80::1%eth0\nnameserver nonsense\n", []string{"[fe80::1%eth0]:53"}},
	} {
		if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		// Two writes may fall into one tick of the file system's clock.
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		for range 2 { // read, then remembered
			got, err := r.list()
			if err != nil || !slices.Equal(texts(got), tt.want) {
				t.Errorf("%q: %v, %v; want %v", tt.file, got, err, tt.want)
			}
		}
	}
	fixed := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:5353")}
	if got, err := newResolvers(fixed, filepath.Join(path, "none")).list(); err != nil || !slices.Equal(got, fixed) {
		t.Errorf("given resolvers: %v, %v", got, err)
	}
}

func texts(all []netip.AddrPort) []string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return out
}
