package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

// policy checks a policy file and says in words what it accepts.
func (c command) policy(args []string) int {
	var allowDebug bool
	others, mistakes := parseArguments(args, []flag{boolFlag("allow-debug", &allowDebug)})
	if len(others) != 1 {
		mistakes = append(mistakes, fmt.Errorf("%d files are given instead of one", len(others)))
	}
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	accept, err := readPolicy(others[0])
	if err == nil {
		_, err = attestation.NewPolicy(accept, allowDebug)
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: %v\n", err)
		return exitUsage
	}
	var b strings.Builder
	for i, a := range accept {
		fmt.Fprintf(&b, "%d. %q %s\n", i+1, a.Name, c.window(a))
		if !pinsImage(a) {
			b.WriteString("   warning: lists none of PCR0, PCR1, PCR2 and PCR8: any image can match it\n")
		}
		for _, demand := range demands(a) {
			b.WriteString("   " + demand + "\n")
		}
	}
	if err := c.write("", []byte(b.String())); err != nil {
		fmt.Fprintf(c.stderr, "attest: write the result: %v\n", err)
		return exitNotDone
	}
	return exitVerified
}

// window says when an entry holds, and whether it does now.
func (c command) window(a attestation.Accept) string {
	now := c.now()
	switch {
	case now.Before(a.NotBefore):
		return "is expected only from " + a.NotBefore.Format(time.RFC3339)
	case !a.NotAfter.IsZero() && now.After(a.NotAfter):
		return "was expected until " + a.NotAfter.Format(time.RFC3339)
	case !a.NotAfter.IsZero():
		return "is expected until " + a.NotAfter.Format(time.RFC3339)
	}
	return "is expected"
}

func demands(a attestation.Accept) []string {
	var list []string
	for _, i := range slices.Sorted(maps.Keys(a.PCRs)) {
		list = append(list, fmt.Sprintf("PCR%-2d   %x", i, a.PCRs[i]))
	}
	if len(a.Modules) > 0 {
		list = append(list, "module  one of "+strings.Join(a.Modules, ", "))
	}
	if a.MaxAge > 0 {
		list = append(list, "age     at most "+a.MaxAge.String())
	}
	if a.App != (attestation.Digest{}) {
		list = append(list, fmt.Sprintf("app     %x", a.App))
	}
	if a.Config != (attestation.Digest{}) {
		list = append(list, fmt.Sprintf("config  %x", a.Config))
	}
	return list
}
