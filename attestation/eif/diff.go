package eif

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// Diff says in words where two images differ: header, sections by their places,
// and inside ramdisks file by file. No line means that they are the same.
func Diff(a, b *Image) []string {
	var lines []string
	note := func(what string, x, y any) {
		if x != y {
			lines = append(lines, fmt.Sprintf("%s: %v, %v", what, x, y))
		}
	}
	note("architecture", a.architecture(), b.architecture())
	note("default memory", a.Memory, b.Memory)
	note("default CPUs", a.CPUs, b.CPUs)
	note("number of sections", len(a.Sections), len(b.Sections))
	for i := range min(len(a.Sections), len(b.Sections)) {
		lines = append(lines, diffSection(i, a.Sections[i], b.Sections[i])...)
	}
	return lines
}

func (m *Image) architecture() string {
	if m.ARM64 {
		return "arm64"
	}
	return "x86_64"
}

func diffSection(i int, a, b Section) []string {
	name := fmt.Sprintf("section %d (%v)", i, a.Kind)
	switch {
	case a.Kind != b.Kind:
		return []string{fmt.Sprintf("section %d: %v, %v", i, a.Kind, b.Kind)}
	case bytes.Equal(a.Content, b.Content):
		return nil
	case a.Kind == CommandLine || a.Kind == Metadata:
		return []string{fmt.Sprintf("%s: %.2000q, %.2000q", name, a.Content, b.Content)}
	}
	lines := []string{fmt.Sprintf("%s: %d bytes, %d bytes, first difference at %d", name, len(a.Content), len(b.Content), firstDifference(a.Content, b.Content))}
	if a.Kind != Ramdisk {
		return lines
	}
	before, errA := Unpack(a.Content)
	after, errB := Unpack(b.Content)
	if errA != nil || errB != nil {
		return append(lines, name+": not both can be unpacked")
	}
	files := diffFiles(name, before, after)
	if len(files) == 0 {
		files = []string{name + ": the same files, packed differently"}
	}
	return append(lines, files...)
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func diffFiles(section string, a, b Files) []string {
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var lines []string
	for _, name := range names {
		before, was := a[name]
		after, is := b[name]
		switch {
		case !is:
			lines = append(lines, fmt.Sprintf("%s: %q is only in the first", section, name))
		case !was:
			lines = append(lines, fmt.Sprintf("%s: %q is only in the second", section, name))
		case before.Mode != after.Mode:
			lines = append(lines, fmt.Sprintf("%s: %q has mode %o, %o", section, name, before.Mode, after.Mode))
		case !bytes.Equal(before.Content, after.Content):
			lines = append(lines, fmt.Sprintf("%s: %q has %d bytes, %d bytes, first difference at %d", section, name,
				len(before.Content), len(after.Content), firstDifference(before.Content, after.Content)))
		}
	}
	return lines
}
