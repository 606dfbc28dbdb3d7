package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
)

// Where the guest finds things: the kernel starts InitPath, and the guest loads
// the modules that ModuleList names, one path a line, in that order. MeasureList is
// there if it is to measure, with the arguments as JSON.
const (
	MeasureList = "/measure.json"
	InitPath    = "/init"
	ModuleList  = "/modules/order"
)

// writeInitrd makes the initial file system: folders, modules, files. It is not
// compressed, because without KVM unpacking takes longer than reading.
func (m Machine) writeInitrd(file string) error {
	modules, err := m.Kernel.LoadModules(m.Modules...)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("vm: make the initial file system: %w", err)
	}
	defer f.Close()

	buffered := bufio.NewWriterSize(f, 1<<20)
	a := newArchive(buffered)
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/etc"} {
		a.dir(dir)
	}
	var order strings.Builder
	for _, module := range modules {
		name := path.Join(path.Dir(ModuleList), module.Name+".ko")
		a.file(name, 0o644, module.Data)
		fmt.Fprintln(&order, name)
	}
	a.file(ModuleList, 0o644, []byte(order.String()))
	if m.Measure != nil {
		arguments, err := json.Marshal(m.Measure)
		if err != nil {
			return fmt.Errorf("vm: encode arguments: %w", err)
		}
		a.file(MeasureList, 0o644, arguments)
	}
	for _, inside := range sortedKeys(m.Files) {
		data, err := os.ReadFile(m.Files[inside])
		if err != nil {
			return fmt.Errorf("vm: read %s: %w", inside, err)
		}
		a.file(inside, 0o755, data)
	}
	if err := a.close(); err != nil {
		return fmt.Errorf("vm: write the initial file system: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("vm: write the initial file system: %w", err)
	}
	return f.Close()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// An archive writes the format "newc" of cpio, which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst):
//
//	0       6                                           110       110+n
//	+-------+-------------------------------------------+---------+---------+
//	|070701 | 13 numbers of 8 hexadecimal digits        | name, 0 | content |
//	+-------+-------------------------------------------+---------+---------+
//	          ino mode uid gid nlink mtime filesize       both padded with zeros
//	          devmajor devminor rdevmajor rdevminor       to a multiple of 4
//	          namesize check
//
// The first error sticks and is returned by close. Times are zero, so equal
// content makes equal archives.
type archive struct {
	w     io.Writer
	inode int
	dirs  []string // already written
	err   error
}

func newArchive(w io.Writer) *archive { return &archive{w: w} }

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
)

// dir writes a folder and those above it, each once.
func (a *archive) dir(name string) {
	name = path.Clean(name)
	if name == "/" || slices.Contains(a.dirs, name) {
		return
	}
	a.dir(path.Dir(name))
	a.dirs = append(a.dirs, name)
	a.entry(name, cpioDir|0o755, nil)
}

// file writes a regular file, and the folders above it.
func (a *archive) file(name string, perm uint32, content []byte) {
	a.dir(path.Dir(name))
	a.entry(name, cpioFile|perm, content)
}

func (a *archive) close() error {
	a.entry("/TRAILER!!!", 0, nil)
	return a.err
}

func (a *archive) entry(name string, mode uint32, content []byte) {
	name = strings.TrimPrefix(name, "/")
	a.inode++
	a.write([]byte("070701"))
	for _, n := range []int{a.inode, int(mode), 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		a.write(fmt.Appendf(nil, "%08x", n))
	}
	a.write([]byte(name + "\x00"))
	a.pad(110 + len(name) + 1)
	a.write(content)
	a.pad(len(content))
}

func (a *archive) pad(n int) { a.write(make([]byte, -n&3)) }

func (a *archive) write(p []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(p)
	}
}
