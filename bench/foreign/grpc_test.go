package foreign_test

import (
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
)

// TestGRPCInterop runs gRPC's own interoperability cases between its client and its
// server, with the front's TLS and proxy between them.
func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	client, server := build(t, binaries.GRPCClient), build(t, binaries.GRPCServer)
	port := freePort(t)
	startApp(t, port, server, "--port", port)
	f := serve(t, "--app", "h2c://127.0.0.1:"+port)
	trust := "SSL_CERT_FILE=" + f.trusted(t)
	for _, name := range []string{
		"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
		"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
		"status_code_and_message", "special_status_message", "custom_metadata",
		"unimplemented_method", "unimplemented_service",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, []string{trust}, client, "--server_host", "127.0.0.1", "--server_port", f.port(),
				"--server_host_override", fqdn, "--use_tls", "--test_case", name)
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
