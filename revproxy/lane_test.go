package revproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

// inLane puts a proxy and its lane behind a server.
func inLane(t *testing.T, p http.Handler, proxy *revproxy.Proxy, change func(*revproxy.LaneConfig)) (*httptest.Server, *revproxy.Lane) {
	t.Helper()
	s := httptest.NewUnstartedServer(p)
	c := laneConfig(s.Config)
	if change != nil {
		change(&c)
	}
	lane, err := proxy.NewLane(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = lane.Listen(s.Listener)
	s.Start()
	t.Cleanup(lane.Close)
	t.Cleanup(s.Close)
	return s, lane
}

func TestLaneRefuses(t *testing.T) {
	t.Parallel()
	if _, err := newProxy(t, "http://127.0.0.1:1", nil).NewLane(revproxy.LaneConfig{}); err == nil {
		t.Error("a lane without a server")
	}
}

// TestOtherWays runs the tests of this folder once more, with the lane off, and with
// a goroutine for each of its connections.
func TestOtherWays(t *testing.T) {
	if os.Getenv(laneWay) != "" || testing.Short() {
		return // this is another run, or there is to be one only
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for way, skip := range map[string]string{laneOff: "Lane|H2spec|Fuzz", laneGoroutines: "H2spec|Fuzz|AllocatesNothing"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, "-test.skip", skip)
			cmd.Env = append(os.Environ(), laneWay+"="+way)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestLaneTakesWhatIsSimple(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	long := strings.Repeat("x", 100<<10)
	tests := []struct {
		name, request, answer string
		taken                 uint64
		want                  string // the answer's body
	}{
		{"another method", "BREW / HTTP/1.1\r\nHost: x\r\n\r\n", ok, 0, "ok"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", ok, 0, "ok"},
		{"chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", ok, 1, "ok"},
		{"chunks and a trailer", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", ok, 0, "ok"},
		{"long chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n19000\r\n" + long + "\r\n0\r\n\r\n", ok, 0, "ok"},
		{"chunks and a length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok, 0, "ok"},
		{"a long body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 102400\r\n\r\n" + long, ok, 0, "ok"},
		{"a long head", "GET / HTTP/1.1\r\nHost: x\r\nA: " + long[:20<<10] + "\r\n\r\n", ok, 0, "ok"},
		{"GET", get, ok, 1, "ok"},
		{"POST", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", ok, 1, "ok"},
		{"chunks in the answer", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1, "ok"},
		{"a long answer", get, "HTTP/1.1 200 OK\r\nContent-Length: 102400\r\n\r\n" + long, 1, long},
		{"a long answer in chunks", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n19000\r\n" + long + "\r\n0\r\n\r\n", 1, long},
		{"an answer in HTTP/1.0", get, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 1, "ok"},
		{"early hints", get, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok, 1, ""},
		{"an answer without a length", get, "HTTP/1.1 200 OK\r\n\r\nok", 1, "ok"},
		{"trailers", get, "HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n", 1, "ok"},
		{"an answer's long head", get, "HTTP/1.1 200 OK\r\nA: " + long[:30<<10] + "\r\nContent-Length: 2\r\n\r\nok", 1, "ok"},
		{"no HTTP", get, "what?\r\n\r\n", 1, "502 Bad Gateway: the app's answer is not valid HTTP\n"},
		{"nothing", get, "", 1, "502 Bad Gateway: the app closed the connection without an answer\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var seen atomic.Int64
			p := newProxy(t, rawApp(t, func(head string, c net.Conn) {
				seen.Add(1)
				_ = readBody(head, c)
				_, _ = io.WriteString(c, tt.answer)
			}), nil)
			front, lane := inLane(t, p, p, nil)
			res := speak(t, dial(t, front), tt.request)
			if got := body(t, res); got != tt.want {
				t.Errorf("%s, %.100q", res.Status, got)
			}
			if lane.Taken() != tt.taken || seen.Load() != 1 || p.Counts().Requests != 1 {
				t.Errorf("%d taken, %d seen by the app, %d counted; want %d, 1, 1", lane.Taken(), seen.Load(), p.Counts().Requests, tt.taken)
			}
		})
	}
}

// What arrives in pieces, or at once, are the same requests.
// A body in chunks arrives as it was, however it comes, and the connection goes on.
func TestLaneKeepsConnectionsWithChunks(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, string(content), r.TransferEncoding, r.Trailer, err)
	}))
	p := newProxy(t, app.URL, func(c *revproxy.Config) { c.MaxBodyBytes = 200 })
	front, lane := inLane(t, p, p, nil)
	const head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	const next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	requests := []struct{ request, want string }{
		{head + "3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n" + next, "abcd[chunked] map[] <nil>"},
		{"", "[] map[] <nil>"}, // it came with the one before
		{head + "0\r\n\r\n", "[chunked] map[] <nil>"},
		{head + "64\r\n" + strings.Repeat("x", 100) + "\r\n0\r\n\r\n", strings.Repeat("x", 100) + "[chunked] map[] <nil>"},
	}
	for _, step := range []int{1, 7, 1000} {
		c := dial(t, front)
		answers := bufio.NewReader(c)
		for _, r := range requests {
			for rest := r.request; rest != ""; {
				n := min(step, len(rest))
				if _, err := io.WriteString(c, rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			res, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := body(t, res); got != r.want || res.Close {
				t.Errorf("%s, %q; want %q", res.Status, got, r.want)
			}
		}
	}
	if n := lane.Taken(); n != 12 {
		t.Errorf("%d of 12 taken", n)
	}
	if res := speak(t, dial(t, front), head+"c9\r\n"+strings.Repeat("x", 201)+"\r\n0\r\n\r\n"); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %s", res.Status)
	}
}

func TestLaneReadsRequestsAsTheyCome(t *testing.T) {
	t.Parallel()
	p := newProxy(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s.", r.URL.Path, content)
	})).URL, nil)
	front, lane := inLane(t, p, p, nil)
	const three = "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n" +
		"POST /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nde"
	for _, size := range []int{1, 7, len(three)} {
		c := dial(t, front)
		for rest := three; rest != ""; {
			piece := rest[:min(size, len(rest))]
			if _, err := io.WriteString(c, piece); err != nil {
				t.Fatal(err)
			}
			rest = rest[len(piece):]
		}
		r := bufio.NewReader(c)
		got := ""
		for range 3 {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			got += body(t, res)
		}
		if _, err := r.ReadByte(); got != "/1 abc./2 ./3 de." || err != io.EOF {
			t.Errorf("by %d: %q, then %v", size, got, err)
		}
	}
	if lane.Taken() != 9 {
		t.Errorf("%d taken", lane.Taken())
	}
}

// Failures that the lane answers itself leave the connection as the ordinary way does.
func TestLaneAnswersFailures(t *testing.T) {
	t.Parallel()
	p := newProxy(t, "http://127.0.0.1:1", nil)
	front, lane := inLane(t, p, p, nil)
	c := dial(t, front)
	r := bufio.NewReader(c)
	for _, method := range []string{"GET", "HEAD", "POST"} {
		if _, err := io.WriteString(c, method+" / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if body(t, res); res.StatusCode != 502 || res.Close || res.Header.Get("Proxy-Status") != "corridor; error=connection_refused" ||
			len(res.Header.Get("X-Request-Id")) != 26 || res.Header.Get("Date") == "" {
			t.Errorf("%s: %s, %v", method, res.Status, res.Header)
		}
	}
	if n := p.Counts(); n.AppFailures != 3 || lane.Taken() != 3 {
		t.Errorf("%+v, %d taken", n, lane.Taken())
	}
}

// A client that goes away while the app is silent takes its request along.
func TestLaneNoticesThatTheClientGoes(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{"before the answer": "", "within the answer": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, aborted := make(chan struct{}), make(chan error, 1)
			p := newProxy(t, rawApp(t, func(_ string, c net.Conn) {
				_, _ = io.WriteString(c, begin)
				close(asked)
				_, err := c.Read(make([]byte, 1))
				aborted <- err
			}), nil)
			front, _ := inLane(t, p, p, nil)
			c := dial(t, front)
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-asked
			c.Close()
			if err := <-aborted; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the app's connection ended with %v", err)
			}
		})
	}
}

