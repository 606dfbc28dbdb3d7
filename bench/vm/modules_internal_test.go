package vm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// moduleObject makes the smallest ELF object that says what it depends on.
//
//	header | .modinfo | .shstrtab | three section headers
func moduleObject(t *testing.T, depends string) []byte {
	t.Helper()
	modinfo := "license=GPL\x00depends=" + depends + "\x00name=m\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header, section = 64, 64
	sections := header + len(modinfo) + len(names)
	var out bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&out, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	write(elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: uint64(sections), Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 2,
	})
	out.WriteString(modinfo + names)
	write(elf.Section64{})
	write(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(modinfo))})
	write(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(modinfo)), Size: uint64(len(names))})
	return out.Bytes()
}

// fakeKernel lays out a package's modules, named as packages name them.
func fakeKernel(t *testing.T, depends map[string]string) Kernel {
	t.Helper()
	dir := t.TempDir()
	for name, list := range depends {
		if err := os.WriteFile(filepath.Join(dir, name+".ko"), moduleObject(t, list), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/net/core-part.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Kernel{Modules: dir}
}

func TestLoadModules(t *testing.T) {
	t.Parallel()
	depends := map[string]string{
		"vsock": "", "virtio-common": "vsock", "vsock_loopback": "vsock,virtio_common,core_part",
		"ring-a": "ring_b", "ring-b": "ring_a", "lost": "nowhere",
	}
	tests := []struct {
		name string
		load []string
		want string
		err  string
	}{
		{name: "one that is not there", load: []string{"tun"}, err: "no module tun"},
		{name: "a dependency that is not there", load: []string{"lost"}, err: "no module nowhere, needed by [lost]"},
		{name: "a ring", load: []string{"ring_a"}, err: "depends on itself"},
		{name: "dependencies first, each once, no built-in ones", load: []string{"vsock-loopback", "vsock", "virtio_common"}, want: "vsock virtio_common vsock_loopback"},
		{name: "nothing", want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			modules, err := fakeKernel(t, depends).LoadModules(tt.load...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, m := range modules {
				names = append(names, m.Name)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("order %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDependenciesRefusesWhatIsNoModule(t *testing.T) {
	t.Parallel()
	good := moduleObject(t, "vsock")
	for name, data := range map[string][]byte{
		"nothing": nil, "no ELF": []byte("\xfd7zXZ\x00"), "cut off": good[:len(good)-64],
		"no such section": bytes.Replace(good, []byte(".modinfo"), []byte(".modnone"), 1),
	} {
		if list, err := dependencies(data); err == nil {
			t.Errorf("%s: depends on %v, want an error", name, list)
		}
	}
}

func TestOpenKernel(t *testing.T) {
	t.Parallel()
	const release = "6.12.1-cloud"
	tests := []struct {
		name  string
		files []string
		ok    bool
	}{
		{name: "empty"},
		{name: "no modules", files: []string{"boot/vmlinuz-" + release}},
		{name: "modules of another release", files: []string{"boot/vmlinuz-" + release, "lib/modules/6.1/x.ko"}},
		{name: "whole", files: []string{"boot/vmlinuz-" + release, "lib/modules/" + release + "/x.ko"}, ok: true},
		{name: "merged", files: []string{"boot/vmlinuz-" + release, "usr/lib/modules/" + release + "/x.ko"}, ok: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, name := range tt.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			k, err := openKernel(dir)
			if (err == nil) != tt.ok || (tt.ok && k.Release != release) {
				t.Fatalf("openKernel = %+v, %v; want ok %v", k, err, tt.ok)
			}
		})
	}
}

func TestReadSteps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       int // steps
		ok         bool
	}{
		{name: "cut off in a line", text: `{"name":"a","ms":1}` + "\n" + `{"name":"b"`, want: 1},
		{name: "not ours", text: "Kernel panic - not syncing\n"},
		{name: "whole", text: `{"name":"a","ms":1}` + "\r\n\n" + `{"name":"b","err":"no","ms":2}` + "\n", want: 2, ok: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "reports")
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			steps, err := readSteps(path)
			if len(steps) != tt.want || (err == nil) != tt.ok {
				t.Fatalf("readSteps = %v, %v; want %d steps, ok %v", steps, err, tt.want, tt.ok)
			}
		})
	}
	if steps, err := readSteps(filepath.Join(t.TempDir(), "none")); steps != nil || err != nil {
		t.Errorf("no reports: %v, %v", steps, err)
	}
	if failed := Failed([]Step{{Name: "a"}, {Name: "b", Err: "no"}}); len(failed) != 1 || failed[0].Name != "b" {
		t.Errorf("Failed = %v", failed)
	}
}
