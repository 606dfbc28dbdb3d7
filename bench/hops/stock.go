package hops

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/servers"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/tap"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// stock starts an unmodified gvproxy and gvforwarder around the namespace.
func (s *Setup) stock(port string) error {
	if err := s.inside(); err != nil {
		return err
	}
	client, err := s.gvproxy()
	if err != nil {
		return err
	}
	if err := s.gvforwarder(); err != nil {
		return err
	}
	return s.exposeByGvproxy(client, port)
}

// enclaveWithGvproxy is our enclave with an unmodified gvproxy as its host.
func (s *Setup) enclaveWithGvproxy() error {
	if err := s.inside(); err != nil {
		return err
	}
	client, err := s.gvproxy()
	if err != nil {
		return err
	}
	if err := s.enclave(); err != nil {
		return err
	}
	return s.exposeByGvproxy(client, appPort)
}

// hostWithGvforwarder is our host with an unmodified gvforwarder as its enclave.
func (s *Setup) hostWithGvforwarder() error {
	if err := s.inside(); err != nil {
		return err
	}
	if err := s.host(appPort); err != nil {
		return err
	}
	return s.gvforwarder()
}

// linkSocket is where the enclave finds the host's port for links.
func (s *Setup) linkSocket() string {
	return filepath.Join(s.running.dir, fmt.Sprintf("%d_%d.sock", vsockconn.CIDParent, tapstack.LinkPort))
}

// gvproxy starts an unmodified gvproxy, and returns a client of its API.
func (s *Setup) gvproxy() (*http.Client, error) {
	gvproxy, err := s.tools.Built(s.ctx, binaries.Gvproxy)
	if err != nil {
		return nil, err
	}
	ssh, err := freeAddress() // it insists on forwarding a port for it
	if err != nil {
		return nil, err
	}
	_, sshPort, err := net.SplitHostPort(ssh)
	if err != nil {
		return nil, err
	}
	socket := s.linkSocket()
	if _, err := s.start(program{name: "gvproxy", role: report.Subject, path: gvproxy, args: []string{
		"-listen", "unix://" + socket, "-mtu", strconv.Itoa(tapstack.DefaultMTU), "-ssh-port", sshPort,
	}}); err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: startTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	return client, s.until(func() error { return ask(s.ctx, client, &Running{URL: "http://gvproxy/services/forwarder/all"}) })
}

// gvforwarder starts an unmodified gvforwarder inside. Its device is configured as ours
// is, since it would need a DHCP client.
func (s *Setup) gvforwarder() error {
	gvforwarder, err := s.tools.Built(s.ctx, binaries.Gvforwarder)
	if err != nil {
		return err
	}
	if err := s.until(func() error {
		_, err := os.Stat(s.linkSocket())
		return err
	}); err != nil {
		return err
	}
	if _, err := s.start(program{name: "gvforwarder", role: report.Subject, path: gvforwarder, inside: true, args: []string{
		"-preexisting", "-iface", tapName, "-url", "unix://" + s.linkSocket(),
	}}); err != nil {
		return err
	}
	settings := tap.Settings{Name: tapName, MAC: tapstack.EnclaveMAC()}
	return s.until(func() error {
		return s.running.namespace.Do(func() error { return tap.Configure(settings) })
	})
}

// exposeByGvproxy publishes the app's port and that of bulk.
func (s *Setup) exposeByGvproxy(client *http.Client, port string) error {
	addr, err := expose(s.ctx, client, port)
	if err != nil {
		return err
	}
	s.running.URL = scheme(port) + "://" + addr + smallAnswer
	s.running.Bulk, err = expose(s.ctx, client, bulkPort)
	return err
}

// stockWay has gvproxy's road end at a TLS server with the standard library's proxy.
func (s *Setup) stockWay() error {
	if err := s.stock(frontPort); err != nil {
		return err
	}
	cert, err := s.certificate()
	if err != nil {
		return err
	}
	_, err = s.bench("proxy", report.Subject, true, "", "serve", "--kind", string(servers.Default),
		"--listen", "tcp:0.0.0.0:"+frontPort, "--to", "127.0.0.1:"+appPort, "--cert", cert)
	return err
}

// expose has gvproxy publish a port of the enclave, and returns where.
func expose(ctx context.Context, client *http.Client, port string) (string, error) {
	local, err := freeAddress() // it does not say which port it chose for 0
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]string{"local": local, "remote": net.JoinHostPort(tapstack.EnclaveAddr().String(), port)})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gvproxy/services/forwarder/expose", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status says enough without it
		return "", fmt.Errorf("gvproxy: expose %s: %s: %s", local, resp.Status, text)
	}
	return local, nil
}

// until repeats try until it succeeds, or a process ended, or it takes too long.
func (s *Setup) until(try func() error) error {
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if why := s.running.Dead(); why != "" {
			return fmt.Errorf("%w: %s", err, why)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", startTimeout, err)
		case <-time.After(pollEvery):
		}
	}
}

// relays carries both ports by two processes each that only copy: one outside, one
// inside, a unix socket between them as in place of VSOCK.
func (s *Setup) relays() error {
	if err := s.inside(); err != nil {
		return err
	}
	pair := func(called, port string) (string, error) {
		socket := s.file(called + ".sock")
		kind := []string{"serve", "--kind", string(servers.Relay)}
		if _, err := s.bench(called+"-inside", report.Subject, true, "", append(kind, "--listen", "unix:"+socket, "--to", "127.0.0.1:"+port)...); err != nil {
			return "", err
		}
		return s.bench(called+"-outside", report.Subject, false, "", append(kind, "--to", socket)...)
	}
	addr, err := pair("requests", appPort)
	if err != nil {
		return err
	}
	s.running.URL = "http://" + addr + smallAnswer
	s.running.Bulk, err = pair("bulk", bulkPort)
	return err
}

// pasta carries both ports by passt's way into a namespace. Connections from one
// loopback to the other never become frames there: it splices them. It gives up the
// right to look into other processes before it opens the namespace, so that it needs
// a name for it in the file system; one that nobody else sees ends with it.
func (s *Setup) pasta() error {
	path, err := s.tools.Installed("pasta", "passt")
	if err != nil {
		return err
	}
	unshare, err := s.tools.Installed("unshare", "util-linux")
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &Missing{What: "pasta in a namespace that is already there", Remedy: "run as root"}
	}
	if err := s.inside(); err != nil {
		return err
	}
	var ports [2]string
	for i := range ports {
		addr, err := freeAddress()
		if err != nil {
			return err
		}
		if _, ports[i], err = net.SplitHostPort(addr); err != nil {
			return err
		}
	}
	s.running.URL = "http://127.0.0.1:" + ports[0] + smallAnswer
	s.running.Bulk = "127.0.0.1:" + ports[1]
	netns, err := s.write("netns", "")
	if err != nil {
		return err
	}
	_, err = s.start(program{name: "pasta", role: report.Subject, path: unshare, args: []string{
		"--mount", "/bin/sh", "-ec", `mount --bind "$1" "$2"; shift 2; exec "$@"`, "sh", s.running.namespace.Path(), netns, path,
		"--foreground", "--quiet", "--runas", "0:0", "--netns-only", "--no-netns-quit", "--config-net",
		"--tcp-ports", fmt.Sprintf("127.0.0.1/%s:%s,%s:%s", ports[0], appPort, ports[1], bulkPort),
		"--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none", "--netns", netns,
	}})
	s.running.Programs["pasta"] = path // which the shell becomes
	return err
}
