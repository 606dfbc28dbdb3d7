package eif_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/corridor-enclave/corridor/attestation/eif"
)

func tree() fstest.MapFS {
	return fstest.MapFS{
		"bin/app":   {Data: []byte("program"), Mode: 0o755},
		"bin/su":    {Data: []byte("su"), Mode: 0o755 | fs.ModeSetuid},
		"etc/empty": {Mode: 0o600},
		"lib":       {Data: []byte("usr/lib"), Mode: 0o777 | fs.ModeSymlink},
		"tmp":       {Mode: 0o777 | fs.ModeDir | fs.ModeSticky},
	}
}

func pack(t testing.TB, f eif.Files) []byte {
	t.Helper()
	b, err := f.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackRefuses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "/a", "a/", "a//b", "../a", "a/../b", "TRAILER!!!"} {
		if b, err := (eif.Files{name: {}}).Pack(); b != nil || err == nil {
			t.Errorf("%q is packed", name)
		}
	}
	f := eif.Files{}
	if err := f.AddTree(fstest.MapFS{"pipe": {Mode: fs.ModeNamedPipe}}, "."); err == nil || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("a pipe is packed: %v", err)
	}
	if err := f.AddTree(os.DirFS(filepath.Join(t.TempDir(), "missing")), "."); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder is packed: %v", err)
	}
	if err := f.AddApp(eif.App{Command: []string{"a\nb"}}); err == nil {
		t.Error("a command of two lines is packed")
	}
	link := eif.Files{"a": {Mode: 0o120777, Content: []byte("/etc")}, "a/b": {Mode: 0o100644}}
	if b, err := link.Pack(); b != nil || err == nil || !strings.Contains(err.Error(), "below a") {
		t.Errorf("a file below a link is packed: %v", err)
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	f := eif.Files{}
	if err := f.AddTree(tree(), "rootfs"); err != nil {
		t.Fatal(err)
	}
	packed := pack(t, f)
	if !bytes.Equal(pack(t, f), packed) {
		t.Error("packing twice gives different bytes")
	}
	got, err := eif.Unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{
		"rootfs": 0o040555, "rootfs/bin": 0o040555, "rootfs/bin/app": 0o100755, "rootfs/bin/su": 0o104755,
		"rootfs/etc/empty": 0o100600, "rootfs/lib": 0o120777, "rootfs/tmp": 0o041777,
	} {
		if got[name].Mode != want {
			t.Errorf("%s has mode %o, want %o", name, got[name].Mode, want)
		}
	}
	if string(got["rootfs/lib"].Content) != "usr/lib" || string(got["rootfs/bin/app"].Content) != "program" {
		t.Errorf("contents are lost: %v", got)
	}
	if missing, err := eif.Unpack(pack(t, eif.Files{"a/b/c": {Mode: 0o100644}})); err != nil || missing["a/b"].Mode != 0o040755 {
		t.Errorf("parents are missing: %v, %v", missing, err)
	}
}

func TestAddApp(t *testing.T) {
	t.Parallel()
	f, root := eif.Files{}, eif.Files{}
	if err := root.AddTree(tree(), "."); err != nil {
		t.Fatal(err)
	}
	if err := f.AddApp(eif.App{Root: root, Command: []string{"/bin/app", "--port", "80"}, Environment: []string{"A=b c"}}); err != nil {
		t.Fatal(err)
	}
	if string(f["cmd"].Content) != "/bin/app\n--port\n80\n" || string(f["env"].Content) != "A=b c\n" {
		t.Errorf("cmd %q, env %q", f["cmd"].Content, f["env"].Content)
	}
	if f["rootfs/proc"].Mode != 0o040755 || f["rootfs/tmp"].Mode != 0o041777 || f["rootfs"].Mode != 0o040755 {
		t.Errorf("folders: proc %o, tmp %o", f["rootfs/proc"].Mode, f["rootfs/tmp"].Mode)
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	z, err := gzip.NewReader(bytes.NewReader(pack(t, eif.Files{"a": {Mode: 0o100644, Content: []byte("content")}})))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(at int, text string) []byte {
		b := bytes.Clone(plain)
		copy(b[at:], text)
		return b
	}
	for name, in := range map[string][]byte{
		"text": []byte("not an archive"), "gzip cut off": {0x1f, 0x8b, 8}, "old format": edit(0, "070707"), "no number": edit(54, "0000000g"),
		"size beyond the end": edit(54, "ffffffff"), "name beyond the end": edit(94, "ffffffff"), "no name": edit(94, "00000000"),
		"name without end": edit(94, "00000001"), "cut off": plain[:100], "zstd": {0x28, 0xb5, 0x2f, 0xfd},
	} {
		if f, err := eif.Unpack(in); f != nil || !errors.Is(err, eif.ErrMalformed) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	twice, err := eif.Unpack(append(append(bytes.Clone(plain), make([]byte, 512)...), edit(110, "b")...))
	if err != nil || len(twice) != 2 {
		t.Errorf("two archives, one behind the other: %v, %v", twice, err)
	}
}

// Another program than ours unpacks what ours has packed.
func TestCpioUnpacks(t *testing.T) {
	t.Parallel()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("CORRIDOR_REQUIRE") == "all" {
			t.Fatal("needs busybox (remedy: apt-get install busybox)")
		}
		t.Skipf("needs busybox (remedy: apt-get install busybox)")
	}
	f := eif.Files{}
	if err := f.AddTree(tree(), "rootfs"); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(pack(t, f)))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), busybox, "cpio", "-i")
	cmd.Dir, cmd.Stdin = t.TempDir(), z
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("busybox cpio: %v\n%s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(cmd.Dir, "rootfs", "bin", "app"))
	if err != nil || string(content) != "program" {
		t.Errorf("bin/app holds %q, %v", content, err)
	}
	if target, err := os.Readlink(filepath.Join(cmd.Dir, "rootfs", "lib")); err != nil || target != "usr/lib" {
		t.Errorf("lib leads to %q, %v", target, err)
	}
}

// FuzzUnpack holds that what is unpacked has a place in the archive, and that a
// second pass over what was packed again finds the same.
func FuzzUnpack(f *testing.F) {
	files := eif.Files{}
	if err := files.AddTree(tree(), "."); err != nil {
		f.Fatal(err)
	}
	packed := pack(f, files)
	f.Add(packed)
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := eif.Unpack(in)
		if err != nil {
			return
		}
		b, err := got.Pack()
		if err != nil {
			return // names that are no paths
		}
		again, err := eif.Unpack(b)
		if err != nil {
			t.Fatal(err)
		}
		for name, file := range got {
			if !reflect.DeepEqual(append([]byte{}, again[name].Content...), append([]byte{}, file.Content...)) || again[name].Mode != file.Mode {
				t.Fatalf("%q changes", name)
			}
		}
	})
}
