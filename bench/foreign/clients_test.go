package foreign_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
)

// httpbin starts go-httpbin behind a front, and returns the front and what trusts it.
func httpbin(t *testing.T) (f *front, trust string) {
	t.Helper()
	port := freePort(t)
	startApp(t, port, build(t, binaries.HTTPBin), "-host", "127.0.0.1", "-port", port)
	f = serve(t, "--app", "http://127.0.0.1:"+port)
	return f, f.trusted(t)
}

// TestCurl asks an app that many know, by HTTP/1.1 and HTTP/2.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl := installed(t, "curl")
	f, trust := httpbin(t)
	upload := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(upload, []byte(strings.Repeat("corridor", 128<<10)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want []string // of what is printed: all have to be found
	}{
		"teapot":         {[]string{"-s", "-o", "/dev/null", "-w", "%{http_code}", "/status/418"}, []string{"418"}},
		"head":           {[]string{"-s", "-I", "/bytes/1000?seed=1"}, []string{"200", "ontent-", "1000"}},
		"fields":         {[]string{"-s", "-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Of-Mine: kept", "/headers"}, []string{`"X-Of-Mine"`, "kept", `"X-Forwarded-For"`, "127.0.0.1"}},
		"untouched gzip": {[]string{"-s", "--compressed", "/gzip"}, []string{`"gzipped": true`}},
		"encoding kept":  {[]string{"-s", "-D", "-", "-o", "/dev/null", "-H", "Accept-Encoding: gzip", "/gzip"}, []string{"ontent-", "ncoding: gzip"}},
		"redirects":      {[]string{"-s", "-L", "-w", "%{num_redirects}", "/redirect/3"}, []string{`"url"`, "3"}},
		"upload":         {[]string{"-s", "-T", upload, "-w", "%{size_upload}", "-o", "/dev/null", "/put"}, []string{"1048576"}},
		"expectation":    {[]string{"-s", "-H", "Expect: 100-continue", "-T", upload, "-v", "-o", "/dev/null", "/put"}, []string{" 100", " 200"}},
		"chunks":         {[]string{"-s", "-H", "Transfer-Encoding: chunked", "-d", "a=b", "/post"}, []string{`"a"`, `"b"`}},
		"drip":           {[]string{"-s", "-w", "%{size_download}", "-o", "/dev/null", "/drip?numbytes=100&duration=1s"}, []string{"100"}},
		"ranges":         {[]string{"-s", "-r", "10-19", "-w", "%{http_code} %{size_download}", "-o", "/dev/null", "/range/100"}, []string{"206 10"}},
		"trailers":       {[]string{"-s", "-D", "-", "-o", "/dev/null", "/trailers?x-end=now"}, []string{"railer: ", "nd: now"}},
	} {
		for _, version := range []string{"--http1.1", "--http2"} {
			t.Run(name+" "+version, func(t *testing.T) {
				t.Parallel()
				last := len(tc.args) - 1
				args := append([]string{version, "--cacert", trust, "--resolve", fqdn + ":" + f.port() + ":127.0.0.1"}, tc.args[:last]...)
				out, err := run(t, nil, curl, append(args, "https://"+fqdn+":"+f.port()+tc.args[last])...)
				for _, want := range tc.want {
					if !strings.Contains(out, want) {
						t.Errorf("no %q in\n%s\n%v", want, out, err)
					}
				}
				if strings.Contains(out, "6.6.6.6") {
					t.Error("the app believes what the client says of itself")
				}
			})
		}
	}
}

// TestNghttp multiplexes requests on one connection.
func TestNghttp(t *testing.T) {
	t.Parallel()
	nghttp := installed(t, "nghttp")
	f, _ := httpbin(t)
	base := "https://127.0.0.1:" + f.port()
	out, err := run(t, nil, nghttp, "-n", "-s", "-y", base+"/delay/1", base+"/bytes/100000", base+"/status/204", base+"/stream/5")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, path := range []string{`200 +\S+ /delay/1`, `200 +\S+ /bytes/100000`, `204 +\S+ /status/204`, `200 +\S+ /stream/5`} {
		if !regexp.MustCompile(path).MatchString(out) {
			t.Errorf("no answer %q in\n%s", path, out)
		}
	}
}

// TestNode lets Node's HTTP/1.1 and HTTP/2 clients upload and compare what comes back.
func TestNode(t *testing.T) {
	t.Parallel()
	node := installed(t, "node")
	f, trust := httpbin(t)
	out, err := run(t, []string{"NODE_EXTRA_CA_CERTS=" + trust}, node, filepath.Join("testdata", "client.js"), "https://"+fqdn+":"+f.port(), "127.0.0.1")
	if err != nil || strings.TrimSpace(out) != "http/1.1 ok\nhttp/2 ok\nwebsocket ok" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSSLScan looks for what TLS must not offer.
func TestSSLScan(t *testing.T) {
	t.Parallel()
	sslscan := installed(t, "sslscan")
	f := serve(t)
	out, err := run(t, nil, sslscan, "--no-colour", "--no-check-certificate", f.address)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`TLSv1\.2 +enabled`, `TLSv1\.3 +enabled`, `TLSv1\.1 +disabled`, `TLSv1\.0 +disabled`, `SSLv3 +disabled`, `SSLv2 +disabled`,
		`Secure session renegotiation|Session renegotiation not supported`, `Preferred TLSv1\.3`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, weak := range []string{`RC4`, `AES(?:128|256)-SHA(?:256|384)? `, // CBC
		`3DES`, `DES-CBC`, `\bNULL\b`, `EXP-`, `\bADH\b`, `MD5`, `vulnerable to heartbleed`} {
		if found := regexp.MustCompile(`(?m)^.*` + weak + `.*$`).FindString(out); found != "" && !strings.Contains(found, "not vulnerable") {
			t.Errorf("offered: %s", found)
		}
	}
}

// TestSlowHTTPTest holds connections open as an attacker would, and asks beside them
// whether anybody else is still served.
func TestSlowHTTPTest(t *testing.T) {
	t.Parallel()
	slow := installed(t, "slowhttptest")
	f, _ := httpbin(t)
	for name, args := range map[string][]string{
		"heads":   {"-H"},
		"bodies":  {"-B", "-s", "8192", "-t", "POST", "-x", "10"},
		"reading": {"-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, nil, slow, append(args, "-c", "200", "-r", "200", "-i", "2", "-l", "14", "-p", "5", "-u", "https://127.0.0.1:"+f.port()+"/anything")...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`).ReplaceAllString(out, "") // its colours
			states := regexp.MustCompile(`service available:\s+(YES|NO)`).FindAllStringSubmatch(out, -1)
			if len(states) == 0 {
				t.Fatalf("it does not say whether the service is available:\n%s", out)
			}
			for _, s := range states {
				if s[1] != "YES" {
					t.Errorf("others were not served:\n%s", out)
					break
				}
			}
		})
	}
}
