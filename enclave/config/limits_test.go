package config_test

import (
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/config"
)

// Each mistake in what is about the app is named.
func TestLimitMistakes(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, value, want string }{
		{"nonidempotent", "/pay", "want METHOD /PATH"},
		{"nonidempotent", "GET pay", "want METHOD /PATH"},
		{"nonidempotent", "GET /pay?x", "want METHOD /PATH"},
		{"app-health", "well", "want a path"},
		{"app-health", "/a b", "want a path"},
		{"retries", "-1", "is outside 0.."},
		{"app-conns", "some", "not a number"},
		{"max-connections", "0", "is outside 1.."},
		{"max-connections", "many", "not a number"},
		{"access-log", "on", "want off, full or 1/N"},
		{"access-log", "1/0", "want off, full or 1/N"},
		{"access-log", "2/3", "want off, full or 1/N"},
	}
	for _, test := range tests {
		_, _, err := config.Parse(config.Production, []string{"--fqdn", "a", "--" + test.name, test.value}, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("--%s %q: %v", test.name, test.value, err)
		}
	}
	for value, want := range map[string]int{"off": 0, "full": 1, "1/1": 1, "1/100": 100} {
		c, _, err := config.Parse(config.Production, []string{"--fqdn", "a", "--access-log", value}, nil)
		if err != nil || c.Limits.AccessEvery != want {
			t.Errorf("--access-log %s: one in %d, %v", value, c.Limits.AccessEvery, err)
		}
	}
}
