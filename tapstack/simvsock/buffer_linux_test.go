package simvsock

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// As much may be on its way, in each direction, as on AF_VSOCK, or as this machine
// allows.
func TestBuffers(t *testing.T) {
	t.Parallel()
	limit, err := os.ReadFile("/proc/sys/net/core/wmem_max")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil {
		t.Fatal(err)
	}
	_, host, enclave := ends(t, 16)
	dialed, accepted, err := meet(t.Context(), enclave, vsockconn.Addr{CID: vsockconn.CIDParent, Port: 1}, listen(t, host, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	defer accepted.Close()
	for name, c := range map[string]any{"dialed": dialed, "accepted": accepted} {
		raw, err := c.(*conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		var sockErr error
		if err := raw.Control(func(fd uintptr) {
			got, sockErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		}); err != nil || sockErr != nil {
			t.Fatal(err, sockErr)
		}
		if want := min(vsockconn.DefaultBuffer, 2*most); got != want {
			t.Errorf("the send buffer of the %s end is %d bytes, want %d", name, got, want)
		}
	}
}