// A client that sends its next request while it waits for an answer loses neither.
func TestLaneKeepsWhatComesDuringAnAnswer(t *testing.T) {
	t.Parallel()
	slow := make(chan struct{})
	p := newProxy(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-slow
		}
		_, _ = io.WriteString(w, r.URL.Path)
	})).URL, nil)
	front, lane := inLane(t, p, p, nil)
	c := dial(t, front)
	r := bufio.NewReader(c)
	for i, target := range []string{"/slow", "/next"} {
		if i == 1 {
			// By now the lane watches, or will: what it reads then must not get lost.
			time.AfterFunc(50*time.Millisecond, func() { close(slow) })
		}
		if _, err := io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"/slow", "/next"} {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, res); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
	if lane.Taken() != 2 {
		t.Errorf("%d taken", lane.Taken())
	}
}

func TestLaneDrains(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}, 1), make(chan struct{})
	p := newProxy(t, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-answer
		}
	})).URL, nil)
	front, lane := inLane(t, p, p, nil)
	idle, busy := dial(t, front), dial(t, front)
	body(t, speak(t, idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if _, err := io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-arrived
	drained := make(chan error)
	go func() { drained <- lane.Shutdown(t.Context()) }()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection: %v", err)
	}
	if c, err := net.Dial("tcp", front.Listener.Addr().String()); err == nil {
		c.Close()
		t.Error("it still accepts")
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a request under way: %v", err)
	default:
	}
	close(answer)
	if res := speak(t, busy, ""); res.StatusCode != 200 || !res.Close {
		t.Errorf("the request under way: %s, close %t", res.Status, res.Close)
	}
	busy.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestLaneIsCut(t *testing.T) {
	t.Parallel()
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	t.Run("with one request", func(t *testing.T) { t.Parallel(); cutLane(t, get) })
	t.Run("with more requests than fit", func(t *testing.T) { t.Parallel(); cutLane(t, strings.Repeat(get, 2000)) })
}

func cutLane(t *testing.T, requests string) {
	c := newCrowd(t, nil)
	front, lane := inLane(t, c, c.Proxy, nil)
	client := dial(t, front)
	if _, err := io.WriteString(client, requests); err != nil {
		t.Fatal(err)
	}
	<-c.arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lane.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown says %v", err)
	}
	lane.Close()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("an answer after Close")
	}
}

