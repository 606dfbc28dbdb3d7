package house_test

import (
	"slices"
	"strings"
	"testing"
)

// A rule forbids packages below from to import what is below to. Both are rooms
// of ours ("tapstack/tap", or "" for all of them) or paths of others.
type rule struct {
	from, to string
	except   []string // rooms below from that may
	tests    bool     // tests must not either
	reason   string
}

func rules() []rule {
	return []rule{
		{from: "enclave", to: "host", tests: true, reason: "different trust, different images"},
		{from: "host", to: "enclave", tests: true, reason: "different trust, different images"},
		{from: "revproxy", to: "tapstack", tests: true, reason: "they meet in enclave and host, through net and net/http"},
		{from: "revproxy", to: "attestation", tests: true, reason: "a proxy decides no trust"},
		{from: "attestation", to: "tapstack", tests: true, reason: "who verifies needs no network of ours"},
		{from: "attestation", to: "revproxy", tests: true, reason: "who verifies needs no proxy"},
		{from: "tapstack", to: "attestation", tests: true, reason: "the link is trusted with nothing"},
		{from: "tapstack", to: "revproxy", tests: true, reason: "the link knows no HTTP but its own opening"},
		{from: "host", to: "attestation", reason: "the host decides no trust and holds no keys"},

		{from: "", to: "bench", except: []string{"bench"}, tests: true, reason: "what measures must not be part of what is measured"},

		// One importer for each foreign module that has a room: an upgrade touches one folder.
		{from: "", to: "gvisor.dev/gvisor", except: []string{"tapstack/netstack"}, tests: true, reason: "gVisor's room is tapstack/netstack"},
		{from: "", to: "github.com/mdlayher/vsock", except: []string{"tapstack/vsockconn"}, tests: true, reason: "AF_VSOCK's room is tapstack/vsockconn"},
		{from: "", to: "github.com/pires/go-proxyproto", except: []string{"tapstack/stream"}, tests: true, reason: "a second opinion for the tests of tapstack/stream, which reads exactly the header, within a bound, and no version 1"},
		{from: "", to: "github.com/vishvananda/netlink", except: []string{"tapstack/tap"}, tests: true, reason: "netlink's room is tapstack/tap"},
		{from: "", to: "github.com/fxamacker/cbor/v2", except: []string{"attestation"}, tests: true, reason: "CBOR is spoken by the module and in its documents, nowhere else"},
		{from: "", to: "github.com/pelletier/go-toml/v2", except: []string{"tapstack/settings", "attestation"}, tests: true, reason: "TOML is read by tapstack/settings, and by the policy of attestation, which may not import it"},
		{from: "", to: "github.com/klauspost/compress", except: []string{"attestation/eif"}, tests: true, reason: "zstd is what some layers of container images are in, and the standard library has none"},
		{from: "", to: "github.com/kballard/go-shellquote", except: []string{"enclave/config"}, tests: true, reason: "a command line is parsed once, when the configuration is"},
		{from: "", to: "github.com/go-chi/chi/v5", except: []string{"enclave"}, tests: true, reason: "routes are the enclave's business; revproxy knows none"},
		{from: "", to: "github.com/aws/aws-sdk-go-v2", except: []string{"enclave/kms"}, tests: true, reason: "who wants something of AWS asks enclave/kms"},
		{from: "", to: "github.com/aws/smithy-go", except: []string{"enclave/kms"}, tests: true, reason: "what the AWS SDK is made of"},
		{from: "", to: "github.com/HdrHistogram/hdrhistogram-go", except: []string{"bench/openloop"}, tests: true, reason: "who measures latency asks bench/openloop"},
		{from: "", to: "github.com/miekg/dns", except: []string{"host"}, tests: true, reason: "names are resolved by the host, which is not trusted for them"},
		{from: "", to: "github.com/prometheus", reason: "pages are written by tapstack/exposition; Prometheus' own parser judges them in tests"},
	}
}

// breaks reports whether the rule forbids a package of ours, by its local path,
// to import something.
func (r rule) breaks(from, imported string) bool {
	if r.from != "" && !below(from, r.from) {
		return false
	}
	for _, room := range r.except {
		if below(from, room) {
			return false
		}
	}
	return below(local(imported), r.to)
}

func TestImportRules(t *testing.T) {
	t.Parallel()
	all := list(t, "./...")
	for _, tags := range []string{"", "sim"} {
		t.Run("tags "+tags, func(t *testing.T) {
			t.Parallel()
			for _, p := range list(t, "-tags", tags, "./...") {
				for _, r := range rules() {
					imports := p.Imports
					if r.tests {
						imports = slices.Concat(p.Imports, p.TestImports, p.XTestImports)
					}
					for _, imported := range imports {
						if r.breaks(p.local(), imported) {
							t.Errorf("%s imports %s: %s", p.local(), local(imported), r.reason)
						}
					}
				}
			}
		})
	}
	// A rule about a room that was renamed would hold for ever.
	for _, r := range rules() {
		for _, room := range append([]string{r.from, r.to}, r.except...) {
			if room == "" || strings.Contains(room, ".") {
				continue
			}
			if !slices.ContainsFunc(all, func(p listedPackage) bool { return below(p.local(), room) }) {
				t.Errorf("a rule names %s, which does not exist", room)
			}
		}
	}
}

// TestStandInsAreForTests: packages called ...test stand in for the world, and
// simvsock for VSOCK. Only tests import them, each other, bench, and files that
// only enclave-sim is built from; host may use simvsock, since it is not trusted.
func TestStandInsAreForTests(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		if below(p.local(), "bench") || strings.HasSuffix(p.local(), "test") {
			continue
		}
		for _, imported := range p.Imports {
			name := local(imported)
			if imported == name {
				continue // not ours
			}
			simulated := below(name, "tapstack/simvsock") && !below(p.local(), "host") && !below(p.local(), "tapstack/simvsock")
			if strings.HasSuffix(name, "test") || simulated {
				t.Errorf("%s imports %s without the tag sim", p.local(), name)
			}
		}
	}
}
