package ledger

import (
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

func TestParseAllocations(t *testing.T) {
	t.Parallel()
	for _, page := range []string{
		"", "<html>", objectsName + " 1\n", objectsName + " one\n" + bytesName + " 2\n", objectsName + " -1\n" + bytesName + " 2\n",
		objectsName + " NaN\n" + bytesName + " 2\n", objectsName + " 1e300\n" + bytesName + " 2\n",
		objectsName + "{cid=\"16\"} 1\n" + bytesName + " 2\n",
	} {
		if got, err := parseAllocations(strings.NewReader(page)); err == nil {
			t.Errorf("%q: %+v", page, got)
		}
	}
	page := exposition.NewPage()
	exposition.Process{Allocations: 1 << 40, AllocatedBytes: 7}.Write(page)
	var text strings.Builder
	if _, err := page.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	got, err := parseAllocations(strings.NewReader(text.String()))
	if want := (allocations{1 << 40, 7}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func TestAskingIsTakenOff(t *testing.T) {
	t.Parallel()
	mark := func(first, last int64) asked {
		return asked{allocations{first, 10 * first}, allocations{last, 10 * last}}
	}
	for _, tt := range []struct {
		name        string
		before, now asked
		want        int64
	}{
		{"nothing but asking", mark(0, 50), mark(100, 150), 0},
		{"less than asking took", mark(0, 50), mark(80, 150), 0},
		{"work and asking", mark(0, 50), mark(1100, 1150), 1000},
	} {
		if got := tt.before.between(tt.now); got != (allocations{tt.want, 10 * tt.want}) {
			t.Errorf("%s: %+v, want %d", tt.name, got, tt.want)
		}
	}
}
