package balance

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxAnswer bounds what is read of an enclave's answer to a check, in bytes.
const maxAnswer = 16 << 10

// AskHealth asks for /enclave/health on a connection to an enclave's front, within
// TLS or not, closes it, and returns nil if the enclave takes requests.
func AskHealth(ctx context.Context, conn net.Conn, secure bool) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if secure {
		// Who answers is not the question: clients find that out for themselves, and
		// this host could lead them anywhere anyway.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) // #nosec G402 -- see above
	}
	const request = "GET /enclave/health HTTP/1.1\r\nHost: enclave\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return fmt.Errorf("balance: ask for health: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), nil)
	if err != nil {
		return fmt.Errorf("balance: ask for health: %w", err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("balance: the enclave answers %d", answer.StatusCode)
	}
	return nil
}
