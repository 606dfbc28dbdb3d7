package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

const (
	// maxAnswer bounds what is read of a server at all, headers included.
	maxAnswer = attestation.MaxEvidence + 64<<10
	// maxText is the largest document in base64, and a line break.
	maxText = (attestation.MaxDocument+2)/3*4 + 2

	exporterLabel = "EXPORTER-Channel-Binding" // RFC 9266, section 2
)

// A DialFunc opens the TCP connection below TLS, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// A Connection is what is known of the TLS connection that an answer came by.
type Connection struct {
	Leaf     *x509.Certificate // whose key the server has proven to hold
	Version  string            // of TLS
	Exporter []byte            // its tls-exporter; nil if there is none (old TLS)
}

// An Answer is what a server has sent, and over what.
type Answer struct {
	Connection
	Body []byte
	JSON bool // it says it is evidence; otherwise it is nitriding's form
}

// Fetch asks the enclave at target (https, host, port, path before /enclave) for
// a document over a connection of its own, so that the connection it returns is
// the one the answer came by. No CA is asked about the certificate: the document
// vouches for it or nothing does. HTTP/1.1 is written on the connection by hand,
// because a client of package http would be free to use another one. A nil nonce
// asks for a document that may be a little old; a nil dial is net.Dialer's.
func Fetch(ctx context.Context, dial DialFunc, target *url.URL, nonce []byte) (*Answer, error) {
	conn, err := dialTLS(ctx, dial, target.Hostname(), Addr(target), []string{"http/1.1"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()

	connection, err := describe(conn)
	if err != nil {
		return nil, err
	}
	a := &Answer{Connection: connection}
	if err := a.get(ctx, conn, target, nonce); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
		return nil, err
	}
	return a, nil
}

// Addr returns the host and port of an https URL.
func Addr(target *url.URL) string {
	port := target.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(target.Hostname(), port)
}

func dialTLS(ctx context.Context, dial DialFunc, name, addr string, protocols []string) (*tls.Conn, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         protocols,
		InsecureSkipVerify: true, // #nosec G402 -- see Fetch: the document is the trust
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

func describe(conn *tls.Conn) (Connection, error) {
	state := conn.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return Connection{}, errors.New("the server has shown no certificate")
	}
	c := Connection{Leaf: state.PeerCertificates[0], Version: tls.VersionName(state.Version)}
	if exporter, err := state.ExportKeyingMaterial(exporterLabel, nil, attestation.ExporterSize); err == nil {
		c.Exporter = exporter
	}
	return c, nil
}

func (a *Answer) get(ctx context.Context, conn net.Conn, target *url.URL, nonce []byte) error {
	u := target.JoinPath("enclave", "attestation")
	query := url.Values{}
	if nonce != nil {
		query.Set("nonce", hex.EncodeToString(nonce))
		if a.Exporter != nil {
			query.Set("binding", "tls-exporter")
		}
	}
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	request.Header.Set("User-Agent", "corridor-attest")
	request.Header.Set("Accept", "application/json, text/plain;q=0.5")
	request.Close = true
	if err := request.Write(conn); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), request)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	if a.Body, err = io.ReadAll(io.LimitReader(response.Body, attestation.MaxEvidence+1)); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	a.JSON = err == nil && media == "application/json"
	return checkStatus(response, a.Body)
}

func checkStatus(response *http.Response, body []byte) error {
	switch status := response.StatusCode; {
	case status >= 300 && status < 400:
		return fmt.Errorf("the server redirects to %q: a document from there would say nothing about here", response.Header.Get("Location"))
	case status != http.StatusOK:
		return fmt.Errorf("the server answers %d %s: %s", status, http.StatusText(status), firstLine(body))
	}
	return nil
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

// Evidence decodes the body of an answer. Errors match attestation.ErrNotGenuine.
func (a *Answer) Evidence() (attestation.Evidence, error) {
	if a.JSON {
		return attestation.ParseEvidence(a.Body)
	}
	raw, err := DecodeText(a.Body)
	return attestation.Evidence{Document: raw}, err
}

// Freshness is how the evidence of this answer is shown to be fresh for a nonce.
// Evidence in JSON has to name the connection; nitriding's form cannot.
func (a *Answer) Freshness(e attestation.Evidence, nonce []byte, maxAge time.Duration) attestation.Freshness {
	f := attestation.Freshness{Nonce: nonce, MaxAge: maxAge, Proof: e.Proof}
	if a.JSON {
		f.Exporter = a.Exporter
	}
	return f
}

// DecodeText returns the document in nitriding's form: base64, with a line break
// behind. Errors match attestation.ErrNotGenuine.
func DecodeText(body []byte) ([]byte, error) {
	bad := func(format string, a ...any) error {
		return &attestation.Error{Step: attestation.StepDocument, Verdict: attestation.ErrNotGenuine, Reason: fmt.Sprintf(format, a...)}
	}
	if len(body) > maxText {
		return nil, bad("the answer is longer than %d bytes", maxText)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimRight(body, "\r\n")))
	if err != nil {
		return nil, bad("the answer is not base64: %v", err)
	}
	return raw, nil
}
