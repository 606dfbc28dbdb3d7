//go:build sim && linux

package isolate

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cover puts a private copy over a file. It must be called in a private mount
// namespace: the machine sees neither the mount nor what is written to the copy,
// which has no name any more and ends with the namespace.
func cover(path string) (err error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("isolate: keep %s as it is (remedy: create it, or do without it being written): %w", path, err)
	}
	content, err := os.ReadFile(target)
	if err != nil {
		return fmt.Errorf("isolate: copy %s: %w", path, err)
	}
	f, err := os.CreateTemp("", "corridor-resolv.conf.*")
	if err != nil {
		return fmt.Errorf("isolate: copy %s: %w", path, err)
	}
	defer func() {
		if removeErr := os.Remove(f.Name()); err == nil && removeErr != nil {
			err = fmt.Errorf("isolate: remove the name of the copy: %w", removeErr)
		}
	}()
	_, err = f.Write(content)
	if modeErr := f.Chmod(0o644); err == nil { // the app may be another user
		err = modeErr
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("isolate: copy %s: %w", path, err)
	}
	if err := unix.Mount(f.Name(), target, "", unix.MS_BIND, ""); err != nil {
		return failed("cover "+target, err)
	}
	return nil
}
