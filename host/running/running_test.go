package running_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

var errBusy = errors.New("the port is busy")

// A machine is what a configuration is put into force on. A port 666 is busy, and
// any free port is 50000.
type machine struct {
	mu       sync.Mutex
	inForce  config.Config
	prepared int // and neither committed nor aborted
	stopped  bool
}

type change struct {
	m    *machine
	next config.Config
}

func (m *machine) prepare(c config.Config) (running.Prepared, error) {
	var errs []error
	for i, p := range c.Publish {
		host, port, _ := net.SplitHostPort(p.Local)
		switch port {
		case "666":
			errs = append(errs, fmt.Errorf("%s: %w", p.Local, errBusy))
		case "0":
			c.Publish[i].Local = host + ":50000"
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prepared++
	return &change{m, c}, nil
}

func (c *change) Ports() []publish.Port { return c.next.Publish }

func (c *change) Abort() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.prepared--
}

func (c *change) Commit() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.prepared--
	if c.m.stopped {
		return publish.ErrClosed
	}
	c.m.inForce = c.next
	return nil
}

// A stand is a Host with a machine and a file.
type stand struct {
	*running.Host
	machine machine
	log     tapstacktest.Log
	file    string
}

func newStand(t *testing.T, file string, args ...string) *stand {
	t.Helper()
	s := &stand{file: filepath.Join(t.TempDir(), "host.toml")}
	s.write(t, file)
	c, _, err := config.Load(append([]string{"--config", s.file}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Host = running.New(running.State{Document: c.Document, File: c.File}, s.machine.prepare, slog.New(slog.NewTextHandler(&s.log, nil)))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stand) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func op(do, setting string, values ...string) running.Op {
	return running.Op{Do: do, Setting: setting, Values: values}
}

// unchanged checks that a change was refused, with these mistakes, and left no
// trace but in counter and log.
func (s *stand) unchanged(t *testing.T, do func() error, wants ...string) {
	t.Helper()
	before, counts := s.State(), s.Counts()
	err := do()
	mistakes := &running.MistakeError{}
	if !errors.As(err, &mistakes) || len(mistakes.Mistakes()) != len(wants) {
		t.Errorf("the change = %v, want %d mistakes", err, len(wants))
	}
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the mistakes do not name %q:\n%v", want, err)
		}
	}
	if after := s.State(); !reflect.DeepEqual(before, after) || s.machine.prepared != 0 {
		t.Errorf("it changed\n%v to\n%v, %d prepared", before, after, s.machine.prepared)
	}
	if got := s.Counts(); got.Refused != counts.Refused+1 || got.Applied != counts.Applied || !strings.Contains(s.log.String(), "configuration not changed") {
		t.Errorf("counts %+v, log:\n%s", got, &s.log)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t, `publish = [":443=stream:1443@16,17", ":444=stream:1443@16"]`)
	for name, tt := range map[string]struct {
		ops   []running.Op
		wants []string
	}{
		"all mistakes": {[]running.Op{
			op("add", "nope", "1"), op("set", "vsock", "kernel"), op("twist", "publish", "x"), op("add", "drain"), op("add", "idle-timeout", "1h"),
			op("set", "idle-timeout", "1h", "2h"), op("remove", "idle-timeout", "1h"), op("add", "publish", ":444=stream:1443@16"), op("remove", "publish", ":445"),
		}, []string{"nope", "vsock", `"twist"`, "no value", "add idle-timeout 1h: has one value", "set idle-timeout 1h 2h: has one value", "remove idle-timeout 1h: has one value", "is there already", `":445" is not there`}},
		"wrong values":        {[]running.Op{op("set", "idle-timeout", "1ms"), op("add", "publish", "x")}, []string{`idle-timeout "1ms"`, `publish "x"`}},
		"what does not fit":   {[]running.Op{op("add", "publish", ":443=link:443"), op("add", "route", ":446/a.example@16")}, []string{":443 is published twice", "no port :446"}},
		"what cannot be had":  {[]running.Op{op("add", "publish", ":666=link:1", "127.0.0.1:666=link:1"), op("set", "idle-timeout", "2h")}, []string{":666: the port", "127.0.0.1:666: the port"}},
		"one good, one wrong": {[]running.Op{op("set", "idle-timeout", "2h"), op("set", "max-waiting", "0")}, []string{"max-waiting"}},
	} {
		t.Run(name, func(t *testing.T) {
			s.unchanged(t, func() error {
				_, err := s.Apply(running.Request{By: "a test"}, tt.ops)
				return err
			}, tt.wants...)
		})
	}
	s.unchanged(t, func() error {
		_, err := s.Replace(running.Request{}, []byte("mtu = 1400\nnope = 1\nidle-timeout = \"1ms\""))
		return err
	}, "nope", "idle-timeout")
	s.unchanged(t, func() error {
		_, err := s.Replace(running.Request{}, []byte("mtu = 1400"))
		return err
	}, "set mtu 1400: takes effect only in a new process")
	for text, want := range map[string]string{"=": "not TOML", `publish = [":443=stream:0"]`: "not a port of the enclave", `mtu = 1400`: "mtu"} {
		s.write(t, text)
		s.unchanged(t, func() error {
			_, err := s.Reload(running.Request{By: "SIGHUP"})
			return err
		}, want)
	}
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	s.unchanged(t, func() error {
		_, err := s.Reload(running.Request{})
		return err
	}, "no such file")
}

