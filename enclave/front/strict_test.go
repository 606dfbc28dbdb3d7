package front_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/front"
)

// TestStrict: what can be understood in more than one way is refused on every way into
// the front, and never reaches the app.
func TestStrict(t *testing.T) {
	t.Parallel()
	app := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s reached the app", r.Method) })
	for name, cfg := range map[string]front.Config{"plain": {Proxy: app}, "TLS": {Proxy: app, Certificates: newCertificates(t)}} {
		at, _ := overTCP(t, cfg)
		for _, request := range []string{
			"GET / HTTP/1.1\nHost: x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		} {
			if status := statusOf(t, at, request); status != http.StatusBadRequest {
				t.Errorf("%s: %q is answered with %d", name, request, status)
			}
		}
	}
}

// statusOf sends bytes to a front and returns the answer's status.
func statusOf(t *testing.T, at, request string) int {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	if c, err = net.Dial("tcp", u.Host); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if u.Scheme == "https" {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the document is the trust
	}
	if _, err = io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
