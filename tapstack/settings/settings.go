// Package settings reads what the user asked of either end of the corridor,
// from flags, environment and one TOML file, and collects every mistake instead
// of stopping at the first. It knows no setting by itself: enclave/config and
// host/config declare theirs and check how they fit together.
package settings

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// fileSetting is the one setting that every program has: where the TOML file is.
const fileSetting = "config"

// A Set is the settings of one program. Each has one name, used three ways:
//
//	--drain-timeout 5s             a flag, the strongest
//	CORRIDOR_DRAIN_TIMEOUT=5s      the environment
//	drain-timeout = "5s"           the TOML file named by --config, the weakest
//
// Declare settings with Var, List, Bool and Alias, then call Load once, then
// Reject for what does not fit together, then Err. A Set is not safe for
// concurrent use.
type Set struct {
	program  string
	settings []*setting // in the order of declaration, which is the order of help
	byName   map[string]*setting
	aliases  map[string]alias
	errs     []error
}

// A setting is the raw side of one declared variable.
type setting struct {
	name   string
	usage  string
	def    string
	isBool bool
	isList bool
	raw    []raw
	apply  func([]raw) []error
}

// A raw value is what somebody wrote, and where, so that a complaint can quote it.
type raw struct {
	value string
	typed string // as the user typed it: `--mtu "9"`, `CORRIDOR_MTU="9"`, `x.toml: mtu = "9"`
	rank  int    // of its source: a higher one replaces all lower ones
}

const (
	fromFile = iota + 1
	fromEnvironment
	fromFlag
	fromValues
)

type alias struct {
	of      string
	convert func(string) string
}

// New returns an empty Set for the named program, which appears in help only.
func New(program string) *Set {
	s := &Set{program: program, byName: map[string]*setting{}, aliases: map[string]alias{}}
	Var(s, fileSetting, "", "TOML `file` with any of these settings", func(v string) (string, error) { return v, nil })
	return s
}

// Var declares a setting with one value. parse turns what the user wrote into a
// valid T, or says why it cannot; def is parsed like any other value, but an
// empty def leaves the zero T. The result is valid after Load. The word between
// backquotes in usage names the value in help, as in the flag package.
func Var[T any](s *Set, name, def, usage string, parse func(string) (T, error)) *T {
	p := new(T)
	s.declare(&setting{name: name, usage: usage, def: def, apply: func(rs []raw) []error {
		r := rs[len(rs)-1]
		v, err := parse(r.value)
		if err != nil {
			return []error{fmt.Errorf("%s: %w", r.typed, err)}
		}
		*p = v
		return nil
	}})
	return p
}

// List declares a setting that may be given several times: a repeated flag, a
// TOML array, or a comma-separated environment variable. The strongest source
// that names it replaces the others as a whole.
func List[T any](s *Set, name, usage string, parse func(string) (T, error)) *[]T {
	p := new([]T)
	s.declare(&setting{name: name, usage: usage, isList: true, apply: func(rs []raw) []error {
		var errs []error
		for _, r := range rs {
			v, err := parse(r.value)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", r.typed, err))
				continue
			}
			*p = append(*p, v)
		}
		return errs
	}})
	return p
}

// Bool declares a switch that is off unless set: --name, --name=true|false.
func Bool(s *Set, name, usage string) *bool {
	p := Var(s, name, "", usage, parseBool)
	s.byName[name].isBool = true
	return p
}

// parseBool accepts the words of the contract, on and off, beside Go's.
func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true", "on", "yes", "1":
		return true, nil
	case "false", "off", "no", "0":
		return false, nil
	}
	return false, errors.New("not one of on, off, true, false")
}

// OnOff parses a setting that is spelled "on" or "off".
func OnOff(v string) (bool, error) {
	switch v {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, errors.New(`neither "on" nor "off"`)
}

// Level parses how much is logged: debug, info, warn or error.
func Level(v string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(v)); err != nil {
		return 0, errors.New("not one of debug, info, warn, error")
	}
	return l, nil
}

// Alias lets another program's name stand for one of ours, as a flag or TOML
// key, with the value converted first; a nil convert keeps it as it is.
func Alias(s *Set, name, of string, convert func(string) string) {
	if convert == nil {
		convert = func(v string) string { return v }
	}
	s.aliases[name] = alias{of: of, convert: convert}
}

func (s *Set) declare(st *setting) {
	s.settings = append(s.settings, st)
	s.byName[st.name] = st
}

// Load reads args (without the program's name) and environ (as os.Environ gives
// it), then the TOML file if one is named. It returns the arguments behind "--",
// nil when there was none, and whether help was asked for. Mistakes are kept for
// Err.
func (s *Set) Load(args, environ []string) (rest []string, help bool) {
	rest, help = s.loadFlags(args)
	if help {
		return nil, true
	}
	s.loadEnvironment(environ)
	if st := s.byName[fileSetting]; len(st.raw) > 0 {
		s.loadFile(strongest(st.raw)[0])
	}
	s.apply()
	return rest, false
}

// apply parses what was read.
func (s *Set) apply() {
	for _, st := range s.settings {
		if rs := st.effective(); len(rs) > 0 {
			s.errs = append(s.errs, st.apply(rs)...)
		}
	}
}

