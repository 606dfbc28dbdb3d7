package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// maxAnswer bounds what the demonstration reads of any answer.
const maxAnswer = 1 << 20

// newClient returns a client that trusts no name and no authority, but insists
// on the certificate that it saw first: what that one is worth is what
// `attest verify` finds out.
func (d *Demo) newClient(address string) *http.Client {
	var pinned [sha256.Size]byte
	return &http.Client{Timeout: startTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		TLSClientConfig: &tls.Config{
			ServerName:         fqdn,
			InsecureSkipVerify: true, // VerifyPeerCertificate pins instead
			VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
				sum := sha256.Sum256(raw[0])
				if pinned == [sha256.Size]byte{} {
					pinned = sum
				}
				if sum != pinned {
					return errors.New("the certificate changed")
				}
				return nil
			},
		},
	}}
}

func (d *Demo) get(ctx context.Context, path string) (*http.Response, []byte, error) {
	return get(ctx, d.client, path)
}

func get(ctx context.Context, client *http.Client, path string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+fqdn+path, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp, body, err
}

// untilHealthy asks until the enclave says that the app can be reached.
func (d *Demo) untilHealthy(ctx context.Context) error {
	var last error
	for {
		resp, body, err := d.get(ctx, "/hello")
		if err == nil && resp.StatusCode == http.StatusOK {
			return nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("%s: %s", resp.Status, body)
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C:
		case <-d.enclave.Done():
			timer.Stop()
			return fmt.Errorf("the enclave ended: %w\n%s", last, d.enclave.Tail(10))
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("no answer: %w\n%s%s", last, d.enclave.Tail(5), d.host.Tail(5))
		}
	}
}

// request sends one request on a connection of its own and tells its way.
func (d *Demo) request(ctx context.Context) error {
	d.client.CloseIdleConnections()
	var connected, shook, answered time.Duration
	var from string
	var state tls.ConnectionState
	began := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(i httptrace.GotConnInfo) { from = i.Conn.LocalAddr().String() },
		TLSHandshakeStart:    func() { connected = time.Since(began) },
		TLSHandshakeDone:     func(s tls.ConnectionState, _ error) { state, shook = s, time.Since(began) },
		GotFirstResponseByte: func() { answered = time.Since(began) },
	})
	resp, body, err := d.get(ctx, "/?who=visitor;from=outside")
	if err != nil {
		return err
	}
	var seen sampleapp.Seen
	if err := json.Unmarshal(body, &seen); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	d.say("A request: GET https://%s%s", fqdn, seen.URI)
	d.say("  client       %s dials %s: TCP to host took %s", from, d.address, connected.Round(time.Microsecond))
	d.say("  host         carries it into the enclave's link: a user-space TCP connection to 192.168.127.2:443")
	d.say("  VSOCK        Ethernet frames, many a write, each with its length in front (port 1024)")
	d.say("  enclave      tap0, kernel TCP, %s with %s for %q: %s since the start", tls.VersionName(state.Version),
		tls.CipherSuiteName(state.CipherSuite), state.ServerName, shook.Round(time.Microsecond))
	d.say("  proxy        to the app as %s, X-Forwarded-Proto %s", seen.Remote, seen.Header.Get("X-Forwarded-Proto"))
	d.say("  app          answered %d bytes, the first after %s\n", len(body), answered.Round(time.Microsecond))
	return nil
}

// byStream sends the same request by the other road.
func (d *Demo) byStream(ctx context.Context) error {
	client := d.newClient(d.stream)
	defer client.CloseIdleConnections()
	began := time.Now()
	resp, body, err := get(ctx, client, "/?who=visitor;from=outside")
	if err != nil {
		return err
	}
	took := time.Since(began)
	var seen sampleapp.Seen
	if err := json.Unmarshal(body, &seen); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	d.say("The stream road: the same request, to %s", d.stream)
	d.say("  host         relays to a VSOCK stream, with a PROXY protocol header in front; no TCP inside, no frames")
	d.say("  proxy        tells the app who asks: X-Forwarded-For %s", seen.Header.Get("X-Forwarded-For"))
	d.say("  app          answered %d bytes; all of it took %s\n", len(body), took.Round(time.Microsecond))
	return nil
}

// verify runs the command that any client would.
func (d *Demo) verify(ctx context.Context) error {
	root, policy := filepath.Join(d.trust(), "root.pem"), filepath.Join(d.trust(), "policy.toml")
	d.say("The proof: attest verify --root root.pem --policy policy.toml https://%s", d.address)
	cmd := exec.CommandContext(ctx, filepath.Join(d.Bin, "attest"), "verify", "--root", root, "--policy", policy, "https://"+d.address)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		d.say("  %s", strings.TrimRight(line, "\n"))
	}
	d.say("")
	return err
}

// egress has the app fetch something from a server outside.
func (d *Demo) egress(ctx context.Context) error {
	source := fmt.Sprintf("http://%s/bytes?n=%d", d.origin, egressBytes)
	resp, body, err := d.get(ctx, "/fetch?url="+url.QueryEscape(source))
	if err != nil {
		return err
	}
	var got sampleapp.Fetched
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	if got.SHA256 != sampleapp.PatternSHA256(egressBytes) {
		return fmt.Errorf("%d bytes arrived changed", got.Bytes)
	}
	d.say("Egress: the app inside asks a server outside for %s", source)
	d.say("  app          its only way out is tap0; the route leads to 192.168.127.1")
	d.say("  host         turns the flow into a connection of its own; %s is the host's loopback", hostAlias)
	d.say("  app          got %d bytes, SHA-256 %s…, as sent\n", got.Bytes, got.SHA256[:16])
	return nil
}
