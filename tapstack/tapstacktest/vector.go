package tapstacktest

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// Vector reads a test vector: hexadecimal digits, with white space anywhere and
// comments from # to the end of the line. The test fails if the file is missing
// or holds no byte. From a room below tapstack the vectors of the link are
//
//	tapstacktest.Vector(t, "../testdata/arp-probe.hex")
func Vector(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read vector: %v", err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("vector %s: %v", path, err)
	}
	if len(b) == 0 {
		t.Fatalf("vector %s is empty", path)
	}
	return b
}
