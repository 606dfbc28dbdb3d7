package ctl

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/corridor-enclave/corridor/host/startup"
)

// configurePause is between two tries.
const configurePause = time.Second

// configure gives an enclave the configuration of its app, and prints the digest
// that the enclave has answered, which clients may demand.
func (c *Command) configure(ctx context.Context, words []string) error {
	content, err := c.read(words[2])
	if err != nil {
		return err
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(content))
	if c.dryRun {
		fmt.Fprintln(c.Stdout, digest)
		return nil
	}
	path := "/v1/enclaves/" + url.PathEscape(words[1]) + "/startup"
	if len(words) > 3 {
		path += "?port=" + url.QueryEscape(words[3])
	}
	var given startup.Given
	for err = c.ask(ctx, http.MethodPost, path, content, &given); c.wait && absent(err); err = c.ask(ctx, http.MethodPost, path, content, &given) {
		fmt.Fprintf(c.Stderr, "CID %s does not wait for it yet\n", words[1])
		select {
		case <-time.After(configurePause):
		case <-ctx.Done():
			return err
		}
	}
	if err != nil {
		return err
	}
	if given.SHA256 != digest {
		return fmt.Errorf("host ctl: the enclave has answered %q instead of %s", given.SHA256, digest)
	}
	fmt.Fprintln(c.Stdout, digest)
	return nil
}

// absent reports whether the enclave may only be late.
func absent(err error) bool {
	var r *refused
	return errors.As(err, &r) && r.status == http.StatusServiceUnavailable
}
