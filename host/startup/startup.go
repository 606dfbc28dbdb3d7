// Package startup gives an enclave the configuration of its app, for which it waits
// before it starts the app (enclave --startup-port). What a configuration says is
// between the app and whoever wrote it; that it arrived, the enclave's answer tells,
// and its documents prove.
package startup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// Port is the VSOCK port that enclaves usually wait on.
	Port = 1027
	// MaxSize is the size of a configuration, in bytes.
	MaxSize = 1 << 20
	// giveTimeout bounds it all, and is less than the API gives a request.
	giveTimeout = 8 * time.Second
)

var (
	// ErrSize reports a configuration that no enclave takes.
	ErrSize = fmt.Errorf("a configuration has 1 to %d bytes", MaxSize)
	// ErrAbsent reports that nobody waits there: not yet, not any more, or because
	// the enclave runs without --startup-port. Trying again may help.
	ErrAbsent = errors.New("no enclave waits for a configuration there")
	// ErrNotTaken reports an enclave that has not confirmed what it was given. It
	// may have it or not; its GET /enclave/config says which.
	ErrNotTaken = errors.New("the enclave has not confirmed the configuration")
)

// Give gives an enclave its configuration and returns when the enclave has answered
// with the SHA-256 of exactly that. Errors match ErrSize, ErrAbsent or ErrNotTaken.
func Give(ctx context.Context, t vsockconn.Transport, to vsockconn.Addr, content []byte) (digest [sha256.Size]byte, err error) {
	if len(content) == 0 || len(content) > MaxSize {
		return digest, fmt.Errorf("startup: %w, not %d", ErrSize, len(content))
	}
	ctx, cancel := context.WithTimeout(ctx, giveTimeout)
	defer cancel()
	c, err := t.Dial(ctx, to)
	if err != nil {
		return digest, fmt.Errorf("startup: %w: %v", ErrAbsent, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	answer, err := exchange(c, content)
	if err != nil {
		return digest, fmt.Errorf("startup: %w: %v", ErrNotTaken, err)
	}
	digest = sha256.Sum256(content)
	if answer != hex.EncodeToString(digest[:]) {
		return digest, fmt.Errorf("startup: %w: it says %.80q instead of %x", ErrNotTaken, answer, digest)
	}
	return digest, nil
}

// exchange says everything and then listens.
func exchange(c net.Conn, content []byte) (string, error) {
	if _, err := c.Write(content); err != nil {
		return "", err
	}
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return "", errors.ErrUnsupported
	}
	if err := half.CloseWrite(); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(c, 2*sha256.Size+2))
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}
