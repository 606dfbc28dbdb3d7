package settings

import (
	"fmt"
	"maps"
	"slices"
)

// LoadValues reads settings by their names, as Values gives them, instead of what
// Load reads. What is not named has its default.
func (s *Set) LoadValues(values map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		st := s.byName[name]
		if st == nil {
			s.errs = append(s.errs, fmt.Errorf("%s: unknown setting", name))
			continue
		}
		for _, v := range values[name] {
			st.raw = append(st.raw, raw{value: v, typed: fmt.Sprintf("%s %q", name, v), rank: fromValues})
		}
	}
	s.apply()
}

// Values returns the settings as text, after Load: what the strongest source says
// of each, or the default. Those that have neither are left out, and so is the
// name of the file.
func (s *Set) Values() map[string][]string {
	values := map[string][]string{}
	for _, st := range s.settings {
		rs := st.effective()
		if st.name == fileSetting || len(rs) == 0 {
			continue
		}
		if !st.isList {
			rs = rs[len(rs)-1:]
		}
		for _, r := range rs {
			values[st.name] = append(values[st.name], r.value)
		}
	}
	return values
}

// Above returns the settings that flags or the environment decide, whatever the
// file says.
func (s *Set) Above() map[string]bool {
	above := map[string]bool{}
	for _, st := range s.settings {
		if rs := strongest(st.raw); len(rs) > 0 && rs[0].rank > fromFile {
			above[st.name] = true
		}
	}
	return above
}

// Default returns what a setting is if nobody says anything, and whether it has
// several values; it is not ok if there is no such setting.
func (s *Set) Default(name string) (def string, isList, ok bool) {
	st := s.byName[name]
	if st == nil || name == fileSetting {
		return "", false, false
	}
	return st.def, st.isList, true
}

// File returns the TOML file that Load has read, and what it says by name.
func (s *Set) File() (path string, values map[string][]string) {
	values = map[string][]string{}
	for _, st := range s.settings {
		for _, r := range st.raw {
			if r.rank == fromFile {
				values[st.name] = append(values[st.name], r.value)
			}
		}
	}
	if st := s.byName[fileSetting]; len(st.raw) > 0 {
		path = strongest(st.raw)[0].value
	}
	return path, values
}

// LoadText reads TOML instead of what Load reads; name is what mistakes call it.
func (s *Set) LoadText(name string, text []byte) {
	s.loadTOML(name, text)
	s.apply()
}
