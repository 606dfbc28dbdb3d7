package simvsock

import (
	"fmt"
	"strings"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// Parse returns the transport that the value of --vsock names: "kernel",
// "dir:PATH" or "hybrid:PATH", for a process with the CID local. hybrid is for
// the parent alone, and its guest is DefaultGuest.
func Parse(value string, local vsockconn.CID) (vsockconn.Transport, error) {
	kind, path, _ := strings.Cut(value, ":")
	switch {
	case value == "kernel":
		return vsockconn.Kernel(vsockconn.KernelOptions{}), nil
	case kind == "dir" && path != "":
		return Dir(path, local)
	case kind == "hybrid" && path != "" && local == vsockconn.CIDParent:
		return Hybrid(path, DefaultGuest)
	case kind == "hybrid" && path != "":
		return nil, fmt.Errorf("simvsock: %q is for the host alone", value)
	}
	return nil, fmt.Errorf("simvsock: %q is not kernel, dir:PATH or hybrid:PATH", value)
}
