package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A flag of a subcommand. Package flag is not used because it ends at the first
// mistake and at the first argument that is no flag.
type flag struct {
	name    string
	boolean bool
	set     func(value string) error // called each time the flag is given
}

// parseArguments sets the flags, which may stand anywhere before a "--", and
// returns the other arguments and every mistake, each named as it was typed.
func parseArguments(args []string, flags []flag) (others []string, mistakes []error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return append(others, args...), mistakes
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			others = append(others, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		f := find(flags, name)
		if f == nil {
			mistakes = append(mistakes, fmt.Errorf("unknown flag %s", arg))
			continue
		}
		if !hasValue && f.boolean {
			value, hasValue = "true", true
		}
		if !hasValue && len(args) > 0 {
			value, hasValue, args = args[0], true, args[1:]
		}
		if !hasValue {
			mistakes = append(mistakes, fmt.Errorf("--%s: a value is missing", name))
			continue
		}
		if err := f.set(value); err != nil {
			mistakes = append(mistakes, fmt.Errorf("--%s: %w", name, err))
		}
	}
	return others, mistakes
}

func find(flags []flag, name string) *flag {
	for i := range flags {
		if flags[i].name == name {
			return &flags[i]
		}
	}
	return nil
}

// boolFlag is a flag that may be given without value.
func boolFlag(name string, into *bool) flag {
	return flag{name: name, boolean: true, set: func(value string) error {
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		*into = b
		return nil
	}}
}
