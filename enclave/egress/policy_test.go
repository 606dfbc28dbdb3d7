package egress_test

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/egress"
)

func TestParseRuleRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rule, says string }{
		{"", "none of"},
		{":443", "none of"},
		{"*.", "none of"},
		{"a.*.example.com", "none of"},
		{"*example.com", "none of"},
		{"exam ple.com", "none of"},
		{"https://example.com", "no port"},
		{"example.com/path", "none of"},
		{"1.2.3", "none of"},
		{"0x7f000001", "none of"},
		{"10.0.0.1/8", "did you mean 10.0.0.0/8"},
		{"10.0.0.0/33", "none of"},
		{"fe80::1%eth0", "none of"},
		{"[2001:db8::/32", "none of"},
		{"[2001:db8::/32]443", "none of"},
		{"example.com:", "no port"},
		{"example.com:0", "no port"},
		{"example.com:65536", "no port"},
		{"example.com:-1", "no port"},
		{"example.com:443-80", "wrong way round"},
		{"example.com:443-", "no port"},
	} {
		if r, err := egress.ParseRule(tt.rule); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v, %v; want %q", tt.rule, r, err, tt.says)
		}
	}
}

func rules(t testing.TB, texts ...string) egress.Policy {
	t.Helper()
	var p egress.Policy
	for _, text := range texts {
		r, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Allow = append(p.Allow, r)
	}
	return p
}

func TestRuleWritesItself(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"*":                      "*",
		"*:443":                  "*:443",
		"Example.COM.":           "example.com",
		"*.example.com:80-90":    "*.example.com:80-90",
		"10.0.0.0/8:5432":        "10.0.0.0/8:5432",
		"192.0.2.1":              "192.0.2.1/32",
		"2001:db8::/32":          "2001:db8::/32",
		"[2001:db8::1]:443":      "[2001:db8::1/128]:443",
		"[::ffff:192.0.2.1]:443": "192.0.2.1/32:443",
	} {
		if got := rules(t, text).Allow[0].String(); got != want {
			t.Errorf("%q is written %q, want %q", text, got, want)
		}
	}
}

// TestDestinationsThatLieAreRefused: no resolver may see another destination than
// the policy saw.
func TestDestinationsThatLieAreRefused(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		"", ".", "..", "a..b", ".a", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "1.2.3.4.5", "a.0x", "a.1",
		"127.0.0.1\x00.example.com", "a\nb", "a b", "a/b", "a@b", "a:80", "[::1]", "ex\xc3\xa4mple.com", "fe80::1%eth0",
		strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com", "a%41.com", "a\\b", "a#b", "*",
	} {
		if d, err := egress.ParseDestination(host, 443); err == nil {
			t.Errorf("%q is taken for %s", host, d)
		}
	}
	if _, err := egress.ParseDestination("example.com", 0); err == nil {
		t.Error("port 0 is taken")
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		allow         []string
		pass, refused []string
	}{
		{
			name:    "nothing",
			refused: []string{"example.com:443", "198.41.0.4:443", "[2606:4700::1]:443", "127.0.0.1:80"},
		},
		{
			name: "everything is not what is the enclave's or the host's own", allow: []string{"*"},
			pass: []string{"example.com:443", "a.b.example.com:1", "198.41.0.4:443", "[2606:4700::1]:443", "localhost.example.com:1", "xn--exmple-cua.com:443"},
			refused: []string{
				"localhost:80", "LOCALHOST.:80", "app.localhost:80", "127.0.0.1:8080", "127.255.255.255:1", "0.0.0.0:80", "0.1.2.3:80", "[::]:80", "[::1]:80",
				"[::ffff:127.0.0.1]:80", "[::ffff:169.254.169.254]:80", "169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80",
				"224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1", "240.0.0.1:1",
				"10.0.0.1:443", "192.168.127.1:53", "172.16.0.1:1", "100.64.0.1:1", "198.18.0.1:1", "[fd00::1]:443",
				"[64:ff9b::7f00:1]:80", "[2002:7f00:1::]:80", "[2001::1]:80", "[::7f00:1]:80", "[100::1]:80", "[fec0::1]:1",
			},
		},
		{
			name: "what is named, on its ports", allow: []string{"example.com:443", "*.example.org:8000-8999", "10.0.0.0/8:5432"},
			pass: []string{"example.com:443", "EXAMPLE.com.:443", "a.example.org:8000", "a.b.example.org:8999", "10.1.2.3:5432", "[::ffff:10.1.2.3]:5432"},
			refused: []string{
				"example.com:80", "a.example.com:443", "example.com.evil.org:443", "notexample.com:443", "example.org:8000", "a.example.org:9000",
				"xexample.org:8000", "10.1.2.3:443", "11.0.0.1:5432", "198.41.0.4:443",
			},
		},
		{
			name: "some things no rule allows", allow: []string{"127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/0", "::/0", "localhost"},
			pass:    []string{"10.0.0.1:1", "198.41.0.4:1", "[fd00::1]:1", "[64:ff9b::7f00:1]:80"},
			refused: []string{"127.0.0.1:80", "169.254.169.254:80", "localhost:80", "[::1]:1", "[fe80::1]:1", "[fd00:ec2::254]:80", "example.com:443"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := rules(t, tt.allow...)
			for _, to := range tt.pass {
				if why := p.Refuses(destination(t, to)); why != "" {
					t.Errorf("%s is refused: %s", to, why)
				}
			}
			for _, to := range tt.refused {
				if why := p.Refuses(destination(t, to)); why == "" {
					t.Errorf("%s may be reached", to)
				}
			}
		})
	}
}

func destination(t *testing.T, text string) egress.Destination {
	t.Helper()
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	d, err := egress.ParseDestination(host, uint16(n))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// FuzzRule: what is taken is written and read as the same.
func FuzzRule(f *testing.F) {
	for _, text := range []string{"*", "*:443", "*.example.com:80-90", "10.0.0.0/8:5432", "[2001:db8::/32]:443", "2001:db8::1", "127.1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := egress.ParseRule(text)
		if err != nil {
			return
		}
		if again, err := egress.ParseRule(r.String()); err != nil || again != r {
			t.Fatalf("%q is %+v, written %q, read %+v, %v", text, r, r, again, err)
		}
	})
}
