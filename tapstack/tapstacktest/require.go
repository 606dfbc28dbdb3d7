// Package tapstacktest holds what tests need in place of the world: in-memory
// devices, packet builders, and the rule for tests that need a privilege. It
// holds no tests of its own behaviour for users; only tests import it.
package tapstacktest

import (
	"os"
	"testing"
)

// requireEnv names the environment variable that turns a missing privilege or
// tool from a skip into a failure. Its one meaningful value is "all".
const requireEnv = "CORRIDOR_REQUIRE"

// Require ends the test unless err is nil: something that the test needs from
// the machine is missing. The test is skipped with what is needed, the remedy,
// and the cause; if the environment variable CORRIDOR_REQUIRE is "all" it fails
// with the same text, because there the machine has promised to have it.
//
//	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
//	tapstacktest.Require(t, err, "a TAP device", "load the tun module and run as root")
func Require(t testing.TB, err error, what, remedy string) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv(requireEnv) == "all" {
		t.Fatalf("needs %s (remedy: %s): %v", what, remedy, err)
	}
	t.Skipf("needs %s (remedy: %s): %v", what, remedy, err)
}
