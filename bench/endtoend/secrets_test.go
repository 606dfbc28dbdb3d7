package endtoend_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/bench/servers"
	"github.com/corridor-enclave/corridor/enclave/kms/kmstest"
)

const (
	appAPI  = "127.0.0.1:8080" // in the enclave's own namespace
	nsmSeed = "secrets"
)

// newKeyService starts a KMS that the enclave calls by the host's loopback, and that
// accepts its image. It returns the settings that lead there.
func newKeyService(t *testing.T, dir string) (*kmstest.Service, []string) {
	t.Helper()
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: nsmSeed})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := attestation.NewPolicy([]attestation.Accept{{PCRs: map[int][]byte{0: module.PCRs()[0]}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	service := kmstest.New(t, module.RootPEM(), policy)
	certificate, key, err := servers.SelfSigned(hostName)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(service)
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	front.StartTLS()
	t.Cleanup(front.Close)
	_, port, err := net.SplitHostPort(front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	at := hostName + ":" + port
	return service, []string{"--kms-region", "r", "--kms-endpoint", "https://" + at, "--kms-ca", ca, "--egress-allow", at, "--nsm-seed", nsmSeed}
}

// TestIntegrationSecrets: without a link, an enclave waits for its app's
// configuration, gets the credentials of the role from the host, and its secret from
// KMS by a call, for which it serves nobody a way out.
func TestIntegrationSecrets(t *testing.T) {
	requireNamespaces(t)
	dir := shortTempDir(t)
	service, settings := newKeyService(t, dir)
	metadata := httptest.NewServer(service.Metadata)
	t.Cleanup(metadata.Close)
	control := "unix:" + filepath.Join(dir, "control.sock")
	host := launch(t, "host", "--vsock", "dir:"+dir, "--control", control, "--host-loopback", "on",
		"--credentials-port", "1028", "--metadata-service", metadata.URL, "--publish", "127.0.0.1:0=stream:7001@16")
	address := waitMessage(t, host, "published").Text("addr")
	secret := base64.StdEncoding.EncodeToString(service.Encrypt("correct horse", nil))
	enclave := launch(t, "enclave-sim", append(settings, "--isolate", "--link", "off", "--vsock", "dir:"+dir, "--fqdn", fqdn,
		"--startup-port", "1027", "--app-api", "tcp:"+appAPI, "--stream", "7001="+appAPI, "--secret", "db="+secret)...)
	file := filepath.Join(dir, "app.toml")
	content := []byte("color = \"blue\"\n")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(patient(t), filepath.Join(bin, "host"), "ctl", "--control", control, "configure", "--wait", "16", file).Output()
	if want := fmt.Sprintf("%x\n", sha256.Sum256(content)); err != nil || string(out) != want {
		t.Fatalf("configure: %q, %v, want %q", out, err, want)
	}
	waitMessage(t, enclave, "running")
	for path, want := range map[string]string{"/v1/secrets/db": "correct horse", "/v1/config": string(content)} {
		if got := getPlain(patient(t), t, address, path); got != want {
			t.Errorf("the app gets %q from %s, want %q", got, path, want)
		}
	}
	if service.Asked() != 1 {
		t.Errorf("KMS was asked %d times", service.Asked())
	}
}

// getPlain asks once, without TLS.
func getPlain(ctx context.Context, t *testing.T, address, path string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
