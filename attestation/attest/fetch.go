package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

const (
	// maxBody is the largest document in base64, and a line break.
	maxBody = (attestation.MaxDocument+2)/3*4 + 2
	// maxAnswer bounds what is read of a server at all, headers included.
	maxAnswer = maxBody + 64<<10
)

// fetched is what came over one connection, and whose it was.
type fetched struct {
	body    []byte
	leaf    []byte // DER, of the certificate whose key the server has proven to hold
	version string
}

// fetch asks the enclave for a document over a connection of its own, so that
// the certificate it returns is the one of the connection the document came by.
// No CA is asked about that certificate: the document vouches for it or nothing
// does. HTTP/1.1 is written on the connection by hand, because a client of
// package http would be free to use another connection.
func fetch(ctx context.Context, target *url.URL, nonce []byte) (fetched, error) {
	conn, err := dial(ctx, target)
	if err != nil {
		return fetched{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()

	state := conn.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return fetched{}, errors.New("the server has shown no certificate")
	}
	f := fetched{leaf: state.PeerCertificates[0].Raw, version: tls.VersionName(state.Version)}
	f.body, err = get(ctx, conn, target, nonce)
	if err != nil && ctx.Err() != nil {
		return fetched{}, fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
	if err != nil {
		return fetched{}, err
	}
	return f, nil
}

func dial(ctx context.Context, target *url.URL) (*tls.Conn, error) {
	port := target.Port()
	if port == "" {
		port = "443"
	}
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName:         target.Hostname(),
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: true, // #nosec G402 -- see fetch: the document is the trust
	}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(target.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn.(*tls.Conn), nil // as tls.Dialer promises
}

func get(ctx context.Context, conn net.Conn, target *url.URL, nonce []byte) ([]byte, error) {
	u := target.JoinPath("enclave", "attestation")
	u.RawQuery = "nonce=" + hex.EncodeToString(nonce)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	request.Header.Set("User-Agent", "corridor-attest")
	request.Header.Set("Accept", "text/plain")
	request.Close = true
	if err := request.Write(conn); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), request)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if answer.StatusCode >= 300 && answer.StatusCode < 400 {
		return nil, fmt.Errorf("the server redirects to %q: a document from there would say nothing about here", answer.Header.Get("Location"))
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %d %s: %s", answer.StatusCode, http.StatusText(answer.StatusCode), firstLine(body))
	}
	return body, nil
}

// firstLine returns the beginning of a foreign text, safe to print.
func firstLine(body []byte) string {
	const longest = 200
	line, _, _ := bytes.Cut(body, []byte("\n"))
	if len(line) > longest {
		line = line[:longest]
	}
	return strconv.QuoteToASCII(string(bytes.TrimSpace(line)))
}

// decodeBody returns the document in an answer: base64, with a line break behind.
func decodeBody(body []byte) ([]byte, error) {
	if len(body) > maxBody {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimRight(body, "\r\n")))
	if err != nil {
		return nil, fmt.Errorf("the answer is not base64: %w", err)
	}
	return raw, nil
}
