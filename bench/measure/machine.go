package measure

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/bench/report"
)

// Source says what is measured. Outside of a checkout there is no commit.
func Source(ctx context.Context) report.Source {
	s := report.Source{Go: runtime.Version()}
	git := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	if s.Commit = git("rev-parse", "HEAD"); s.Commit != "" {
		s.Changed = git("status", "--porcelain", "--untracked-files=no") != ""
	}
	return s
}

// Machine describes where it is measured; what cannot be read stays empty.
func Machine() report.Machine {
	m := report.Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.NumCPU()}
	read := func(path, key string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	m.CPU = read("/proc/cpuinfo", "model name")
	if kilobytes, err := strconv.ParseInt(strings.TrimSuffix(read("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = kilobytes << 10
	}
	return m
}
