package foreign_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/binaries"
)

// Variables of the adapter: the suite's server, and our binary.
const (
	adapterServer  = "CORRIDOR_FOREIGN_SERVER"
	adapterEnclave = "CORRIDOR_FOREIGN_ENCLAVE"
)

// conformanceConfig is what the front offers: no HTTP/2 without TLS, no HTTP/3, no
// client certificates.
const conformanceConfig = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
  supportsH2c: false
  supportsTls: true
  supportsTlsClientCerts: false
  supportsHalfDuplexBidiOverHttp1: true
`

// TestConnectConformance runs the cases of Connect's suite, for Connect, gRPC and
// gRPC-Web, against its own reference server behind the front.
func TestConnectConformance(t *testing.T) {
	t.Parallel()
	suite, server := build(t, binaries.ConnectConformance), build(t, binaries.ReferenceServer)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(conformanceConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(t, []string{adapterServer + "=" + server, adapterEnclave + "=" + enclaveSim},
		suite, "--mode", "server", "--conf", config, "--", self)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	total := regexp.MustCompile(`(\d+) passed, (\d+) failed`).FindStringSubmatch(out)
	if total == nil {
		t.Fatalf("no summary in\n%s", out)
	}
	if passed, err := strconv.Atoi(total[1]); err != nil || passed < 500 {
		t.Errorf("only %s cases ran", total[1])
	}
}

// endWithParent stops the adapter when the suite is gone, which if it was killed
// could not say so.
func endWithParent(ctx context.Context, stop func()) {
	parent := os.Getppid()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for ctx.Err() == nil && os.Getppid() == parent {
		select {
		case <-look.C:
		case <-ctx.Done():
		}
	}
	stop()
}

// adapter is started by the suite in place of a server. It starts the suite's
// server without TLS, a front before it, and tells the suite where the front is.
// The messages are those of connectrpc.conformance.v1, each behind its length in
// four bytes. It ends by the suite's signal, and what it started ends with it.
func adapter(in io.Reader, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go endWithParent(ctx, stop)
	request, err := readMessage(in)
	if err != nil {
		return err
	}
	asked, err := fieldsOf(request)
	if err != nil {
		return err
	}
	version, useTLS := asked.number(2), asked.number(4) != 0
	plain := asked.without(4, 7) // use_tls and its credentials

	server := exec.CommandContext(ctx, os.Getenv(adapterServer))
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	server.Stderr = os.Stderr
	input, err := server.StdinPipe()
	if err != nil {
		return err
	}
	output, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	if err := writeMessage(input, plain); err != nil {
		return err
	}
	answer, err := readMessage(output)
	if err != nil {
		return err
	}
	at, err := fieldsOf(answer)
	if err != nil {
		return err
	}
	scheme, tls := "http", "off"
	if version == 2 {
		scheme = "h2c"
	}
	if useTLS {
		tls = "on"
	}
	app := scheme + "://" + net.JoinHostPort("127.0.0.1", strconv.FormatUint(at.number(2), 10))
	f, err := startFront(ctx, os.Getenv(adapterEnclave), "--tls", tls, "--app", app, "--forward-timeout", "30s")
	if err != nil {
		return err
	}
	if err := announce(out, f, useTLS); err != nil {
		return err
	}
	<-ctx.Done()
	f.process.Kill()
	_ = server.Wait() // it was killed
	return nil
}
