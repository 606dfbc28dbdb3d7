package tapstack

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
)

// MaxLanes is the most streams that one link of ours has.
const MaxLanes = 8

// maxSaidLanes is the most that an end may say. Ours take what is beyond MaxLanes
// for MaxLanes.
const maxSaidLanes = 1<<16 - 1

// AgreedLanes is how many streams a link between ends that say this has, as far
// as numbers go.
func AgreedLanes(a, b Capabilities) int {
	return max(1, min(a.Lanes, b.Lanes, MaxLanes))
}

// linkName is how many bytes the name of a link has.
const linkName = 16

// NewLinkName returns a name for a link of several lanes.
func NewLinkName() string {
	var name [linkName]byte
	rand.Read(name[:]) // it never fails
	return hex.EncodeToString(name[:])
}

func parseLink(value string) (string, error) {
	name, err := hex.DecodeString(value)
	if err != nil || len(name) != linkName || value != strings.ToLower(value) {
		return "", fmt.Errorf("%.64q is not %d lower case hexadecimal digits", value, 2*linkName)
	}
	return value, nil
}

// lanesOnMany is how many lanes are worth their while on a machine of many CPUs.
const lanesOnMany = 4

// ParseLanes reads how many lanes one end takes: a number up to MaxLanes, or auto,
// which is one for each two CPUs, and at most 4.
func ParseLanes(value string) (int, error) {
	if value == "auto" {
		return max(1, min(lanesOnMany, runtime.GOMAXPROCS(0)/2)), nil
	}
	return parseWithin(value, 1, MaxLanes)
}
