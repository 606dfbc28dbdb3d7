package config

import (
	"maps"
	"slices"

	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// A Document is the settings as text, by name, each as one would type it. A
// setting that is not in it has its default, or nothing if it is a list.
type Document map[string][]string

// A File is what the TOML file had to do with a Config.
type File struct {
	Path  string          // empty if there is none
	Said  Document        // what it says
	Above map[string]bool // settings that flags or the environment decide
}

// Config makes the Config of a Document. The error names every mistake.
func (d Document) Config() (Config, error) {
	s := settings.New("host")
	build := declare(s, nil)
	s.LoadValues(d)
	return build()
}

// Clone returns a copy that shares nothing.
func (d Document) Clone() Document {
	c := maps.Clone(d)
	for name, values := range c {
		c[name] = slices.Clone(values)
	}
	return c
}

// ParseFile reads a TOML file's text; name is what mistakes call it. Whether its
// settings fit together is not asked.
func ParseFile(name string, text []byte) (Document, error) {
	s := settings.New("host")
	declare(s, nil)
	s.LoadText(name, text)
	_, said := s.File()
	return canonical(said), s.Err()
}

// canonical writes values in the one way that makes equal ones equal, where there
// are several.
func canonical(d Document) Document {
	for i, v := range d["publish"] {
		if spec, err := publish.ParseSpec(v); err == nil {
			d["publish"][i] = spec.String()
		}
	}
	for i, v := range d["route"] {
		if r, err := route.Parse(v); err == nil {
			d["route"][i] = r.String()
		}
	}
	return d
}

// A Kind says how a setting may be changed.
type Kind struct {
	IsList  bool
	Ordered bool // a list whose order means something
	Default []string
	Running bool // takes effect at once; else only in a new process
}

// KindOf returns the Kind of a setting, and whether there is one of that name.
func KindOf(name string) (Kind, bool) {
	s := settings.New("host")
	declare(s, nil)
	def, isList, ok := s.Default(name)
	k := Kind{IsList: isList, Ordered: name == "dns", Running: slices.Contains(running(), name)}
	if def != "" {
		k.Default = []string{def}
	}
	return k, ok
}

// running are the settings that take effect at once. The others say where the
// process listens, or what links and networks are made with.
func running() []string {
	return []string{
		"publish", "route", "drain", "health-check", "health-interval", "health-rise", "health-fall", "slow-start",
		"stream-ready", "idle-timeout", "max-connections", "max-connections-per-port", "max-connections-per-client", "max-waiting",
		"drain-timeout", "link-api", "log-level", "dns", "host-loopback", "egress-allow", "egress-deny",
	}
}
