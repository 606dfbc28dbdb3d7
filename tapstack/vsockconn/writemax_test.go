package vsockconn_test

import (
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestWriteMax(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "on", "-1", "0", "511", "31K", "4294967296"} {
		if w, err := vsockconn.ParseWriteMax(bad); err == nil {
			t.Errorf("ParseWriteMax(%q) = %d, want an error", bad, w)
		}
	}
	for _, tt := range []struct {
		value       string
		kernel, sim int
	}{{"auto", 31744, 0}, {"off", 0, 0}, {"512", 512, 512}, {"65536", 65536, 65536}} {
		w, err := vsockconn.ParseWriteMax(tt.value)
		if err != nil {
			t.Fatalf("ParseWriteMax(%q): %v", tt.value, err)
		}
		if got := w.On("kernel"); got != tt.kernel {
			t.Errorf("%s on AF_VSOCK is %d, want %d", tt.value, got, tt.kernel)
		}
		if got := w.On("dir:/run/x"); got != tt.sim {
			t.Errorf("%s on a simulated VSOCK is %d, want %d", tt.value, got, tt.sim)
		}
	}
}
