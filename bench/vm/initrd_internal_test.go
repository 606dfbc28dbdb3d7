package vm

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
)

// An entry is one file of an archive, as a slow and obvious reader sees it.
type entry struct {
	name    string
	mode    int64
	content string
}

// readArchive reads the format of initrd.go back, checking every field's place.
func readArchive(t *testing.T, data []byte) []entry {
	t.Helper()
	var entries []entry
	for at := 0; ; {
		if string(data[at:at+6]) != "070701" {
			t.Fatalf("no magic number at %d: %q", at, data[at:at+6])
		}
		field := func(n int) int64 {
			v, err := strconv.ParseInt(string(data[at+6+8*n:at+14+8*n]), 16, 64)
			if err != nil {
				t.Fatalf("field %d of the entry at %d: %v", n, at, err)
			}
			return v
		}
		size, nameSize := int(field(6)), int(field(11))
		name := string(data[at+110 : at+110+nameSize-1])
		body := (at + 110 + nameSize + 3) &^ 3
		entries = append(entries, entry{name, field(1), string(data[body : body+size])})
		at = (body + size + 3) &^ 3
		if name == "TRAILER!!!" {
			if at != len(data) {
				t.Fatalf("%d bytes behind the end", len(data)-at)
			}
			return entries
		}
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := newArchive(&out)
	a.dir("/run")
	a.file("/bin/tool", 0o755, []byte("12345"))
	a.file("/bin/empty", 0o644, nil)
	a.dir("/bin")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{"run", cpioDir | 0o755, ""},
		{"bin", cpioDir | 0o755, ""},
		{"bin/tool", cpioFile | 0o755, "12345"},
		{"bin/empty", cpioFile | 0o644, ""},
		{"TRAILER!!!", 0, ""},
	}
	got := readArchive(t, out.Bytes())
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

// A full disk shows at close, however many entries came after it.
type full struct{ left int }

var errFull = errors.New("full")

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestArchiveKeepsTheFirstError(t *testing.T) {
	t.Parallel()
	a := newArchive(&full{left: 200})
	for i := range 10 {
		a.file("/f"+strconv.Itoa(i), 0o644, []byte(strings.Repeat("x", 100)))
	}
	if err := a.close(); !errors.Is(err, errFull) {
		t.Fatalf("close = %v, want %v", err, errFull)
	}
}
