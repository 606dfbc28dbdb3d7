// Package running holds the configuration that is in force and changes it while
// clients are carried: a few settings at a time, all of them or none, with a line
// in the log for each. It knows what settings are called, not what they do;
// config knows what is valid, and main puts it into force.
package running

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/publish"
)

var (
	// ErrRevision reports that the configuration is not the one that a change was
	// made for. The caller should look at it again.
	ErrRevision = errors.New("running: the configuration is another one by now")
	// ErrNoFile reports that there is no file to read again.
	ErrNoFile = errors.New("running: started without a file (--config)")
)

// A MistakeError is why a change was refused. Nothing has changed.
type MistakeError struct{ Err error } // joined: one error for each mistake

func (e *MistakeError) Error() string { return e.Err.Error() }

// Unwrap returns the mistakes.
func (e *MistakeError) Unwrap() error { return e.Err }

// Mistakes returns one text for each mistake.
func (e *MistakeError) Mistakes() []string { return texts(e.Err) }

func texts(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, texts(e)...)
	}
	return all
}

// A Prepared change has done what can fail. It is committed or aborted once.
type Prepared interface {
	// Ports are those that will be published, with the numbers of free ports filled in.
	Ports() []publish.Port
	// Commit puts the configuration into force. It fails only if the host stops.
	Commit() error
	// Abort leaves everything as it was.
	Abort()
}

// A PrepareFunc does what can fail of putting a configuration into force.
type PrepareFunc func(config.Config) (Prepared, error)

// A Host is the configuration in force. It is safe for concurrent use.
type Host struct {
	prepare PrepareFunc
	log     *slog.Logger

	changing sync.Mutex // held while one change is under way
	closed   bool       // belongs to changing

	mu     sync.Mutex // never held while anything is waited for
	state  State
	counts Counts
}

// A State is a configuration with its history.
type State struct {
	Document config.Document `json:"settings"`
	Changes  uint64          `json:"changes"` // how many led here, over all processes
	File     config.File     `json:"file"`
}

// Revision names the State: no other one has had the same name, and no other
// settings.
func (s State) Revision() string {
	text, err := json.Marshal(s.Document) // maps are written in order
	if err != nil {
		return "" // cannot be: it is strings
	}
	return fmt.Sprintf("%d-%.4x", s.Changes, sha256.Sum256(text))
}

// Counts are how many changes there were.
type Counts struct{ Applied, Refused uint64 }

// New returns the Host of a configuration that is in force, or will be as soon as
// Start has been called.
func New(s State, prepare PrepareFunc, log *slog.Logger) *Host {
	return &Host{state: s, prepare: prepare, log: log}
}

// State returns what is in force.
func (h *Host) State() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	s.Document = s.Document.Clone()
	return s
}

// Counts returns how many changes there were in this process.
func (h *Host) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// Resume is the State of a process that goes on for another one, whose State was
// old: what ran goes on, with the steps from what the file said there to what it
// says now. What only a new process can change is as it is here.
func Resume(old, here State) (State, error) {
	next := State{Document: config.Document{}, Changes: old.Changes, File: here.File}
	for name, values := range old.Document {
		kind, ok := config.KindOf(name)
		switch {
		case !ok:
			return State{}, fmt.Errorf("running: the old process has a setting %s, which this one does not know", name)
		case kind.Running:
			next.Document[name] = values
		}
	}
	for name, values := range here.Document {
		if kind, _ := config.KindOf(name); !kind.Running || here.File.Above[name] && old.Document[name] == nil {
			next.Document[name] = values
		}
	}
	ops := slices.DeleteFunc(Diff(old.File.Said, here.File.Said), func(o Op) bool {
		kind, _ := config.KindOf(o.Setting)
		return here.File.Above[o.Setting] || !kind.Running
	})
	var err error
	next.Document, err = apply(next.Document, ops, true)
	return next, err
}

// Close ends all changes: the configuration goes on in another process. It returns
// the State that the last change left. Open takes it back.
func (h *Host) Close() State {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.closed = true
	return h.State()
}

// Open takes Close back.
func (h *Host) Open() {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.closed = false
}

// A Request is a change that somebody wants.
type Request struct {
	By     string // who, for the log
	If     string // the revision that it was made for; empty is any
	DryRun bool   // only say what it would do
}

// A Result is what a change did, or would do.
type Result struct {
	Revision string `json:"revision"`
	Changes  []Op   `json:"changes"`
}