// What Enter refuses, the server gets, and Leave is called once for each that it
// let in.
func TestLaneAsksAtTheGate(t *testing.T) {
	t.Parallel()
	p := newProxy(t, serve(t, http.NotFoundHandler()).URL, nil)
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, ok := revproxy.PathOf([]byte(r.RequestURI)); !ok || path != "/own page" || r.TLS == nil || r.TLS.Version != tls.VersionTLS13 {
			t.Errorf("%q, TLS %v", path, r.TLS)
		}
		_, _ = io.WriteString(w, "own")
	})
	var inside atomic.Int64
	front, lane := inLane(t, own, p, func(c *revproxy.LaneConfig) {
		c.TLS = selfSigned(t)
		c.Enter = func(target []byte) bool {
			in := string(target) == "/app"
			if in {
				inside.Add(1)
			}
			return in
		}
		c.Leave = func(time.Duration) { inside.Add(-1) }
	})
	raw := dial(t, front)
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if res := speak(t, c, "GET /app HTTP/1.1\r\nHost: x\r\n\r\n"); res.StatusCode != 404 || lane.Taken() != 1 {
		t.Errorf("%s, %d taken", res.Status, lane.Taken())
	}
	if res := speak(t, c, "GET /own%20page HTTP/1.1\r\nHost: x\r\n\r\n"); body(t, res) != "own" || lane.Taken() != 1 || inside.Load() != 0 {
		t.Errorf("%s, %d taken, %d inside", res.Status, lane.Taken(), inside.Load())
	}
	plain := dial(t, front)
	if res := speak(t, plain, "GET /app HTTP/1.1\r\nHost: x\r\n\r\n"); res.StatusCode != 400 {
		t.Errorf("without TLS: %s", res.Status)
	}
}

func TestLaneLeavesHTTP2ToTheServer(t *testing.T) {
	t.Parallel()
	p := newProxy(t, serve(t, http.NotFoundHandler()).URL, nil)
	front, lane := inLane(t, p, p, func(c *revproxy.LaneConfig) {
		c.TLS = selfSigned(t)
		c.TLS.NextProtos = []string{"h2", "http/1.1"}
		c.Server.TLSConfig = c.TLS
	})
	for _, h2 := range []bool{true, false} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+front.Listener.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 404 || (res.ProtoMajor == 2) != h2 || (lane.Taken() == 0) != h2 {
			t.Errorf("%s over %s, %d taken", res.Status, res.Proto, lane.Taken())
		}
	}
}

// selfSigned is a TLS configuration with a certificate of httptest's.
func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

// An exchange in the lane makes no garbage, and neither do client and app here.
func TestLaneAllocatesNothing(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello, world"
	app := rawApp(t, func(_ string, c net.Conn) {
		b := make([]byte, 4<<10)
		for {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
	p := newProxy(t, app, nil)
	front, _ := inLane(t, p, p, nil)
	c := dial(t, front)
	request, b := []byte("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\nX-Real-IP: z\r\n\r\n"), make([]byte, 4<<10)
	exchange := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	if n := testing.AllocsPerRun(500, exchange); n > 4 { // none, but under the race detector, where pools forget
		t.Errorf("%v allocations", n)
	}
}

// A connection on which nothing is asked holds no buffers.
func TestLaneHoldsLittleForIdleConnections(t *testing.T) {
	p := newProxy(t, serve(t, http.NotFoundHandler()).URL, nil)
	front, lane := inLane(t, p, p, nil)
	const many = 300
	before := memory()
	for i := range many {
		res := speak(t, dial(t, front), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if body(t, res); lane.Taken() != uint64(i)+1 {
			t.Fatal("not taken")
		}
	}
	// Both ends of each connection are here, and what the test keeps.
	if each := (memory() - before) / many; each > 24<<10 {
		t.Errorf("%d bytes for each", each)
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
