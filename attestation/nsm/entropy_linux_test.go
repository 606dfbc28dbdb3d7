//go:build amd64 || arm64

package nsm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestKernelPool(t *testing.T) {
	t.Parallel()
	current := filepath.Join(t.TempDir(), "rng_current")
	if _, err := kernelPool(current, os.DevNull).Source(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no sysfs: %v", err)
	}
	if err := os.WriteFile(current, []byte("nsm-hwrng\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name, err := kernelPool(current, os.DevNull).Source(); err != nil || name != "nsm-hwrng" {
		t.Errorf("got %q, %v", name, err)
	}
	if err := kernelPool(current, current+"-not").Credit(make([]byte, 64), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no /dev/random: %v", err)
	}
	if err := kernelPool(current, os.DevNull).Credit(make([]byte, 64), 0); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("another device: %v", err)
	}
	// Zeros that count nothing harm nobody, and show that the kernel understands.
	// Less than nothing it refuses.
	err := KernelPool().Credit(make([]byte, 64), 0)
	if errors.Is(err, syscall.EPERM) {
		if os.Getenv("CORRIDOR_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skipf("needs CAP_SYS_ADMIN (remedy: run as root)")
	}
	if err != nil {
		t.Error(err)
	}
	if err := KernelPool().Credit(make([]byte, 64), -1); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("-1 bits: %v", err)
	}
}
