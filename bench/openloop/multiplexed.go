package openloop

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
)

// multiplexed speaks HTTP/2 through net/http, on one connection. It is safe for
// concurrent use.
type multiplexed struct {
	d         *dialer
	transport *http.Transport
}

func newMultiplexed(d *dialer) *multiplexed {
	var protocols http.Protocols
	protocols.SetHTTP2(d.tls != nil)
	protocols.SetUnencryptedHTTP2(d.tls == nil)
	return &multiplexed{d: d, transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dialTold(ctx) },
		TLSClientConfig:    d.tls.Clone(), // the transport completes it; nil stays nil
		Protocols:          &protocols,
		MaxConnsPerHost:    1,
		DisableCompression: true,
	}}
}

// dialTold dials such that a failure is known as one of dialling above net/http.
func (d *dialer) dialTold(ctx context.Context) (net.Conn, error) {
	conn, err := d.Dial(ctx)
	if err != nil {
		return nil, failed(DialFailed, err)
	}
	return conn, nil
}

func (m *multiplexed) exchange(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, m.d.Timeout)
	defer cancel()
	request := m.d.request.Clone(ctx)
	if m.d.Body != nil {
		request.Body = io.NopCloser(bytes.NewReader(m.d.Body))
		request.ContentLength = int64(len(m.d.Body))
	}
	response, err := m.transport.RoundTrip(request)
	if err != nil {
		return 0, failed(classOf(err), err)
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return n, failed(Broken, err)
	}
	return n, statusError(response)
}

func (m *multiplexed) close() { m.transport.CloseIdleConnections() }
