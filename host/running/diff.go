package running

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/corridor-enclave/corridor/host/config"
)

// An Op is one step of a difference between configurations:
//
//	add     a value to a list
//	remove  a value from a list; without values, a setting goes back to its default
//	set     a setting to the values, whatever it was
type Op struct {
	Do      string   `json:"op"`
	Setting string   `json:"setting"`
	Values  []string `json:"values,omitempty"`
}

// What an Op does.
const (
	Add    = "add"
	Remove = "remove"
	Set    = "set"
)

// String is the Op as host ctl takes it.
func (o Op) String() string {
	return strings.TrimSpace(o.Do + " " + o.Setting + " " + strings.Join(o.Values, " "))
}

// Diff returns the steps from one configuration to another.
func Diff(from, to config.Document) []Op {
	var ops []Op
	names := slices.Sorted(maps.Keys(from))
	for name := range to {
		if _, ok := from[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		ops = append(ops, diffSetting(name, from[name], to[name])...)
	}
	return ops
}

func diffSetting(name string, from, to []string) []Op {
	if slices.Equal(from, to) {
		return nil
	}
	kind, _ := config.KindOf(name)
	switch {
	case len(to) == 0 && !kind.IsList:
		return []Op{{Do: Remove, Setting: name}}
	case !kind.IsList:
		return []Op{{Do: Set, Setting: name, Values: to}}
	}
	var ops []Op
	result := slices.Clone(from)
	for _, v := range from {
		if !slices.Contains(to, v) {
			ops = append(ops, Op{Do: Remove, Setting: name, Values: []string{v}})
			result = slices.DeleteFunc(result, func(r string) bool { return r == v })
		}
	}
	for _, v := range to {
		if !slices.Contains(from, v) {
			ops = append(ops, Op{Do: Add, Setting: name, Values: []string{v}})
			result = append(result, v)
		}
	}
	if kind.Ordered && !slices.Equal(result, to) {
		return []Op{{Do: Set, Setting: name, Values: to}}
	}
	return ops
}

// apply takes the steps. The error names every one that cannot be taken. If
// lenient, one that has been taken already is no mistake.
func apply(from config.Document, ops []Op, lenient bool) (config.Document, error) {
	to := from.Clone()
	var errs []error
	for _, o := range ops {
		if err := o.apply(to, lenient); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o, err))
		}
	}
	return to, errors.Join(errs...)
}

func (o Op) apply(to config.Document, lenient bool) error {
	kind, ok := config.KindOf(o.Setting)
	switch {
	case !ok:
		return errors.New("unknown setting")
	case !kind.Running:
		return errors.New("takes effect only in a new process: change the file and upgrade")
	case o.Do == Remove && len(o.Values) == 0:
		put(to, o.Setting, kind.Default)
		return nil
	case len(o.Values) == 0 && !(o.Do == Set && kind.IsList):
		return errors.New("no value")
	case o.Do == Set && (kind.IsList || len(o.Values) == 1):
		put(to, o.Setting, slices.Clone(o.Values))
		return nil
	case !kind.IsList:
		return errors.New("has one value: set it")
	case o.Do == Add:
		return add(to, o, lenient)
	case o.Do == Remove:
		return remove(to, o, lenient)
	}
	return fmt.Errorf("%q is not add, remove or set", o.Do)
}

// put keeps a Document free of empty lists, so that equal ones look equal.
func put(to config.Document, name string, values []string) {
	if len(values) == 0 {
		delete(to, name)
		return
	}
	to[name] = values
}

func add(to config.Document, o Op, lenient bool) error {
	for _, v := range o.Values {
		if !slices.Contains(to[o.Setting], v) {
			to[o.Setting] = append(to[o.Setting], v)
		} else if !lenient {
			return fmt.Errorf("%q is there already", v)
		}
	}
	return nil
}

func remove(to config.Document, o Op, lenient bool) error {
	for _, v := range o.Values {
		i, err := find(to[o.Setting], v)
		switch {
		case err == nil:
			put(to, o.Setting, slices.Delete(to[o.Setting], i, i+1))
		case !lenient:
			return err
		}
	}
	return nil
}

// find returns where a value is, which may be named by what stands before its "="
// or "@": the address of a published port, the address and name of a route.
func find(values []string, v string) (int, error) {
	if i := slices.Index(values, v); i >= 0 {
		return i, nil
	}
	found := -1
	for i, have := range values {
		if !strings.HasPrefix(have, v+"=") && !strings.HasPrefix(have, v+"@") {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("%q is %s and %s: say which", v, values[found], have)
		}
		found = i
	}
	if found < 0 {
		return 0, fmt.Errorf("%q is not there", v)
	}
	return found, nil
}
