package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/bench/process"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

const (
	fqdn      = "vm.corridor.example"
	published = "127.0.0.1:8443" // by the link
	streamed  = "127.0.0.1:9443" // by a VSOCK stream for each client
	appInside = "127.0.0.1:8081" // on the enclave's own loopback
	tapName   = "tap0"

	hostControl = "unix:/run/host.sock"
)

// A corridor is both ends, as a user would start them.
type corridor struct {
	origin  *origin
	host    *process.Process
	heir    int // the process that goes on for it, or 0
	enclave *process.Process
	client  *http.Client
}

// newClient returns a client from outside that trusts any certificate: most steps
// are about roads, and one of its own is about the proof.
func newClient() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: fqdn, InsecureSkipVerify: true},
	}}
}

func (c *corridor) startHost(ctx context.Context) error {
	host, err := process.Start(process.Command{
		Path: "/bin/host", Echo: os.Stderr, Heirs: true,
		Args: []string{"--vsock", "kernel", "--publish", published + "=link:443", "--publish", streamed + "=stream:1443@1",
			"--control", hostControl},
	})
	if err != nil {
		return err
	}
	c.host = host
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = host.WaitMessage(wait, "published")
	return err
}

func (c *corridor) startEnclave(ctx context.Context) (values, error) {
	enclave, err := process.Start(process.Command{
		Name: "enclave", Path: "/init", Echo: os.Stderr,
		Args: []string{"alone", "/bin/enclave", "--vsock", "kernel", "--parent-cid", "1", "--link-port", strconv.Itoa(wirePort),
			"--tap-name", tapName, "--fqdn", fqdn, "--app", "http://" + appInside, "--app-cmd", "/init app " + appInside},
	})
	if err != nil {
		return nil, err
	}
	c.enclave = enclave
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	up, err := enclave.WaitMessage(wait, "link is up")
	return values{"link": up.Fields}, err
}

// get asks the front for a path, by the link.
func (c *corridor) get(ctx context.Context, path string) (int, string, error) {
	return c.getFrom(ctx, published, path)
}

// getFrom asks the front for a path, through one of the published ports.
func (c *corridor) getFrom(ctx context.Context, address, path string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	request.Host = fqdn
	response, err := c.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, string(body), err
}

// untilAnswered asks again until the app inside answers.
func (c *corridor) untilAnswered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for {
		status, body, err := c.get(ctx, "/hello")
		if err == nil && status == http.StatusOK && body == "hello world\n" {
			return nil
		}
		select {
		case <-pause.C:
			c.client.CloseIdleConnections()
		case <-ctx.Done():
			return fmt.Errorf("guest: no answer from the app, at last %d %q %v", status, body, err)
		}
	}
}

// streams asks by the stream road who the app thinks is asking, and downloads
// enough to fill every buffer on the way.
func (c *corridor) streams(ctx context.Context) (values, error) {
	status, body, err := c.getFrom(ctx, streamed, "/")
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("guest: by stream: %d %q %w", status, body, err)
	}
	var seen sampleapp.Seen
	if err := json.Unmarshal([]byte(body), &seen); err != nil {
		return nil, fmt.Errorf("guest: by stream: %w", err)
	}
	client := seen.Header.Get("X-Forwarded-For")
	if client != "127.0.0.1" {
		return nil, fmt.Errorf("guest: by stream: the app was told that %q asks", client)
	}
	const n = 1 << 20
	status, body, err = c.getFrom(ctx, streamed, "/bytes?n="+strconv.Itoa(n))
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("guest: download by stream: %d %w", status, err)
	}
	if sum := sha256.Sum256([]byte(body)); hex.EncodeToString(sum[:]) != sampleapp.PatternSHA256(n) {
		return nil, fmt.Errorf("guest: download by stream: %d bytes arrived changed", len(body))
	}
	return values{"client": client, "bytes": n}, nil
}

// fetch has the app inside download a path of the server outside.
func (c *corridor) fetch(ctx context.Context, path string, n int64) (values, error) {
	start := time.Now()
	status, body, err := c.get(ctx, "/fetch?url="+url.QueryEscape("http://"+originAddress+path))
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("guest: download %s: %d %s", path, status, body)
	}
	var got sampleapp.Fetched
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		return nil, fmt.Errorf("guest: download %s: %w", path, err)
	}
	if got.Bytes != n || got.SHA256 != sampleapp.PatternSHA256(n) {
		return nil, fmt.Errorf("guest: download %s: %d bytes with SHA-256 %s", path, got.Bytes, got.SHA256)
	}
	return values{"bytes": n, "sha256": got.SHA256, "seconds": time.Since(start).Seconds()}, nil
}

// apart checks that the enclave has a network of its own, with nothing in it but
// its loopback and the TAP device, and that the host's network has no such device.
func (c *corridor) apart() (values, error) {
	inside, err := interfaces(fmt.Sprintf("/proc/%d/net/dev", c.enclave.PID()))
	if err != nil {
		return nil, err
	}
	outside, err := interfaces("/proc/1/net/dev")
	if err != nil {
		return nil, err
	}
	if len(inside) != 2 || inside[tapName] == 0 {
		return nil, fmt.Errorf("guest: the enclave's interfaces are %v, want lo and a %s that was used", inside, tapName)
	}
	if _, ok := outside[tapName]; ok {
		return nil, fmt.Errorf("guest: %s is in the host's network", tapName)
	}
	return values{"inside": inside, "outside": outside}, nil
}

// interfaces returns each interface and the bytes that it has received
// (Documentation/filesystems/proc.rst, /proc/net/dev).
func interfaces(path string) (map[string]int64, error) {
	table, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("guest: list interfaces: %w", err)
	}
	list := map[string]int64{}
	for line := range strings.Lines(string(table)) {
		name, counters, ok := strings.Cut(line, ":")
		if !ok {
			continue // one of the two lines of heading
		}
		first, _, _ := strings.Cut(strings.TrimSpace(counters), " ")
		bytes, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("guest: counters of %s: %w", name, err)
		}
		list[strings.TrimSpace(name)] = bytes
	}
	return list, nil
}

// stop asks both ends to end, the enclave first.
func (c *corridor) stop() (values, error) {
	enclave := c.enclave.Stop(patience)
	host, err := c.stopHeir()
	if err == nil && (enclave != 0 || host != 0) {
		err = errors.New("guest: exit codes: enclave " + strconv.Itoa(enclave) + ", host " + strconv.Itoa(host))
	}
	return nil, err
}
