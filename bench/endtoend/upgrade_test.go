package endtoend_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/loadgen"
	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// A lineage is a host and those that go on for it: one log, and the process that
// serves now.
type lineage struct {
	*process.Process
	control string
	current int
}

// startLineage starts a host with a control socket. All of its processes have
// ended when the test has.
func (c *corridor) startLineage(args ...string) *lineage {
	c.t.Helper()
	p, err := process.Start(process.Command{
		Path: filepath.Join(bin, "host"), Heirs: true,
		Args: append([]string{"--vsock", "dir:" + c.dir, "--control", "unix:" + c.control()}, args...),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		p.Kill()
		if c.t.Failed() {
			c.t.Logf("%s", p.Tail(60))
		}
	})
	c.host = p
	for _, arg := range args {
		if arg == "--publish" {
			c.address = waitMessage(c.t, p, "published").Text("addr")
		}
	}
	return &lineage{p, c.control(), p.PID()}
}

// ctl runs a command of host ctl.
func (l *lineage) ctl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(patient(t), filepath.Join(bin, "host"), append([]string{"ctl", "--control", "unix:" + l.control}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("host ctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// upgrade has a new process take over.
func (l *lineage) upgrade(t *testing.T) {
	t.Helper()
	before := l.current
	if _, err := fmt.Sscanf(l.ctl(t, "upgrade"), "process %d has taken over", &l.current); err != nil || l.current == before {
		t.Fatalf("process %d after %d: %v", l.current, before, err)
	}
}

// stop asks the process that serves to end, and waits for all of them.
func (l *lineage) stop(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(l.current, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Done():
	case <-patient(t).Done():
		t.Error("not all processes have ended")
	}
}

// count is how often the log says so.
func (l *lineage) count(msg string) (n int) {
	for _, r := range l.Records() {
		if r.Message() == msg {
			n++
		}
	}
	return n
}

// await waits until the log has said so n times.
func (l *lineage) await(t *testing.T, msg string, n int) {
	t.Helper()
	if _, err := l.Wait(patient(t), func(r process.Record) bool {
		if r.Message() == msg {
			n--
		}
		return n == 0
	}); err != nil {
		t.Fatal(err)
	}
}

// visited runs bombardier with a connection for each request until the returned
// function is called, which compares what it asked for with what the app saw.
func (c *corridor) visited() (finish func()) {
	c.t.Helper()
	path, err := binaries.Build(c.t.Context(), c.t.TempDir(), binaries.Bombardier)
	if err != nil {
		c.t.Fatal(err)
	}
	before := c.hellos()
	c.client.CloseIdleConnections() // a new process need not wait for them
	enough := make(chan struct{})
	var asked int64
	var coming sync.WaitGroup
	coming.Go(func() {
		for {
			load := loadgen.Load{URL: "https://" + c.address + "/hello", Connections: 8, Requests: 1000, Insecure: true, Fresh: true}
			r, err := loadgen.Bombardier(c.t.Context(), path, load)
			if err == nil {
				err = r.Clean()
			}
			if err != nil {
				c.t.Error(err)
				return
			}
			asked += r.Requests
			select {
			case <-enough:
				return
			default:
			}
		}
	})
	return func() {
		c.t.Helper()
		close(enough)
		coming.Wait()
		arrived := c.hellos() - before
		c.t.Logf("%d connections", asked)
		if arrived != asked || asked == 0 {
			c.t.Errorf("the generator sent %d requests, the app saw %d", asked, arrived)
		}
		c.client.CloseIdleConnections()
	}
}

// visitsBy waits until that many more requests have come.
func (c *corridor) visitsBy(more int64) {
	c.t.Helper()
	for goal := c.hellos() + more; c.hellos() < goal && !c.t.Failed(); {
		c.client.CloseIdleConnections()
	}
	c.client.CloseIdleConnections()
}

func (c *corridor) startEnclave(args ...string) {
	c.t.Helper()
	c.enclave = launch(c.t, "enclave-sim", append([]string{
		"--isolate", "--vsock", "dir:" + c.dir, "--fqdn", fqdn, "--nsm-out", c.trust(), "--app", "http://" + appAddress,
		"--app-cmd", filepath.Join(bin, "bench") + " app --listen tcp:" + appAddress,
	}, args...)...)
	c.client = c.newClient()
}

// TestIntegrationUpgradeUnderLoad: whoever comes during three upgrades is served,
// once.
func TestIntegrationUpgradeUnderLoad(t *testing.T) {
	requireNamespaces(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	l := c.startLineage("--publish", "127.0.0.1:0=stream:1443@16")
	c.startEnclave("--link", "off")
	c.untilAnswered()
	finish := c.visited()
	for range 3 {
		c.visitsBy(500)
		l.upgrade(t)
	}
	c.visitsBy(500)
	finish()
	l.stop(t)
}

// TestIntegrationThousandChanges: none of them is seen by whoever comes meanwhile.
func TestIntegrationThousandChanges(t *testing.T) {
	requireNamespaces(t)
	c := &corridor{t: t, dir: shortTempDir(t)}
	l := c.startLineage("--publish", "127.0.0.1:0=stream:1443@16")
	c.startEnclave("--link", "off")
	c.untilAnswered()
	finish := c.visited()
	change := c.changer()
	const byCommand = 25
	for i := range (1000 - 4*byCommand) / 5 {
		change(`[{"op":"add","setting":"route","values":["` + c.address + `/` + fqdn + `@16"]},{"op":"set","setting":"idle-timeout","values":["2h"]}]`)
		change(fmt.Sprintf(`[{"op":"set","setting":"max-connections","values":["%d"]},{"op":"add","setting":"publish","values":["127.0.0.1:0=link:80"]}]`, 1000+i))
		change(`[{"op":"set","setting":"publish","values":["` + c.address + `=stream:1443@17,16"]}]`)
		change(`[{"op":"add","setting":"drain","values":["17"]},{"op":"set","setting":"stream-ready","values":["3"]}]`)
		change(`[{"op":"remove","setting":"route"},{"op":"remove","setting":"idle-timeout"},{"op":"remove","setting":"drain"},` +
			`{"op":"remove","setting":"stream-ready"},{"op":"set","setting":"publish","values":["` + c.address + `=stream:1443@16"]}]`)
	}
	for range byCommand {
		l.ctl(t, "add", "publish", "127.0.0.2:0=stream:1443@16")
		l.ctl(t, "set", "publish", c.address+"=stream:1443@16")
		l.ctl(t, "add", "egress-deny", "192.0.2.0/24")
		l.ctl(t, "remove", "egress-deny")
	}
	c.visitsBy(100)
	finish()
	if n := l.count("configuration changed"); n != 1000 {
		t.Errorf("%d changes", n)
	}
	l.stop(t)
}

// changer returns what makes one change of several steps.
func (c *corridor) changer() func(steps string) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.control())
	}}
	c.t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: patience}
	return func(steps string) {
		c.t.Helper()
		req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPatch, "http://host/v1/config", strings.NewReader(steps))
		if err != nil {
			c.t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			c.t.Fatal(err)
		}
		defer resp.Body.Close()
		var said bytes.Buffer
		_, _ = said.ReadFrom(resp.Body)
		var answer struct{ Changes []json.RawMessage }
		if err := json.Unmarshal(said.Bytes(), &answer); err != nil || resp.StatusCode != http.StatusOK || len(answer.Changes) == 0 {
			c.t.Fatalf("%s: %s, %s, %v", steps, resp.Status, &said, err)
		}
	}
}

