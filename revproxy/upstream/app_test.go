package upstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/upstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a broken test waits for; no test measures it.
const patience = 10 * time.Second

// An app speaks bytes on a unix socket, where connections cost no ports.
type app struct {
	path  string
	conns atomic.Int64 // how many were opened
	wg    sync.WaitGroup
}

// newApp starts an app that gives each connection to act, and closes it behind it.
func newApp(t testing.TB, act func(c net.Conn, r *bufio.Reader)) *app {
	t.Helper()
	a := &app{path: filepath.Join(t.TempDir(), "app")}
	l, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	a.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a.conns.Add(1)
			a.wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				act(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); a.wg.Wait() })
	return a
}

func (a *app) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", a.path)
}

// transport makes the transport under test, and closes it before the app ends.
func (a *app) transport(t testing.TB, change func(*upstream.Config)) *upstream.Transport {
	t.Helper()
	cfg := upstream.Config{Dial: a.dial, MaxIdle: 8, HeaderTimeout: patience, IdleTimeout: time.Minute, ContinueTimeout: patience}
	if change != nil {
		change(&cfg)
	}
	tr := upstream.New(cfg)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// readRequest reads one request to its end, and returns its bytes.
func readRequest(r *bufio.Reader) (head, body string, err error) {
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), "", err
		}
	}
	head = b.String()
	req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), r)))
	if err != nil {
		return head, "", err
	}
	content, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	return head, string(content), err
}

// says answers every request on a connection with the same bytes.
func says(answer string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

func request(t testing.TB, method, body string) *http.Request {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://app/x", content)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// ask carries out one exchange and reads the answer to its end.
func ask(t testing.TB, tr http.RoundTripper, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(content)
}
