package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// ErrNoKernel reports that no kernel is in its place. `make deps` puts one there.
var ErrNoKernel = errors.New("vm: no kernel found")

// A Kernel is an unpacked kernel package: an image and the modules made for it.
type Kernel struct {
	Image   string // the compressed kernel, as QEMU boots it
	Modules string // the folder lib/modules/RELEASE
	Release string // as uname -r says it, for example 6.12.95+deb12-cloud-amd64
}

// FindKernel returns the kernel in the folder that the environment variable
// CORRIDOR_KERNEL names, or else the last by name of those that `make deps` has
// unpacked below the user's cache folder. It returns ErrNoKernel if there is none.
func FindKernel() (Kernel, error) {
	if dir := os.Getenv("CORRIDOR_KERNEL"); dir != "" {
		return openKernel(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Kernel{}, fmt.Errorf("vm: find the cache folder: %w", err)
	}
	dirs, err := filepath.Glob(filepath.Join(cache, "corridor", "kernel", "[^.]*"))
	if err != nil {
		return Kernel{}, fmt.Errorf("vm: look for kernels: %w", err)
	}
	if len(dirs) == 0 {
		return Kernel{}, fmt.Errorf("%w below %s", ErrNoKernel, cache)
	}
	sort.Strings(dirs)
	return openKernel(dirs[len(dirs)-1])
}

// openKernel checks that the folder has an image and its modules, which newer
// packages keep below usr/.
func openKernel(dir string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return Kernel{}, fmt.Errorf("%w: %s has no boot/vmlinuz-*", ErrNoKernel, dir)
	}
	image := images[len(images)-1]
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	for _, lib := range []string{"lib", "usr/lib"} {
		modules := filepath.Join(dir, lib, "modules", release)
		if _, err := os.Stat(modules); err == nil {
			return Kernel{Image: image, Modules: modules, Release: release}, nil
		}
	}
	return Kernel{}, fmt.Errorf("%w: %s has no modules for %s", ErrNoKernel, dir, release)
}
