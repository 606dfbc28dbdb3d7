package ledger_test

import (
	"io"
	"os"
	"testing"

	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	tapstacktest.Require(t, ledger.CanCountCalls(), "the right to count system calls", "run as root, with tracefs at /sys/kernel/tracing")
	if _, err := ledger.CountCalls([]ledger.Account{{Name: "self", PID: os.Getpid()}, {Name: "ghost", PID: 1 << 30}}); err == nil {
		t.Error("counted the calls of nobody")
	}
	w := startWorker(t)
	c, err := ledger.CountCalls([]ledger.Account{{Name: "worker", PID: w.cmd.Process.Pid}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w.in, "x"); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "done\n")
	counts, err := c.Stop()
	if err != nil || len(counts) != 1 || counts[0] < 100 || counts[0] > 100_000 {
		t.Errorf("%v, %v; it read 100 times", counts, err)
	}
}
