package settings_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// program is what a caller of the package declares.
type program struct {
	set   *settings.Set
	mtu   *int
	drain *time.Duration
	front *[]string
	debug *bool
}

func text(v string) (string, error) { return v, nil }

func newProgram() program {
	s := settings.New("example")
	p := program{
		set:   s,
		mtu:   settings.Var(s, "mtu", "1500", "largest `bytes` of a packet", strconv.Atoi),
		drain: settings.Var(s, "drain-timeout", "", "how `long` to wait", time.ParseDuration),
		front: settings.List(s, "front", "where to `listen`", text),
		debug: settings.Bool(s, "debug", "say more"),
	}
	settings.Alias(s, "ext-pub-port", "front", func(v string) string { return "tcp::" + v })
	return p
}

func TestMistakesAreAllNamedAsTyped(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(file, []byte("mut = 1\ndebug = [true]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProgram()
	p.set.Load([]string{
		"--mtu", "big", "-mystery", "value", "stray", "--config", file, "--debug=perhaps", "--front",
	}, []string{"CORRIDOR_DRAIN_TIMEOUT=soon"})
	p.set.Reject("mtu", "is %d too many", 3)
	p.set.Reject("front", "missing")
	err := p.set.Err()
	if err == nil {
		t.Fatal("Err() = nil")
	}
	for _, want := range []string{
		`--mtu "big": `,
		`-mystery: unknown flag`,
		`"stray": unexpected argument`,
		file + `: mut: unknown setting`,
		file + `: debug: takes one value, not a list`,
		`--debug "perhaps": `,
		`--front: needs a value`,
		`CORRIDOR_DRAIN_TIMEOUT="soon": `,
		`--mtu "big": is 3 too many`,
		`--front: missing`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if got, want := len(strings.Split(err.Error(), "\n")), 10; got != want {
		t.Errorf("%d mistakes, want %d:\n%v", got, want, err)
	}
}

func TestFileMistakes(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, file, want string }{
		{"not TOML", "= 3", "not TOML"},
		{"a table", "[mtu]\nx = 1\n", "is no value of a setting"},
		{"a file that names a file", `config = "other.toml"`, "config: unknown setting"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "x.toml")
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			p := newProgram()
			p.set.Load([]string{"--config=" + file}, nil)
			if err := p.set.Err(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Err() = %v, want %q", err, tt.want)
			}
		})
	}
	p := newProgram()
	p.set.Load([]string{"--config", filepath.Join(t.TempDir(), "absent.toml")}, nil)
	if err := p.set.Err(); err == nil || !strings.Contains(err.Error(), "absent.toml") {
		t.Fatalf("missing file: Err() = %v", err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.toml")
	content := "mtu = 9000\ndrain-timeout = \"3s\"\nfront = [\"a\", \"b\"]\ndebug = true\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		args  []string
		env   []string
		mtu   int
		drain time.Duration
		front []string
		debug bool
	}{
		{name: "defaults", mtu: 1500},
		{name: "file", args: []string{"--config", file}, mtu: 9000, drain: 3 * time.Second, front: []string{"a", "b"}, debug: true},
		{name: "file named by the environment", env: []string{"CORRIDOR_CONFIG=" + file}, mtu: 9000, drain: 3 * time.Second, front: []string{"a", "b"}, debug: true},
		{name: "environment over file", args: []string{"--config", file}, env: []string{"CORRIDOR_FRONT=c,d", "CORRIDOR_DEBUG=off"}, mtu: 9000, drain: 3 * time.Second, front: []string{"c", "d"}},
		{name: "flags over environment", args: []string{"-mtu=1400", "--front", "e", "--front=f", "--debug"}, env: []string{"CORRIDOR_MTU=1", "CORRIDOR_FRONT=c"}, mtu: 1400, front: []string{"e", "f"}, debug: true},
		{name: "alias", args: []string{"-ext-pub-port", "8443"}, mtu: 1500, front: []string{"tcp::8443"}},
		{name: "a value that looks like a flag", args: []string{"--front", "--front"}, mtu: 1500, front: []string{"--front"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProgram()
			rest, help := p.set.Load(tt.args, tt.env)
			if err := p.set.Err(); err != nil || help || rest != nil {
				t.Fatalf("Load = %q, %v; Err() = %v", rest, help, err)
			}
			if *p.mtu != tt.mtu || *p.drain != tt.drain || !slices.Equal(*p.front, tt.front) || *p.debug != tt.debug {
				t.Fatalf("got %d %v %q %v, want %d %v %q %v", *p.mtu, *p.drain, *p.front, *p.debug, tt.mtu, tt.drain, tt.front, tt.debug)
			}
		})
	}
}

func TestRestAndHelp(t *testing.T) {
	t.Parallel()
	p := newProgram()
	rest, help := p.set.Load([]string{"--mtu", "1", "--", "app", "--mtu", "2"}, nil)
	if help || !slices.Equal(rest, []string{"app", "--mtu", "2"}) || *p.mtu != 1 || !p.set.IsSet("mtu") || p.set.IsSet("front") {
		t.Fatalf("rest %q, help %v, mtu %d", rest, help, *p.mtu)
	}
	if rest, _ := newProgram().set.Load([]string{"--"}, nil); rest == nil || len(rest) != 0 {
		t.Fatalf(`rest of a bare "--" = %#v, want an empty, non-nil list`, rest)
	}
	if _, help := newProgram().set.Load([]string{"--mtu", "x", "-h", "--nonsense"}, nil); !help {
		t.Fatal("-h did not ask for help")
	}
	var out strings.Builder
	if err := newProgram().set.WriteUsage(&out, "[flags]"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usage: example [flags]", "--mtu bytes", "(default 1500)", "--front listen", "(repeatable)", "--debug\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestOnOff(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{"on": true, "off": false} {
		if got, err := settings.OnOff(in); err != nil || got != want {
			t.Errorf("OnOff(%q) = %v, %v", in, got, err)
		}
	}
	if _, err := settings.OnOff("ON"); err == nil {
		t.Error(`OnOff("ON") succeeded`)
	}
}

func TestLevel(t *testing.T) {
	t.Parallel()
	if l, err := settings.Level("warn"); err != nil || l != slog.LevelWarn {
		t.Errorf(`Level("warn") = %v, %v`, l, err)
	}
	if _, err := settings.Level("loud"); err == nil {
		t.Error(`Level("loud") succeeded`)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("--mtu\x001500\x00--front=a\x00--\x00x", []byte("mtu = 1\nfront = [\"a\"]"))
	f.Add("-=\x00--\x00", []byte("a = {}"))
	f.Fuzz(func(t *testing.T, args string, file []byte) {
		name := filepath.Join(t.TempDir(), "x.toml")
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Fatal(err)
		}
		p := newProgram()
		_, help := p.set.Load(append([]string{"--config", name}, strings.Split(args, "\x00")...), []string{"CORRIDOR_FRONT=" + args})
		if !help && p.set.Err() == nil && *p.mtu == 0 && !p.set.IsSet("mtu") {
			t.Fatal("the default got lost")
		}
	})
}
