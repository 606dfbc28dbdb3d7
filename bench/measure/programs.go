package measure

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
)

// versionTimeout bounds asking a program for its version.
const versionTimeout = 5 * time.Second

// programs describes the files of all that took part, as far as they can be read.
func (d drivers) programs(ctx context.Context) []report.Program {
	d.add(d.paths)
	var list []report.Program
	for name, path := range d.files {
		list = append(list, report.Program{Name: name, Version: version(ctx, name, path), SHA256: digest(path)})
	}
	slices.SortFunc(list, func(a, b report.Program) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func digest(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// version returns what a program says about itself: one written in Go names its
// module and compiler, others are asked.
func version(ctx context.Context, name, path string) string {
	if info, err := buildinfo.ReadFile(path); err == nil {
		text := info.GoVersion
		for _, dep := range info.Deps {
			if info.Path == dep.Path || strings.HasPrefix(info.Path, dep.Path+"/") {
				text = dep.Path + " " + dep.Version + ", " + text
			}
		}
		return text
	}
	flag, ok := map[string]string{"nginx": "-v", "haproxy": "-v", "wrk": "-v", "iperf3": "--version", "pasta": "--version"}[name]
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	// Some print it and fail all the same.
	out, _ := exec.CommandContext(ctx, path, flag).CombinedOutput()
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first
}
