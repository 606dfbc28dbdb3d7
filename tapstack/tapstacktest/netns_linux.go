package tapstacktest

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// PrivateNetwork moves the test's goroutine into a network namespace of its
// own, for good: what it opens and configures from then on is seen by nobody
// else, and is gone with the test. The goroutine is locked to its thread, so
// other goroutines and subtests are not in the namespace, though what the test
// opened for them is. It needs CAP_SYS_ADMIN, or skips the test.
func PrivateNetwork(t testing.TB) {
	t.Helper()
	// Never unlocked: the runtime ends a thread whose goroutine ends locked, and
	// the namespace with it.
	runtime.LockOSThread()
	err := os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
	Require(t, err, "a network namespace of its own", "run as root")
}

// RequireTAP ends the test if the machine has no TAP devices.
func RequireTAP(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	Require(t, err, "a TAP device", "load the tun module and run as root")
	f.Close()
}
