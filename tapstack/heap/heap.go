// Package heap paces the garbage collector of a long-running program by the memory
// that it may use. It limits nothing by force, and measures nothing; the kernel
// and tapstack/exposition do.
package heap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// percent is how much garbage may be there beside what lives, in percent of it. The
// programs of this project have a few MiB that live; at Go's 100 they would
// collect a hundred times a second under load.
const percent = 400

// A Pace is what the collector was told. Zero stands for what Go does by itself.
type Pace struct {
	// Memory is what there is for this program and all others it shares it with, in
	// bytes; 0 if unknown.
	Memory int64
	// Percent is GOGC.
	Percent int
	// Limit is GOMEMLIMIT in bytes: near it the collector works harder, because
	// the rest belongs to others.
	Limit int64
}

// Set tells the collector to take its time while the program uses less than
// 1/share of the memory, which is the machine's or the control group's, whatever is
// less. GOGC and GOMEMLIMIT in environ stand where they are set. root is the root
// of the file system. An error says why the memory is not known; then there is no
// limit, and no change.
func Set(root fs.FS, share int64, environ []string) (Pace, error) {
	memory, err := Available(root)
	if err != nil {
		return Pace{}, err
	}
	p := Pace{Memory: memory}
	if !has(environ, "GOMEMLIMIT") {
		p.Limit = memory / share
		debug.SetMemoryLimit(p.Limit)
	}
	if !has(environ, "GOGC") {
		p.Percent = percent
		debug.SetGCPercent(p.Percent)
	}
	return p, nil
}

func has(environ []string, name string) bool {
	for _, v := range environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok && value != "" {
			return true
		}
	}
	return false
}

// Available returns the memory of the machine, or of the control group (version 2)
// that the program is in or one above it, whatever is least, in bytes.
func Available(root fs.FS) (int64, error) {
	info, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("heap: how much memory there is: %w", err)
	}
	least, err := total(info)
	if err != nil {
		return 0, err
	}
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least, nil // a kernel without them
	}
	for dir := group(groups); dir != ""; dir = path.Dir(dir) {
		if limit, ok := limitOf(root, dir); ok {
			least = min(least, limit)
		}
		if dir == "." || dir == "/" {
			break
		}
	}
	return least, nil
}

// total is MemTotal of /proc/meminfo.
func total(info []byte) (int64, error) {
	for line := range bytes.Lines(info) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "MemTotal:" && string(fields[2]) == "kB" {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 53)
			if err == nil && kib > 0 {
				return kib << 10, nil
			}
		}
	}
	return 0, errors.New("heap: how much memory there is: /proc/meminfo does not say")
}

// group is the program's control group of version 2, relative to their root, from
// /proc/self/cgroup; "" if there is none.
func group(groups []byte) string {
	for line := range bytes.Lines(groups) {
		if dir, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::/")); ok {
			return path.Clean("./" + string(dir))
		}
	}
	return ""
}

// limitOf is the limit of one control group, if it has one.
func limitOf(root fs.FS, dir string) (int64, bool) {
	text, err := fs.ReadFile(root, path.Join("sys/fs/cgroup", dir, "memory.max"))
	if err != nil {
		return 0, false // the root group has no such file
	}
	limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return limit, err == nil && limit > 0 // "max" is none
}
