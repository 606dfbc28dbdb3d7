// Package route tells which enclaves a client is meant for, by the name that it
// asks for first: the SNI of a TLS ClientHello, or the Host of a plain HTTP
// request. It decrypts nothing, answers nothing and chooses no enclave; publish
// and balance do.
package route

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// firstGuest is the lowest CID that another party can have: 0 is the hypervisor.
	// CID 1 is loopback, where an enclave is tested without a hypervisor.
	firstGuest = 1
	// maxEnclaves is how many enclaves one port or name may have.
	maxEnclaves = 64
	// maxName is the longest name in the DNS, RFC 1035, section 2.3.4.
	maxName = 253
)

// A Route sends the clients of one name on one published port to enclaves.
type Route struct {
	Local    string // the published address, as publish.Spec has it
	Name     string // in lower case; "*.example.com" is every name below example.com
	Enclaves []vsockconn.CID
}

// Parse reads ADDR/NAME@CID[,CID]..., such as ":443/api.example.com@16,17".
func Parse(value string) (Route, error) {
	local, rest, ok := strings.Cut(value, "/")
	name, cids, named := strings.Cut(rest, "@")
	if !ok || !named {
		return Route{}, errors.New("want ADDR/NAME@CID[,CID]..., for example :443/api.example.com@16,17")
	}
	r := Route{Local: local, Name: strings.ToLower(name)}
	if err := checkName(r.Name); err != nil {
		return Route{}, err
	}
	var err error
	r.Enclaves, err = ParseCIDs(cids)
	return r, err
}

// String writes the Route as Parse reads it.
func (r Route) String() string { return r.Local + "/" + r.Name + "@" + FormatCIDs(r.Enclaves) }

// ParseCIDs reads the CIDs of enclaves, with commas or, where commas separate
// something else already, with plus signs between them.
func ParseCIDs(text string) ([]vsockconn.CID, error) {
	var cids []vsockconn.CID
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '+' }) {
		cid, err := ParseCID(part)
		if err != nil {
			return nil, err
		}
		if slices.Contains(cids, cid) {
			return nil, fmt.Errorf("CID %s is named twice", cid)
		}
		cids = append(cids, cid)
	}
	if len(cids) == 0 || len(cids) > maxEnclaves {
		return nil, fmt.Errorf("%q is not the CID of an enclave, nor up to %d of them with commas between", text, maxEnclaves)
	}
	return cids, nil
}

// ParseCID reads the CID of one enclave.
func ParseCID(text string) (vsockconn.CID, error) {
	cid, err := strconv.ParseUint(text, 10, 32)
	if err != nil || cid < firstGuest || vsockconn.CID(cid) == vsockconn.CIDAny {
		return 0, fmt.Errorf("%q is not the CID of an enclave: want %d to 4294967294", text, firstGuest)
	}
	return vsockconn.CID(cid), nil
}

// FormatCIDs writes CIDs as ParseCIDs reads them.
func FormatCIDs(cids []vsockconn.CID) string {
	texts := make([]string, len(cids))
	for i, cid := range cids {
		texts[i] = cid.String()
	}
	return strings.Join(texts, ",")
}

// checkName returns what is wrong with the name of a route.
func checkName(name string) error {
	rest := strings.TrimPrefix(name, "*.")
	if rest == "" || len(name) > maxName {
		return fmt.Errorf("%q is not a name", name)
	}
	for label := range strings.SplitSeq(rest, ".") {
		if !isLabel(label) {
			return fmt.Errorf("%q is not a name: want letters, digits, hyphens and dots, or *. and those (other scripts as xn--)", name)
		}
	}
	return nil
}

func isLabel(s string) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}

// A Table finds the enclaves of a name. The zero Table has none.
type Table struct {
	exact map[string][]vsockconn.CID
	below map[string][]vsockconn.CID // by "example.com" for "*.example.com"
}

// NewTable returns the Table of routes, which are all of one port. The error says
// which names occur twice.
func NewTable(routes []Route) (Table, error) {
	t := Table{exact: map[string][]vsockconn.CID{}, below: map[string][]vsockconn.CID{}}
	var errs []error
	for _, r := range routes {
		names, key := t.exact, r.Name
		if suffix, ok := strings.CutPrefix(r.Name, "*."); ok {
			names, key = t.below, suffix
		}
		if _, twice := names[key]; twice {
			errs = append(errs, fmt.Errorf("route: %s/%s has two routes", r.Local, r.Name))
		}
		names[key] = r.Enclaves
	}
	return t, errors.Join(errs...)
}

// Empty reports whether there are no routes: then no client need be asked for a
// name.
func (t Table) Empty() bool { return len(t.exact)+len(t.below) == 0 }

// Find returns the enclaves of a name, as Peek returns it: those of the name
// itself, or else of the longest pattern that it is below.
func (t Table) Find(name string) ([]vsockconn.CID, bool) {
	if cids, ok := t.exact[name]; ok {
		return cids, true
	}
	for {
		_, suffix, ok := strings.Cut(name, ".")
		if !ok {
			return nil, false
		}
		if cids, ok := t.below[suffix]; ok {
			return cids, true
		}
		name = suffix
	}
}
