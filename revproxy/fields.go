package revproxy

import (
	"fmt"
	"strings"
)

// Fields are some of those by which the proxy tells the app where a request comes
// from. Each costs the app to read: all six are a sixth of what net/http needs for a
// small request.
type Fields uint8

// The fields that may be left out. Via is none of them: a gateway must send it (RFC
// 9110, section 7.6.3). X-Forwarded-Asserted goes with the client's address, in
// whichever field that is.
const (
	ForwardedFor   Fields = 1 << iota // X-Forwarded-For
	ForwardedHost                     // X-Forwarded-Host
	ForwardedProto                    // X-Forwarded-Proto
	Forwarded                         // Forwarded (RFC 7239)
	RealIP                            // X-Real-IP
	RequestID                         // X-Request-ID

	AllFields Fields = 1<<iota - 1
)

// ofClient are those that have the client's address.
const ofClient = ForwardedFor | Forwarded | RealIP

// FieldNames are the names that ParseFields takes, in the order of the constants.
const FieldNames = "x-forwarded-for,x-forwarded-host,x-forwarded-proto,forwarded,x-real-ip,x-request-id"

// ParseFields turns names with commas between, in any case, into Fields. "all" and
// "none" stand alone.
func ParseFields(names string) (Fields, error) {
	switch names {
	case "all":
		return AllFields, nil
	case "none":
		return 0, nil
	}
	var set Fields
	for name := range strings.SplitSeq(names, ",") {
		one, ok := fieldOf(strings.TrimSpace(name))
		if !ok {
			return 0, fmt.Errorf("%q is neither all nor none nor one or more of %s", name, FieldNames)
		}
		set |= one
	}
	return set, nil
}

func fieldOf(name string) (Fields, bool) {
	for i, known := range strings.Split(FieldNames, ",") {
		if strings.EqualFold(name, known) {
			return 1 << i, true
		}
	}
	return 0, false
}

func (f Fields) has(any Fields) bool { return f&any != 0 }
