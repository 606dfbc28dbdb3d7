package sidecar

import (
	"slices"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/config"
)

func TestAppIsToldTheWayOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		e       config.Egress
		environ []string
		want    []string
	}{
		{"none", config.Egress{}, []string{"A=b"}, []string{"A=b"}},
		{
			"both", config.Egress{SOCKS: "127.0.0.1:1080", Connect: "127.0.0.1:3128"}, []string{"A=b"},
			[]string{
				"A=b", "ALL_PROXY=socks5h://127.0.0.1:1080", "all_proxy=socks5h://127.0.0.1:1080",
				"HTTPS_PROXY=http://127.0.0.1:3128", "https_proxy=http://127.0.0.1:3128",
				"NO_PROXY=localhost,127.0.0.1,::1", "no_proxy=localhost,127.0.0.1,::1",
			},
		},
		{
			"what is set stays", config.Egress{Connect: "127.0.0.1:3128"}, []string{"HTTPS_PROXY=", "no_proxy=x"},
			[]string{"HTTPS_PROXY=", "no_proxy=x", "https_proxy=http://127.0.0.1:3128", "NO_PROXY=localhost,127.0.0.1,::1"},
		},
	} {
		if got := appEnviron(tt.environ, tt.e); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
