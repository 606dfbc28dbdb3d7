package sidecar

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/revproxy"
)

func TestAccessLog(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	for _, test := range []struct {
		record revproxy.Record
		want   string
	}{
		{revproxy.Record{Status: 499, Failed: true, Cause: revproxy.RequestError, Broken: true},
			`level=INFO msg=access request="" method="" host="" path="" proto="" status=499 sent=0 queue=0s connect=0s wait=0s body=0s lane=false cause=http_request_error broken=true`},
		{revproxy.Record{ID: "id", Client: netip.MustParseAddr("192.0.2.1"), Proto: "HTTP/2.0", Method: "GET", Host: "h", Path: "/ \n", App: "a:1", Status: 200, Sent: 5,
			Queue: time.Second, Connect: 2 * time.Second, Wait: 3 * time.Second, Body: 4 * time.Second, Lane: true},
			`level=INFO msg=access request=id method=GET host=h path="/ \n" proto=HTTP/2.0 status=200 sent=5 queue=1s connect=2s wait=3s body=4s lane=true client=192.0.2.1 app=a:1`},
	} {
		out.Reset()
		accessLog(log)(&test.record)
		if got := strings.TrimSuffix(out.String(), "\n"); got != test.want {
			t.Errorf("%s\nwant %s", got, test.want)
		}
	}
	if c := proxyConfig(Config{Log: log}); c.Access != nil {
		t.Error("there is a log that nobody asked for")
	}
}
