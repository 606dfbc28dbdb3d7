package revproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// errUnaskedUpgrade reports a 101 without a word of Upgrade from either side.
var errUnaskedUpgrade = errors.New("revproxy: the app switched protocols unasked")

// errOtherUpgrade reports a 101 to another protocol than asked for.
var errOtherUpgrade = errors.New("revproxy: the app switched to another protocol")

// checkHead refuses answers that cannot be passed on.
func checkHead(x *exchange, res *http.Response) error {
	switch {
	case res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("revproxy: the app answered with status %d", res.StatusCode)
	case res.StatusCode != http.StatusSwitchingProtocols:
		return nil
	case x.upgrade == "":
		return errUnaskedUpgrade
	case !strings.EqualFold(upgradeOf(res.Header), x.upgrade):
		return errOtherUpgrade
	}
	return nil
}

// keepForm takes the fields of the app's connection away, and keeps the framing
// of an answer honest towards the client.
func keepForm(x *exchange, res *http.Response) {
	hopOf(res.Header).strip(res.Header)
	if res.StatusCode == http.StatusNoContent {
		delete(res.Header, "Content-Length") // it has no place there (RFC 9110 8.6), and HTTP/2 clients wait for so much
	}
	if x.in.ProtoMajor == 1 && (x.unread() || lastOfConnection(x.in)) {
		res.Header.Set("Connection", "close")
	}
	if res.ContentLength < 0 && len(res.TransferEncoding) == 0 && res.ProtoMajor == 1 && x.in.Method != http.MethodHead {
		keepOpenEnded(x, res)
	}
}

// keepOpenEnded keeps an answer without a length without a length: "identity"
// tells net/http's server not to make chunks of it but to close the connection
// behind it.
func keepOpenEnded(x *exchange, res *http.Response) {
	if x.in.ProtoMajor == 1 {
		res.Header.Set("Transfer-Encoding", "identity")
	}
	res.Body = &openEnded{ReadCloser: res.Body, ctx: x, dial: x.app.dial}
}

// lastOfConnection reports whether a request may be one with two framings, behind
// which the connection must end (RFC 9112 section 6.1).
func lastOfConnection(in *http.Request) bool {
	return in.ProtoMajor == 1 && (in.ProtoMinor == 0 || len(in.TransferEncoding) > 0)
}

// An openEnded is the body of an answer that ends with the app's connection,
// whatever the reason. It ends well only if the app is still there: when a
// process dies, its connections end like this too.
type openEnded struct {
	io.ReadCloser
	ctx  context.Context
	dial func(context.Context) (net.Conn, error)
}

// Read reads the answer. Its end is io.ErrUnexpectedEOF if nothing listens where
// the app did.
func (b *openEnded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != io.EOF {
		return n, err
	}
	c, dialErr := b.dial(b.ctx)
	if dialErr == nil {
		_ = c.Close() // it was only to see who is there
	}
	if gone(dialErr) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
