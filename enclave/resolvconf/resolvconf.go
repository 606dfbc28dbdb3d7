// Package resolvconf writes the file that tells an unmodified app where to ask
// for names. It resolves nothing; the app's C library or Go does.
package resolvconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Limits of the readers of the file (resolv.conf(5), MAXNS and RES_MAXNDOTS of
// glibc's resolv.h): what is beyond them is silently ignored there.
const (
	maxNameservers = 3
	maxNdots       = 15
)

// maxLinks is how many symbolic links are followed, as many as the kernel does.
const maxLinks = 40

// Config is what the file says.
type Config struct {
	Nameservers []netip.Addr // one to three, asked in this order
	Search      []string     // domains to try for short names; none by default
	Ndots       int          // names with fewer dots are short; 0 leaves the reader's default of 1
}

// Write makes path say what c says, whatever path is now:
//
//	missing           created, with the directories above it
//	a file            replaced
//	a symbolic link   stays; the file at its end is treated as above, also if it is missing
//	a mount point     written in place
//
// A file is replaced by rename, so a reader sees the old or the new one. A mount
// point cannot be renamed over, and neither can a file in a directory that is
// read-only: there the content is written over the old with one write, filled up
// with empty lines to its length, and then cut. A reader sees whole lines, unless
// the system loses power in between.
//
// The error names the file; trying again helps only if the file system changes.
func Write(path string, c Config) error {
	content, err := c.format()
	if err != nil {
		return fmt.Errorf("resolvconf: write %s: %w", path, err)
	}
	target, err := follow(path)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(target), 0o755)
	}
	if err == nil {
		err = replace(target, content)
	}
	if err != nil && mayBeInPlace(err) {
		if inPlace := overwrite(target, content); inPlace != nil {
			return fmt.Errorf("resolvconf: write %s: %w, and in place: %w", path, err, inPlace)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("resolvconf: write %s: %w", path, err)
	}
	return nil
}

// format checks c and writes it down.
func (c Config) format() ([]byte, error) {
	if n := len(c.Nameservers); n == 0 || n > maxNameservers {
		return nil, fmt.Errorf("%d nameservers, where one to %d are possible", n, maxNameservers)
	}
	if c.Ndots < 0 || c.Ndots > maxNdots {
		return nil, fmt.Errorf("ndots %d is outside 0..%d", c.Ndots, maxNdots)
	}
	var b bytes.Buffer
	for _, addr := range c.Nameservers {
		if !addr.IsValid() {
			return nil, errors.New("a nameserver has no address")
		}
		fmt.Fprintf(&b, "nameserver %s\n", addr)
	}
	for _, domain := range c.Search {
		if domain == "" || strings.ContainsFunc(domain, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("search domain %q is not one word of ASCII", domain)
		}
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	if c.Ndots > 0 {
		fmt.Fprintf(&b, "options ndots:%d\n", c.Ndots)
	}
	return b.Bytes(), nil
}

// follow returns the file at the end of the symbolic links that begin at path.
// It need not exist, which is why filepath.EvalSymlinks does not do.
func follow(path string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			link, err := os.Readlink(path)
			if err != nil {
				return "", err
			}
			if path, err = resolve(path, link); err != nil {
				return "", err
			}
			continue
		}
		if !info.Mode().IsRegular() {
			return "", fmt.Errorf("%s is not a file", path)
		}
		return path, nil
	}
	return "", syscall.ELOOP
}

// resolve is where a link found at path leads. The directory of path is resolved
// first: ".." starts from where it really is.
func resolve(path, link string) (string, error) {
	if filepath.IsAbs(link) {
		return link, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, link), nil
}

// replace puts a new file in the place of target.
func replace(target string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(target), ".resolv.conf.*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to report
		}
	}()
	_, err = f.Write(content)
	if modeErr := f.Chmod(0o644); err == nil { // every user's programs read it
		err = modeErr
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}

// mayBeInPlace reports whether a file that could not be replaced could still be
// written: it is a mount point, or its directory is read-only and it is not.
func mayBeInPlace(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

// overwrite writes a file that must exist in place.
func overwrite(target string, content []byte) (err error) {
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	filled := bytes.Clone(content)
	if missing := info.Size() - int64(len(content)); missing > 0 && missing < 1<<20 {
		filled = append(filled, bytes.Repeat([]byte{'\n'}, int(missing))...)
	}
	if _, err = f.WriteAt(filled, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content)))
}