// A gate is a server outside that sends half of an answer, and the rest when told.
type gate struct {
	port    string
	halfway chan struct{}
	goOn    chan struct{}
}

const gatedBytes = 4 << 20

func newGate(t *testing.T) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{halfway: make(chan struct{}, 8), goOn: make(chan struct{}, 8)}
	_, g.port, _ = net.SplitHostPort(l.Addr().String())
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(gatedBytes))
		all := sampleapp.Pattern(gatedBytes)
		_, _ = io.CopyN(w, all, gatedBytes/2)
		_ = http.NewResponseController(w).Flush()
		g.halfway <- struct{}{}
		select {
		case <-g.goOn:
			_, _ = io.Copy(w, all)
		case <-r.Context().Done():
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return g
}

// A download is a connection that the enclave has opened to the outside.
type download struct {
	conn net.Conn
	resp *http.Response
	got  int64
	err  error
	done chan struct{}
}

// download begins one by the link, and returns when it is halfway.
func (c *corridor) download(g *gate) *download {
	c.t.Helper()
	return c.downloadBy(g, c.dialInside("192.168.127.254:"+g.port))
}

// downloadByCall is the same by SOCKS, which is a call on a stream of its own.
func (c *corridor) downloadByCall(g *gate) *download {
	c.t.Helper()
	conn := c.dialInside("127.0.0.1:1080")
	var port uint16
	if _, err := fmt.Sscan(g.port, &port); err != nil {
		c.t.Fatal(err)
	}
	if code := socksOn(c.t, conn, hostName, port); code != 0 {
		c.t.Fatalf("SOCKS answers %d", code)
	}
	return c.downloadBy(g, conn)
}

// dialInside connects as a program inside of the enclave would.
func (c *corridor) dialInside(to string) net.Conn {
	c.t.Helper()
	inside, err := process.NamespaceOf(c.enclave.PID())
	if err != nil {
		c.t.Fatal(err)
	}
	defer inside.Close()
	var conn net.Conn
	if err := inside.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", to, patience)
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func (c *corridor) downloadBy(g *gate, conn net.Conn) *download {
	c.t.Helper()
	d := &download{conn: conn, done: make(chan struct{})}
	if err := d.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(d.conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		defer d.conn.Close() // or the host would wait for it
		if d.resp, d.err = http.ReadResponse(bufio.NewReader(d.conn), nil); d.err == nil {
			d.got, d.err = io.Copy(io.Discard, d.resp.Body)
		}
	}()
	c.t.Cleanup(func() {
		d.conn.Close()
		<-d.done
	})
	select {
	case <-g.halfway:
	case <-patient(c.t).Done():
		c.t.Fatal("the download did not begin")
	}
	return d
}

// whole says what is missing of a download that has ended.
func (d *download) whole() error {
	<-d.done
	if d.err != nil || d.got != gatedBytes {
		return fmt.Errorf("%d bytes of %d, %w", d.got, gatedBytes, d.err)
	}
	return nil
}
