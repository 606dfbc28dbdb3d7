package settings_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestLoadValuesNamesMistakes(t *testing.T) {
	t.Parallel()
	p := newProgram()
	p.set.LoadValues(map[string][]string{"mtu": {"big"}, "nope": {"1"}, "debug": {"maybe"}})
	err := p.set.Err()
	if err == nil {
		t.Fatal("all mistakes pass")
	}
	for _, want := range []string{`mtu "big"`, "nope: unknown setting", `debug "maybe"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the mistakes do not name %s:\n%v", want, err)
		}
	}
	p = newProgram()
	p.set.LoadText("a diff", []byte("mut = 1"))
	if err := p.set.Err(); err == nil || err.Error() != "a diff: mut: unknown setting" {
		t.Errorf("LoadText of an unknown setting: %v", err)
	}
}

// TestValuesAreReadAgain: what one program was told tells another the same.
func TestValuesAreReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(file, []byte("mtu = 1300\nfront = [\"a\", \"b\"]\ndebug = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProgram()
	p.set.Load([]string{"--config", file, "--mtu", "1400"}, []string{"CORRIDOR_DRAIN_TIMEOUT=5s"})
	want := map[string][]string{"mtu": {"1400"}, "front": {"a", "b"}, "debug": {"true"}, "drain-timeout": {"5s"}}
	got := p.set.Values()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Values = %v, want %v", got, want)
	}
	if above := p.set.Above(); !reflect.DeepEqual(above, map[string]bool{"mtu": true, "drain-timeout": true, "config": true}) {
		t.Errorf("Above = %v", above)
	}
	path, said := p.set.File()
	if path != file || !reflect.DeepEqual(said, map[string][]string{"mtu": {"1300"}, "front": {"a", "b"}, "debug": {"true"}}) {
		t.Errorf("File = %q, %v", path, said)
	}
	again := newProgram()
	again.set.LoadValues(got)
	if err := again.set.Err(); err != nil || *again.mtu != 1400 || len(*again.front) != 2 || !*again.debug {
		t.Errorf("read again: %v, %+v", err, again)
	}
	text := newProgram()
	text.set.LoadText("a file", []byte("mtu = 1300"))
	if _, said := text.set.File(); text.set.Err() != nil || *text.mtu != 1300 || !reflect.DeepEqual(said, map[string][]string{"mtu": {"1300"}}) {
		t.Errorf("LoadText: %v, %d, %v", text.set.Err(), *text.mtu, said)
	}
	for name, want := range map[string]string{"mtu": "1500", "front": "", "nope": ""} {
		def, isList, ok := text.set.Default(name)
		if def != want || isList != (name == "front") || ok != (name != "nope") {
			t.Errorf("Default(%s) = %q, %v, %v", name, def, isList, ok)
		}
	}
}
