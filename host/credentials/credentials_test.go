package credentials_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/host/credentials"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	port     = 1028
	rolePath = "/latest/meta-data/iam/security-credentials/"
)

// A metadata service of ours answers as that of an instance with the role "app.role".
// It keeps what it was asked.
type metadata struct {
	mu    sync.Mutex
	asked []string
	held  chan struct{} // nil, or every question waits until it is closed
	came  chan struct{} // gets one for each question that waits
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.asked = append(m.asked, r.Method+" "+r.URL.Path)
	m.mu.Unlock()
	if m.held != nil {
		m.came <- struct{}{}
		<-m.held
	}
	strangers := len(r.Header["X-Forwarded-For"])+len(r.Header["Cookie"]) > 0 // the real one refuses the first
	token := r.Header.Get("X-Aws-Ec2-Metadata-Token") == "secret"
	switch {
	case strangers:
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "60":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		io.WriteString(w, "secret")
	case !token:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == rolePath:
		io.WriteString(w, "app.role")
	case r.URL.Path == rolePath+"app.role":
		io.WriteString(w, `{"Code":"Success","AccessKeyId":"AKIA","SecretAccessKey":"key","Token":"session","Expiration":"2099-01-01T00:00:00Z"}`)
	case r.URL.Path == rolePath+"large":
		io.WriteString(w, strings.Repeat("x", 64<<10+1))
	case r.URL.Path == rolePath+"elsewhere":
		http.Redirect(w, r, "/latest/user-data", http.StatusFound)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// A parent answers enclaves in a folder of sockets.
type parent struct {
	*credentials.Server
	dir  string
	stop func()
}

func start(t *testing.T, service string) *parent {
	t.Helper()
	dir, err := os.MkdirTemp("", "imds-") // short: it becomes the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	transport, err := simvsock.Dir(dir, vsockconn.CIDParent)
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	p := &parent{dir: dir, Server: credentials.New(credentials.Config{Listener: l, Service: service, Log: slog.New(slog.DiscardHandler)})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

func startMetadata(t *testing.T, m *metadata) *httptest.Server {
	t.Helper()
	service := httptest.NewServer(m)
	t.Cleanup(service.Close)
	return service
}

// dial connects an enclave.
func (p *parent) dial(t *testing.T, cid vsockconn.CID) net.Conn {
	t.Helper()
	transport, err := simvsock.Dir(p.dir, cid)
	if err != nil {
		t.Fatal(err)
	}
	c, err := transport.Dial(t.Context(), vsockconn.Addr{CID: vsockconn.CIDParent, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends a request as it is, and returns the status and the body.
func say(t *testing.T, c net.Conn, request string) (int, string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: strings.Fields(request)[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

const token = "X-Aws-Ec2-Metadata-Token: secret\r\n"

func get(path, fields string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n"
}

// TestNothingElse: what is not about the role's credentials does not even reach the
// metadata service.
func TestNothingElse(t *testing.T) {
	t.Parallel()
	m := &metadata{}
	p := start(t, startMetadata(t, m).URL)
	for _, request := range []string{
		get("/", token), get("/latest/user-data", token), get("/latest/meta-data/", token),
		get("/latest/meta-data/iam/info", token), get("/latest/meta-data/iam/security-credentials", token),
		get("/latest/dynamic/instance-identity/document", token), get("/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance", token),
		get("/2021-07-15/meta-data/iam/security-credentials/", token), get("/latest/api/token", token),
		get(rolePath+"..", token), get(rolePath+"../../user-data", token), get(rolePath+"a/b", token), get(rolePath+"%2e%2e", token),
		get(rolePath+"..%2f..%2fuser-data", token), get(rolePath+"a%2Fb", token), get(rolePath+"a%20b", token), get(rolePath+"a%0d%0ab", token),
		get(rolePath+strings.Repeat("a", 65), token), get(rolePath+"app.role?x=1", token), get(rolePath+"app.role?", token), get("/"+rolePath, token),
		get(rolePath, ""), get(rolePath, "X-Aws-Ec2-Metadata-Token:\r\n"), get(rolePath, token+token), // version 1, and what is no version
		get(rolePath, "X-Aws-Ec2-Metadata-Token: "+strings.Repeat("x", 1025)+"\r\n"),
		get(rolePath, token+"Content-Length: 1\r\n") + "x",
		strings.Replace(get(rolePath, token), "GET", "PUT", 1), strings.Replace(get(rolePath, token), "GET", "HEAD", 1),
		strings.Replace(get(rolePath, token), "GET", "DELETE", 1),
		"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if status, _ := say(t, p.dial(t, 16), request); status != http.StatusForbidden {
			t.Errorf("%.120q: %d, want 403", request, status)
		}
	}
	if status, _ := say(t, p.dial(t, vsockconn.CIDHost), get(rolePath, token)); status != http.StatusForbidden {
		t.Errorf("somebody on the parent: %d, want 403", status)
	}
	if c := p.Counts(); len(m.asked) != 0 || c.Passed+c.Failed+c.Crowded != 0 || c.Refused == 0 {
		t.Errorf("the metadata service was asked %q; %+v", m.asked, c)
	}
}

// TestAnswers: what the metadata service says is passed on, and nothing that could
// be anything.
func TestAnswers(t *testing.T) {
	t.Parallel()
	m := &metadata{}
	service := startMetadata(t, m)
	p := start(t, service.URL)
	for _, tt := range []struct {
		name, request string
		status        int
		says          string
	}{
		{"a wrong token", get(rolePath, "X-Aws-Ec2-Metadata-Token: wrong\r\n"), 401, ""},
		{"another role", get(rolePath+"other", token), 404, ""},
		{"an answer without end", get(rolePath+"large", token), 502, "does not answer"},
		{"a redirect", get(rolePath+"elsewhere", token), 302, ""},
		{"what the enclave adds is left out", get(rolePath, token+"X-Forwarded-For: 1.2.3.4\r\nCookie: a=b\r\n"), 200, "app.role"},
		{"in absolute form", get("http://169.254.169.254"+rolePath, token), 200, "app.role"},
	} {
		if status, body := say(t, p.dial(t, 16), tt.request); status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s: %d %q, want %d %q", tt.name, status, body, tt.status, tt.says)
		}
	}
	// The way of every SDK.
	_, got := say(t, p.dial(t, 16), "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\n\r\n")
	_, role := say(t, p.dial(t, 16), get(rolePath, "X-Aws-Ec2-Metadata-Token: "+got+"\r\n"))
	if status, text := say(t, p.dial(t, 16), get(rolePath+role, "X-Aws-Ec2-Metadata-Token: "+got+"\r\n")); status != http.StatusOK || !strings.Contains(text, "AKIA") {
		t.Errorf("the credentials: %d %q", status, text)
	}
	service.Close()
	if status, _ := say(t, p.dial(t, 16), get(rolePath, token)); status != http.StatusBadGateway {
		t.Errorf("without a service: %d, want 502", status)
	}
	if got, want := p.Counts(), (credentials.Counts{Passed: 8, Failed: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestCrowded: so many questions at a time, and so many connections, and no more.
func TestCrowded(t *testing.T) {
	t.Parallel()
	m := &metadata{held: make(chan struct{}), came: make(chan struct{})}
	p := start(t, startMetadata(t, m).URL)
	const questions, connections = 8, 64
	answers := make(chan int, questions)
	for range questions {
		c := p.dial(t, 16)
		go func() {
			status, _ := say(t, c, get(rolePath, token))
			answers <- status
		}()
	}
	for range questions {
		<-m.came
	}
	if status, _ := say(t, p.dial(t, 16), get(rolePath, token)); status != http.StatusServiceUnavailable {
		t.Errorf("one more question: %d, want 503", status)
	}
	silent := make([]net.Conn, 0, connections)
	for range connections {
		silent = append(silent, p.dial(t, 17))
	}
	// At least the last of those cannot have had a place.
	if n, err := silent[connections-1].Read(make([]byte, 1)); err == nil {
		t.Errorf("one connection more: %d bytes", n)
	}
	close(m.held)
	for range questions {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("a question that waited: %d", status)
		}
	}
	for _, c := range silent {
		c.Close()
	}
	if c := p.Counts(); c.Crowded < 2 || c.Passed != questions {
		t.Errorf("%+v", c)
	}
}
