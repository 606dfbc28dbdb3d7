package revproxy_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/revproxy"
)

func TestParseFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		names string
		want  revproxy.Fields
		fails bool
	}{
		{names: "", fails: true},
		{names: "via", fails: true},
		{names: "all,forwarded", fails: true},
		{names: "forwarded,none", fails: true},
		{names: "forwarded,", fails: true},
		{names: "X-Forwarded-*", fails: true},
		{names: "none"},
		{names: "all", want: revproxy.AllFields},
		{names: "X-Request-ID", want: revproxy.RequestID},
		{names: "forwarded, x-real-ip,forwarded", want: revproxy.Forwarded | revproxy.RealIP},
		{names: "x-forwarded-for,x-forwarded-host,x-forwarded-proto,forwarded,x-real-ip,x-request-id", want: revproxy.AllFields},
	}
	for _, tt := range tests {
		if got, err := revproxy.ParseFields(tt.names); got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%q: %b, %v; want %b", tt.names, got, err, tt.want)
		}
	}
}

// What the app is not to be told does not reach it from a client either, whichever
// way the request takes.
func TestFieldsAreLeftOut(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			_, _ = fmt.Fprintln(w, name)
		}
	}))
	tests := []struct {
		told string
		want string // but for Via, which is always there
	}{
		{"none", ""},
		{"x-forwarded-for", "X-Forwarded-Asserted X-Forwarded-For"},
		{"x-real-ip", "X-Forwarded-Asserted X-Real-Ip"},
		{"forwarded", "Forwarded X-Forwarded-Asserted"},
		{"x-forwarded-host", "X-Forwarded-Host"},
		{"x-forwarded-proto", "X-Forwarded-Proto"},
		{"x-request-id", "X-Request-Id"},
		{"all", "Forwarded X-Forwarded-Asserted X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Real-Ip X-Request-Id"},
	}
	claims := "Forwarded: for=192.0.2.1\r\n"
	for _, name := range []string{"Asserted", "For", "Host", "Proto", "Port"} {
		claims += "X-Forwarded-" + name + ": 192.0.2.1\r\n"
	}
	claims += "X-Real-IP: 192.0.2.1\r\nX-Request-ID: 1\r\n"
	for _, tt := range tests {
		fields, err := revproxy.ParseFields(tt.told)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(newProxy(t, app.URL, func(c *revproxy.Config) { c.Untold = revproxy.AllFields &^ fields }))
		s.Listener = tellingListener{s.Listener}
		withLane(t, s)
		s.Start()
		t.Cleanup(s.Close)
		for _, version := range []string{"1.0", "1.1"} { // the lane leaves 1.0 alone
			res := speak(t, dial(t, s), "GET / HTTP/"+version+"\r\nHost: x\r\n"+claims+"\r\n")
			got := slices.DeleteFunc(strings.Fields(body(t, res)), func(name string) bool { return name == "Via" })
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%s, HTTP/%s: the app saw %s; want %s", tt.told, version, got, tt.want)
			}
		}
	}
}
