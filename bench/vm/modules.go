package vm

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Module is one kernel module, ready to be loaded.
type Module struct {
	Name string
	Data []byte // an ELF object, not compressed
}

// LoadModules reads the named modules and all that they depend on, in an order in
// which they can be loaded. Modules that are built into the kernel are left out.
// A package that was only unpacked has no modules.dep, so the dependencies are
// read from the modules themselves, where depmod has them from too.
func (k Kernel) LoadModules(names ...string) ([]Module, error) {
	files, err := k.moduleFiles()
	if err != nil {
		return nil, err
	}
	builtin, err := k.builtin()
	if err != nil {
		return nil, err
	}
	l := loader{files: files, done: builtin}
	for _, name := range names {
		if err := l.load(name, nil); err != nil {
			return nil, err
		}
	}
	return l.order, nil
}

// A loader collects modules depth first, so that each stands behind those it needs.
type loader struct {
	files map[string]string
	done  map[string]bool
	order []Module
}

func (l *loader) load(name string, path []string) error {
	name = moduleName(name)
	if l.done[name] {
		return nil
	}
	if slices.Contains(path, name) {
		return fmt.Errorf("vm: module %s depends on itself by way of %v", name, path)
	}
	file, ok := l.files[name]
	if !ok {
		return fmt.Errorf("vm: the kernel has no module %s, needed by %v", name, path)
	}
	data, err := readModule(file)
	if err != nil {
		return fmt.Errorf("vm: read module %s: %w", name, err)
	}
	needs, err := dependencies(data)
	if err != nil {
		return fmt.Errorf("vm: module %s: %w", name, err)
	}
	for _, n := range needs {
		if err := l.load(n, append(path, name)); err != nil {
			return err
		}
	}
	l.done[name] = true
	l.order = append(l.order, Module{Name: name, Data: data})
	return nil
}

// moduleFiles maps a module's name to its file.
func (k Kernel) moduleFiles() (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if base, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && err == nil && !d.IsDir() {
			files[moduleName(base)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("vm: list modules: %w", err)
	}
	return files, nil
}

// builtin returns the modules that are part of the kernel's image.
func (k Kernel) builtin() (map[string]bool, error) {
	list, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("vm: read the list of built-in modules: %w", err)
	}
	builtin := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		builtin[moduleName(strings.TrimSuffix(filepath.Base(lines.Text()), ".ko"))] = true
	}
	return builtin, nil
}

// moduleName makes the two spellings of a module's name one.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// readModule reads a module, which packages compress in their own ways.
func readModule(file string) ([]byte, error) {
	tools := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}
	tool, ok := tools[filepath.Ext(file)]
	if !ok {
		return os.ReadFile(file)
	}
	data, err := exec.Command(tool, "-dc", file).Output()
	if err != nil {
		return nil, fmt.Errorf("unpack with %s: %w", tool, err)
	}
	return data, nil
}

// dependencies reads the field "depends=" of a module's section .modinfo, which
// is a row of zero-terminated strings (kernel: scripts/mod/modpost.c).
func dependencies(module []byte) ([]string, error) {
	object, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fmt.Errorf("not an ELF object: %w", err)
	}
	section := object.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read .modinfo: %w", err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