// Start puts the first configuration into force.
func (h *Host) Start() error {
	h.changing.Lock()
	defer h.changing.Unlock()
	c, err := h.state.Document.Config()
	if err != nil {
		return err
	}
	p, err := h.prepare(c)
	if err != nil {
		return err
	}
	return h.commit(p, c.Document)
}

// Apply takes the steps, all or none. The error is a *MistakeError, ErrRevision, or
// that the host stops.
func (h *Host) Apply(r Request, ops []Op) (Result, error) {
	return h.change(r, func(s State) (State, error) {
		var err error
		s.Document, err = apply(s.Document, ops, false)
		return s, err
	})
}

// Replace makes the configuration what the text of a TOML file says, but for what
// flags and the environment decided at the start. The error is as that of Apply.
func (h *Host) Replace(r Request, text []byte) (Result, error) {
	return h.change(r, func(s State) (State, error) {
		said, err := config.ParseFile("the file", text)
		if err != nil {
			return s, err
		}
		wanted := config.Document{}
		for name, values := range s.Document {
			kind, _ := config.KindOf(name)
			switch {
			case s.File.Above[name] || !kind.Running && said[name] == nil:
				wanted[name] = values
			case kind.Default != nil:
				wanted[name] = kind.Default
			}
		}
		for name, values := range said {
			if !s.File.Above[name] {
				wanted[name] = values
			}
		}
		s.Document, err = apply(s.Document, Diff(s.Document, wanted), false)
		return s, err
	})
}

// Reload reads the file again and takes the steps from what it said to what it
// says, but for what flags and the environment decide. What was changed by others
// meanwhile stays. The error is ErrNoFile, or as that of Apply.
func (h *Host) Reload(r Request) (Result, error) {
	path := h.State().File.Path
	if path == "" {
		return Result{}, ErrNoFile
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Result{}, h.refuse(r, &MistakeError{err})
	}
	return h.change(r, func(s State) (State, error) { return reread(s, path, text) })
}

func reread(s State, path string, text []byte) (State, error) {
	said, err := config.ParseFile(path, text)
	if err != nil {
		return s, err
	}
	ops := slices.DeleteFunc(Diff(s.File.Said, said), func(o Op) bool { return s.File.Above[o.Setting] })
	s.File.Said = said
	s.Document, err = apply(s.Document, ops, true)
	return s, err
}

// change makes one change, if edit and everybody else agrees.
func (h *Host) change(r Request, edit func(State) (State, error)) (Result, error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	before := h.State()
	if h.closed {
		return Result{}, h.refuse(r, publish.ErrClosed)
	}
	if r.If != "" && r.If != before.Revision() {
		return Result{}, h.refuse(r, fmt.Errorf("%w: %s, not %s", ErrRevision, before.Revision(), r.If))
	}
	after, err := edit(before)
	if err != nil {
		return Result{}, h.refuse(r, &MistakeError{err})
	}
	c, err := after.Document.Config()
	if err != nil {
		return Result{}, h.refuse(r, &MistakeError{err})
	}
	p, err := h.prepare(c)
	if err != nil {
		return Result{}, h.refuse(r, &MistakeError{err})
	}
	after.Document = withPorts(c.Document, p.Ports())
	changes := Diff(before.Document, after.Document)
	if r.DryRun || len(changes) == 0 {
		p.Abort()
		h.keepFile(r, after)
		return Result{before.Revision(), changes}, nil
	}
	if err := p.Commit(); err != nil {
		return Result{}, h.refuse(r, err)
	}
	after.Changes++
	h.mu.Lock()
	h.state = after
	h.counts.Applied++
	h.mu.Unlock()
	h.log.Info("configuration changed", "by", r.By, "revision", after.Revision(), "before", before.Revision(), "changes", changes)
	return Result{after.Revision(), changes}, nil
}

// keepFile remembers what a file said that changed nothing.
func (h *Host) keepFile(r Request, s State) {
	if r.DryRun {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.File = s.File
}

// commit puts the first configuration into force.
func (h *Host) commit(p Prepared, d config.Document) error {
	h.mu.Lock()
	h.state.Document = withPorts(d, p.Ports())
	h.mu.Unlock()
	return p.Commit()
}

// withPorts fills in the numbers of ports that were any free ones.
func withPorts(d config.Document, ports []publish.Port) config.Document {
	d = d.Clone()
	var published []string
	for _, p := range ports {
		published = append(published, p.String())
	}
	put(d, "publish", published)
	return d
}

// refuse counts and logs that a change was not made.
func (h *Host) refuse(r Request, err error) error {
	h.mu.Lock()
	h.counts.Refused++
	h.mu.Unlock()
	h.log.Warn("configuration not changed", "by", r.By, "err", err)
	return err
}
