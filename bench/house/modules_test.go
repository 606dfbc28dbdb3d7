package house_test

import (
	"testing"
)

// enclaveModules is everything that the production enclave links beside the
// standard library, and why. What is on this list is what somebody who audits an
// image has to trust: adding to it is a decision, never a side effect.
func enclaveModules() map[string]string {
	return map[string]string{
		module:                         "this repository",
		"github.com/aws/aws-sdk-go-v2": "requests to KMS are signed and tried again as AWS means it",
		"github.com/aws/aws-sdk-go-v2/internal/configsources": "required by service/kms",
		"github.com/aws/aws-sdk-go-v2/internal/endpoints/v2":  "required by service/kms",
		"github.com/aws/aws-sdk-go-v2/service/kms":            "KMS's requests and answers, so that an app's secrets can be kept from the parent",
		"github.com/aws/smithy-go":                            "what AWS's SDK is made of",
		"github.com/fxamacker/cbor/v2":                        "the module behind /dev/nsm speaks CBOR; strict decoding, bounded depth",
		"github.com/go-chi/chi/v5":                            "the routes of the front",
		"github.com/kballard/go-shellquote":                   "splits --app-cmd, so that no shell has to",
		"github.com/mdlayher/socket":                          "non-blocking sockets of any family in Go's poller; below vsock",
		"github.com/mdlayher/vsock":                           "AF_VSOCK as net.Conn",
		"github.com/pelletier/go-toml/v2":                     "the configuration file, with unknown keys refused",
		"github.com/vishvananda/netlink":                      "addresses, routes and neighbours of the TAP device",
		"github.com/vishvananda/netns":                        "required by netlink",
		"github.com/x448/float16":                             "required by cbor",
		"golang.org/x/net":                                    "HPACK, which package revproxy/h2 does not make up anew, and nothing else of HTTP/2; also required by socket",
		"golang.org/x/sync":                                   "error groups: who runs what, and how it ends",
		"golang.org/x/sys":                                    "system calls that the standard library lacks",
	}
}

// forbiddenInEnclave are packages that the production enclave must not link, even
// if their module is allowed.
func forbiddenInEnclave() map[string]string {
	return map[string]string{
		"gvisor.dev/gvisor":                      "a network stack for the host; inside, the kernel has one",
		"github.com/containers/gvisor-tap-vsock": "we speak its protocol, not its code",
		module + "/tapstack/netstack":            "the host's stack",
		module + "/tapstack/simvsock":            "a simulated VSOCK must not be reachable from a measured image",
		module + "/tapstack/tapstacktest":        "for tests",
		module + "/attestation/attestationtest":  "a simulated module signs anything",
		module + "/enclave/isolate":              "only a simulated enclave has to isolate itself",
		"github.com/sirupsen/logrus":             "logs are log/slog",
		"net/http/pprof":                         "memory of an enclave is nobody's to read",
		"expvar":                                 "registers itself on a mux that it does not own",
	}
}

func TestEnclaveLinksOnlyWhatWasDecided(t *testing.T) {
	t.Parallel()
	allowed := enclaveModules()
	linked := map[string]bool{}
	for _, p := range list(t, "-deps", "./enclave") {
		if p.Standard {
			continue
		}
		if p.Module == nil {
			t.Errorf("package %s belongs to no module", p.ImportPath)
			continue
		}
		if _, ok := allowed[p.Module.Path]; !ok && !linked[p.Module.Path] {
			t.Errorf("the enclave links %s (%s): decide about it, and write down the reason here", p.Module.Path, p.ImportPath)
		}
		linked[p.Module.Path] = true
	}
	for path := range allowed {
		if !linked[path] {
			t.Errorf("the enclave does not link %s any more: take it off the list", path)
		}
	}
}

func TestEnclaveLinksNothingForbidden(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "-deps", "./enclave") {
		for path, reason := range forbiddenInEnclave() {
			if below(p.ImportPath, path) {
				t.Errorf("the enclave links %s: %s", p.ImportPath, reason)
			}
		}
	}
}

// TestSimulatedEnclaveIsSimulated is the counterpart: if the tag stopped doing
// anything, the test above would still hold.
func TestSimulatedEnclaveIsSimulated(t *testing.T) {
	t.Parallel()
	linked := map[string]bool{}
	for _, p := range list(t, "-deps", "-tags", "sim", "./enclave") {
		linked[p.local()] = true
	}
	for _, room := range []string{"tapstack/simvsock", "attestation/attestationtest", "enclave/isolate"} {
		if !linked[room] {
			t.Errorf("enclave-sim does not link %s", room)
		}
	}
}