// effective is what the strongest source says, or the default.
func (st *setting) effective() []raw {
	rs := strongest(st.raw)
	if len(rs) == 0 && st.def != "" {
		rs = []raw{{value: st.def, typed: fmt.Sprintf("--%s %q", st.name, st.def)}}
	}
	return rs
}

// strongest keeps the values of the strongest source that spoke.
func strongest(rs []raw) []raw {
	var kept []raw
	best := 0
	for _, r := range rs {
		if r.rank > best {
			best, kept = r.rank, nil
		}
		if r.rank == best {
			kept = append(kept, r)
		}
	}
	return kept
}

// loadFlags goes on after a mistake, so that the user sees all of them.
func (s *Set) loadFlags(args []string) (rest []string, help bool) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append([]string{}, args[i+1:]...), false
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		switch {
		case arg == "-h" || arg == "-help" || arg == "--help":
			return nil, true
		case !strings.HasPrefix(arg, "-") || name == "":
			s.errs = append(s.errs, fmt.Errorf("%q: unexpected argument", arg))
			continue
		}
		st, convert := s.find(name)
		takesValue := st == nil || !st.isBool
		if takesValue && !hasValue && i+1 < len(args) && (st != nil || !strings.HasPrefix(args[i+1], "-")) {
			i++
			value, hasValue = args[i], true
		}
		typedName := arg[:strings.Index(arg, name)] + name
		switch {
		case st == nil:
			s.errs = append(s.errs, fmt.Errorf("%s: unknown flag", typedName))
		case st.isBool && !hasValue:
			st.raw = append(st.raw, raw{value: convert("true"), typed: typedName, rank: fromFlag})
		case !hasValue:
			s.errs = append(s.errs, fmt.Errorf("%s: needs a value", typedName))
		default:
			st.raw = append(st.raw, raw{value: convert(value), typed: fmt.Sprintf("%s %q", typedName, value), rank: fromFlag})
		}
	}
	return nil, false
}

func (s *Set) find(name string) (*setting, func(string) string) {
	if a, ok := s.aliases[name]; ok {
		return s.byName[a.of], a.convert
	}
	return s.byName[name], func(v string) string { return v }
}

// environmentName is the variable that stands for a setting.
func environmentName(name string) string {
	return "CORRIDOR_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func (s *Set) loadEnvironment(environ []string) {
	values := make(map[string]string, len(environ))
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			values[k] = v
		}
	}
	for _, st := range s.settings {
		key := environmentName(st.name)
		v, ok := values[key]
		if !ok {
			continue
		}
		parts := []string{v}
		if st.isList {
			parts = strings.Split(v, ",")
		}
		for _, part := range parts {
			st.raw = append(st.raw, raw{value: part, typed: fmt.Sprintf("%s=%q", key, part), rank: fromEnvironment})
		}
	}
}

func (s *Set) loadFile(where raw) {
	data, err := os.ReadFile(where.value)
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("%s: %w", where.typed, err))
		return
	}
	s.loadTOML(where.value, data)
}

func (s *Set) loadTOML(name string, data []byte) {
	values, err := parseTOML(data)
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("%s: %w", name, err))
		return
	}
	for _, kv := range values {
		st, convert := s.find(kv.key)
		switch {
		case st == nil || kv.key == fileSetting:
			s.errs = append(s.errs, fmt.Errorf("%s: %s: unknown setting", name, kv.key))
		case kv.isArray && !st.isList:
			s.errs = append(s.errs, fmt.Errorf("%s: %s: takes one value, not a list", name, kv.key))
		default:
			for _, v := range kv.values {
				typed := fmt.Sprintf("%s: %s = %q", name, kv.key, v)
				st.raw = append(st.raw, raw{value: convert(v), typed: typed, rank: fromFile})
			}
		}
	}
}

// IsSet reports whether anybody named the setting, whatever the value.
func (s *Set) IsSet(name string) bool { return len(s.byName[name].raw) > 0 }

// Reject records that the named setting does not fit, quoted as the user typed
// it; for one that nobody set it names the flag.
func (s *Set) Reject(name, format string, a ...any) {
	typed := "--" + name
	if rs := strongest(s.byName[name].raw); len(rs) > 0 {
		typed = rs[len(rs)-1].typed
	}
	s.errs = append(s.errs, fmt.Errorf("%s: "+format, append([]any{typed}, a...)...))
}

// Err returns every mistake so far, joined, or nil.
func (s *Set) Err() error { return errors.Join(s.errs...) }

// WriteUsage prints one line for each setting, in the order of declaration.
func (s *Set) WriteUsage(w io.Writer, synopsis string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s %s\n\n", s.program, synopsis)
	for _, st := range s.settings {
		value, usage := unquote(st.usage)
		if st.isBool {
			value = ""
		}
		fmt.Fprintf(&b, "  --%s\n        %s", strings.TrimSpace(st.name+" "+value), usage)
		if st.isList {
			b.WriteString(" (repeatable)")
		}
		if st.def != "" {
			fmt.Fprintf(&b, " (default %s)", st.def)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nEach may also be set in the TOML file under the same name, and in the environment\nas %s.\n", environmentName("name-of-the-setting"))
	_, err := io.WriteString(w, b.String())
	return err
}

// unquote takes the value's name out of a usage text.
func unquote(usage string) (value, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	if !ok {
		return "value", usage
	}
	value, after, _ := strings.Cut(rest, "`")
	return value, before + value + after
}
