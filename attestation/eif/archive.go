package eif

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// A ramdisk is an archive of cpio's format "newc", which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst), in gzip:
//
//	0       6                                           110       110+n
//	+-------+-------------------------------------------+---------+---------+
//	|070701 | 13 numbers of 8 hexadecimal digits        | name, 0 | content |
//	+-------+-------------------------------------------+---------+---------+
//	          ino mode uid gid nlink mtime filesize       both padded with zeros
//	          devmajor devminor rdevmajor rdevminor       to a multiple of 4
//	          namesize check
const (
	cpioMagic   = "070701"
	cpioHeader  = 110
	cpioTrailer = "TRAILER!!!"

	modeFile    = 0o100000
	modeDir     = 0o040000
	modeSymlink = 0o120000
	modeKind    = 0o170000

	// maxEntry is the largest file that the format can hold, in bytes.
	maxEntry = 1<<32 - 1
)

// A File is an entry of a ramdisk. Owners are root and times are zero: neither
// may make images of the same content differ.
type File struct {
	Mode    uint32 // kind and permissions, as in stat(2)
	Content []byte // or a symbolic link's target
}

// Files are the entries of a ramdisk by their paths, without a slash in front.
type Files map[string]File

// AddTree adds everything of a file system below the folder to of the ramdisk
// ("." for its root). Folders, files and symbolic links are taken, with their
// permissions; a link of several names becomes several files; anything else is an
// error, because it would not survive.
func (f Files) AddTree(source fs.FS, to string) error {
	return fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("eif: pack: %w", err)
		}
		entry, err := fileOf(source, name, d)
		if err != nil {
			return fmt.Errorf("eif: pack %s: %w", name, err)
		}
		if target := path.Join(to, name); target != "." {
			f[target] = entry
		}
		return nil
	})
}

func fileOf(source fs.FS, name string, d fs.DirEntry) (File, error) {
	info, err := d.Info()
	if err != nil {
		return File{}, err
	}
	mode := uint32(info.Mode().Perm())
	for bit, special := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if info.Mode()&bit != 0 {
			mode |= special
		}
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return File{Mode: modeDir | mode}, nil
	case 0:
		content, err := fs.ReadFile(source, name)
		return File{Mode: modeFile | mode, Content: content}, err
	case fs.ModeSymlink:
		target, err := fs.ReadLink(source, name)
		return File{Mode: modeSymlink | 0o777, Content: []byte(target)}, err
	}
	return File{}, fmt.Errorf("%v is no folder, file or symbolic link", info.Mode().Type())
}

// AddApp adds an app as AWS's own first ramdisk starts it: its root file system
// below rootfs, the command's words in cmd and the environment in env, each on a
// line of its own, and the folders that are mounted over.
func (f Files) AddApp(app App) error {
	for name, file := range app.Root {
		f[path.Join("rootfs", name)] = file
	}
	f["rootfs"] = File{Mode: modeDir | 0o755}
	for _, name := range []string{"dev", "proc", "run", "sys", "tmp", "var"} {
		if _, there := f["rootfs/"+name]; !there {
			f["rootfs/"+name] = File{Mode: modeDir | 0o755}
		}
	}
	for name, list := range map[string][]string{"cmd": app.Command, "env": app.Environment} {
		var b bytes.Buffer
		for _, line := range list {
			if bytes.ContainsAny([]byte(line), "\n\x00") {
				return fmt.Errorf("eif: %s: %q does not fit on a line", name, line)
			}
			b.WriteString(line + "\n")
		}
		f[name] = File{Mode: modeFile | 0o644, Content: b.Bytes()}
	}
	return nil
}

// Pack returns the ramdisk of the files: equal files make equal bytes, with the
// same version of Go. Parent folders that are missing are added.
func (f Files) Pack() ([]byte, error) {
	all := make(Files, len(f))
	for name, file := range f {
		if !fs.ValidPath(name) || name == "." || name == cpioTrailer {
			return nil, fmt.Errorf("eif: pack: %q is no path", name)
		}
		if len(file.Content) > maxEntry {
			return nil, fmt.Errorf("eif: pack: %s is larger than %d bytes", name, maxEntry)
		}
		all[name] = file
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			above, there := f[parent]
			if there && above.Mode&modeKind != modeDir {
				// The kernel would follow a link, out of the app's root even.
				return nil, fmt.Errorf("eif: pack: %s is below %s, which is no folder", name, parent)
			}
			if !there {
				all[parent] = File{Mode: modeDir | 0o755}
			}
		}
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := all.write(z); err != nil {
		return nil, fmt.Errorf("eif: pack: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("eif: pack: %w", err)
	}
	return b.Bytes(), nil
}

func (f Files) write(w io.Writer) error {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names) // folders come before what is in them
	for i, name := range names {
		if err := writeEntry(w, i+1, name, f[name]); err != nil {
			return err
		}
	}
	return writeEntry(w, 0, cpioTrailer, File{})
}

func writeEntry(w io.Writer, inode int, name string, file File) error {
	links := 1
	if file.Mode&modeKind == modeDir {
		links = 2
	}
	header := []byte(cpioMagic)
	for _, n := range []int{inode, int(file.Mode), 0, 0, links, 0, len(file.Content), 0, 0, 0, 0, len(name) + 1, 0} {
		header = fmt.Appendf(header, "%08x", n)
	}
	header = append(header, name...)
	header = append(header, 0)
	header = append(header, make([]byte, -len(header)&3)...)
	for _, part := range [][]byte{header, file.Content, make([]byte, -len(file.Content)&3)} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
