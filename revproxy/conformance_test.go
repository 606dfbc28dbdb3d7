package revproxy_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestConformance holds CONFORMANCE.md against the tests: it has all rows, each cell of a
// row names tests or says why there is none, and every test that it names exists.
func TestConformance(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]string{
		"": ".", "head": "head", "upstream": "upstream", "foreign": "../bench/foreign",
		"front": "../enclave/front", "inbound": "../enclave/inbound",
	}
	tests := map[string][]byte{}
	for name, dir := range folders {
		tests[name] = testsOf(t, dir)
	}
	named := regexp.MustCompile("`(?:([a-z]+)\\.)?((?:Test|Fuzz)\\w+)(?:/([^`]+))?`")
	scenarios := regexp.MustCompile("`(\\w+\\.vtc)`")
	rows, lines := map[int]bool{}, 0
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, " | ")
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			source, ok := tests[m[1]]
			if !ok || !bytes.Contains(source, []byte("func "+m[2]+"(")) {
				t.Errorf("there is no %s", m[0])
			}
			if m[3] != "" && !bytes.Contains(source, []byte(strconv.Quote(m[3]))) {
				t.Errorf("there is no case of %s", m[0])
			}
		}
		for _, m := range scenarios.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(filepath.Join("testdata", "vtc", m[1])); err != nil {
				t.Error(err)
			}
		}
		if row, err := strconv.Atoi(strings.TrimPrefix(cells[0], "| ")); err == nil {
			rows[row] = true
			for _, cell := range cells[4:] {
				if !named.MatchString(cell) && !strings.Contains(line, "not applicable: ") && strings.TrimRight(cell, " |") != "the same" {
					t.Errorf("row %d: %q names no test and no reason", row, cell)
				}
			}
		} else if len(cells) == 3 && named.MatchString(line) {
			lines++
		}
	}
	want := map[int]bool{}
	for row := 1; row <= 52; row++ {
		want[row] = true
	}
	if !maps.Equal(rows, want) {
		t.Errorf("the rows are %v", rows)
	}
	if lines != 20 {
		t.Errorf("%d lines of status codes have tests, want 20", lines)
	}
}

// testsOf is the source of a folder's tests.
func testsOf(t *testing.T, dir string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	var all []byte
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source...)
	}
	return all
}
