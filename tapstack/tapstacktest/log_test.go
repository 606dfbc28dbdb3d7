package tapstacktest_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

func TestLogKeepsEveryLine(t *testing.T) {
	t.Parallel()
	var log tapstacktest.Log
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			fmt.Fprintf(&log, "line %d\n", i)
			_ = log.String() // while others write
		})
	}
	writers.Wait()
	for i := range 8 {
		if want := fmt.Sprintf("line %d\n", i); strings.Count(log.String(), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, log.String())
		}
	}
}