func TestTwoOperators(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	seen := s.State().Revision()
	if _, err := s.Apply(running.Request{If: seen}, []running.Op{op("set", "idle-timeout", "2h")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(running.Request{If: seen}, []running.Op{op("set", "idle-timeout", "3h")}); !errors.Is(err, running.ErrRevision) {
		t.Errorf("the second change = %v, want ErrRevision", err)
	}
	if got := s.machine.inForce.Published.IdleTimeout.Hours(); got != 2 || s.Counts() != (running.Counts{Applied: 1, Refused: 1}) {
		t.Errorf("idle timeout %v hours, counts %+v", got, s.Counts())
	}
	// The settings are the same again, but it is another revision.
	result, err := s.Apply(running.Request{}, []running.Op{op("remove", "idle-timeout")})
	if err != nil || result.Revision == seen || s.machine.inForce.Published.IdleTimeout.Hours() != 1 {
		t.Errorf("back to the default: %+v, %v", result, err)
	}
	s.machine.stopped = true
	if _, err := s.Apply(running.Request{}, []running.Op{op("set", "idle-timeout", "2h")}); !errors.Is(err, publish.ErrClosed) {
		t.Errorf("a change while the host stops = %v", err)
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	s := newStand(t, `publish = [":443=stream:1443@16+17", ":0=link:80"]`)
	for _, tt := range []struct {
		ops     []running.Op
		changes string
		publish string
	}{
		{[]running.Op{op("add", "publish", ":444=link:443@16")}, "[add publish :444=link:443@16]", "[:443=stream:1443@16,17 :50000=link:80 :444=link:443@16]"},
		{[]running.Op{op("remove", "publish", ":443", ":50000"), op("add", "publish", ":443=stream:1443@18")},
			"[remove publish :443=stream:1443@16,17 remove publish :50000=link:80 add publish :443=stream:1443@18]", "[:444=link:443@16 :443=stream:1443@18]"},
		{[]running.Op{op("add", "route", ":443/a.example@16"), op("add", "drain", "16", "18")}, "[add drain 16 add drain 18 add route :443/a.example@16]", "[:444=link:443@16 :443=stream:1443@18]"},
		{[]running.Op{op("remove", "route", ":443/a.example"), op("set", "drain", "18"), op("set", "stream-ready", "3")}, "[remove drain 16 remove route :443/a.example@16 set stream-ready 3]", "[:444=link:443@16 :443=stream:1443@18]"},
		{[]running.Op{op("set", "drain"), op("remove", "stream-ready"), op("set", "publish", ":1=stream:1")}, "", "[:1=stream:1]"},
		{[]running.Op{op("set", "publish", ":1=stream:1")}, "[]", "[:1=stream:1]"},
	} {
		dry, err := s.Apply(running.Request{DryRun: true}, tt.ops)
		if err != nil || s.machine.prepared != 0 {
			t.Fatalf("dry run: %v", err)
		}
		before := s.State().Revision()
		result, err := s.Apply(running.Request{By: "a test"}, tt.ops)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(result.Changes) != fmt.Sprint(dry.Changes) || dry.Revision != before {
			t.Errorf("the dry run says %v at %s, done was %v at %s", dry.Changes, dry.Revision, result.Changes, before)
		}
		if got := fmt.Sprint(result.Changes); tt.changes != "" && got != tt.changes {
			t.Errorf("%v did %s", tt.ops, got)
		}
		if got := fmt.Sprint(s.State().Document["publish"]); got != tt.publish {
			t.Errorf("%v published %s, want %s", tt.ops, got, tt.publish)
		}
	}
	if !strings.Contains(s.log.String(), `by="a test"`) {
		t.Errorf("the log does not say who:\n%s", &s.log)
	}
}

// TestReload: the file's difference is applied, and what others did stays.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newStand(t, "publish = [\":1=link:1\", \":2=link:2\"]\nidle-timeout = \"2h\"\nstream-ready = 1\n", "--max-waiting", "7")
	if _, err := s.Apply(running.Request{}, []running.Op{op("add", "publish", ":9=link:9"), op("remove", "publish", ":2"), op("set", "slow-start", "1s")}); err != nil {
		t.Fatal(err)
	}
	s.write(t, "publish = [\":3=link:3\", \":1=link:1\"]\nstream-ready = 2\nmax-waiting = 8\n")
	result, err := s.Reload(running.Request{By: "SIGHUP"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(result.Changes); got != "[set idle-timeout 1h add publish :3=link:3 set stream-ready 2]" {
		t.Errorf("Reload did %s", got)
	}
	c := s.machine.inForce
	if c.Published.Limits.Dials != 7 || c.Enclaves.SlowStart.Seconds() != 1 || c.Published.Ready != 2 {
		t.Errorf("in force: %+v", c)
	}
	if got := fmt.Sprint(s.State().Document["publish"]); got != "[:1=link:1 :9=link:9 :3=link:3]" {
		t.Errorf("published: %s", got)
	}
	if result, err := s.Reload(running.Request{}); err != nil || len(result.Changes) != 0 {
		t.Errorf("the same file again: %+v, %v", result, err)
	}
	s.write(t, "")
	if _, err := s.Reload(running.Request{}); err != nil || fmt.Sprint(s.State().Document["publish"]) != "[:9=link:9]" {
		t.Errorf("an empty file: %v, %v", s.State().Document["publish"], err)
	}
	// Apply of a file is another matter: what it does not name goes.
	if _, err := s.Replace(running.Request{}, []byte(`publish = ":5=link:5"`)); err != nil {
		t.Fatal(err)
	}
	if c := s.machine.inForce; len(c.Publish) != 1 || c.Enclaves.SlowStart.Seconds() != 10 || c.Published.Limits.Dials != 7 {
		t.Errorf("in force: %+v", c)
	}
	if _, err := running.New(running.State{}, s.machine.prepare, slog.Default()).Reload(running.Request{}); !errors.Is(err, running.ErrNoFile) {
		t.Errorf("Reload without a file = %v", err)
	}
}

func TestForwarder(t *testing.T) {
	t.Parallel()
	s := newStand(t, "publish = [\":1=link:1\", \":2=link:2\"]\nroute = [\":2/a.example@16\"]")
	f := running.Forwarder{Host: s.Host, By: "gvproxy's API"}
	if _, err := f.Add(publish.Spec{Local: ":1", Port: 1}); !errors.Is(err, publish.ErrPublished) {
		t.Errorf("Add of what is there = %v", err)
	}
	if err := f.Remove(":3"); !errors.Is(err, publish.ErrNotPublished) {
		t.Errorf("Remove of what is not there = %v", err)
	}
	if _, err := f.Add(publish.Spec{Local: ":666", Port: 1}); err == nil || !strings.Contains(err.Error(), errBusy.Error()) {
		t.Errorf("Add of a busy port = %v", err)
	}
	if at, err := f.Add(publish.Spec{Local: "127.0.0.1:0", Port: 1}); err != nil || at.String() != "127.0.0.1:50000" {
		t.Errorf("Add of a free port = %v, %v", at, err)
	}
	if err := f.Remove(":2"); err != nil {
		t.Error(err)
	}
	if d := s.State().Document; fmt.Sprint(d["publish"]) != "[:1=link:1 127.0.0.1:50000=link:1]" || len(d["route"]) != 0 {
		t.Errorf("published %v, routes %v", d["publish"], d["route"])
	}
}

// TestDiffLeadsThere: whatever differs, the steps lead from one to the other.
func TestDiffLeadsThere(t *testing.T) {
	t.Parallel()
	texts := []string{
		"", `dns = ["192.0.2.1", "192.0.2.2"]`, `dns = ["192.0.2.2", "192.0.2.1"]`, `publish = [":1=link:1", ":2=link:2"]`, `publish = [":2=link:2", ":3=link:3"]`,
		"idle-timeout = \"2h\"\ndrain = [16]", "idle-timeout = \"3h\"\ndrain = [17, 16]",
	}
	for _, from := range texts {
		for _, to := range texts {
			a, errA := config.ParseFile("a", []byte(from))
			b, errB := config.ParseFile("b", []byte(to))
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			ops := running.Diff(a, b)
			if from == to && len(ops) != 0 {
				t.Errorf("%q differs from itself by %v", from, ops)
			}
			for _, o := range ops {
				if slices.Contains([]string{"add", "remove", "set"}, o.Do) {
					continue
				}
				t.Errorf("a step is %v", o)
			}
		}
	}
	a, _ := config.ParseFile("a", []byte(texts[1]))
	b, _ := config.ParseFile("b", []byte(texts[2]))
	if got := fmt.Sprint(running.Diff(a, b)); got != "[set dns 192.0.2.2 192.0.2.1]" {
		t.Errorf("the order of resolvers: %s", got)
	}
}
