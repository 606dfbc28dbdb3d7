package main

import (
	"context"
	"reflect"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		events     string
		requireAll bool
		held       bool
		want       []string // in the output, in this order
		not        string   // not in the output
	}{
		{
			name: "nothing ran", events: `{"Action":"pass","Package":"p"}`,
			want: []string{"\n0 passed, 0 failed, 0 skipped\n"},
		},
		{
			name: "a failed test shows its output and counts once",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1, want 2\n"}
				{"Action":"fail","Package":"p","Test":"TestA"}
				{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
				{"Action":"fail","Package":"p"}`,
			want: []string{"got 1, want 2", "FAIL\tp\t0.1s", "\n0 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "a package that does not compile counts as one",
			events: `{"ImportPath":"p","Action":"build-output","Output":"./a.go:3: undefined: x\n"}
				{"ImportPath":"p","Action":"build-fail"}
				{"Action":"fail","Package":"p","FailedBuild":"p"}
				{"Action":"pass","Package":"q","Test":"TestB"}`,
			want: []string{"undefined: x", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "a skipped test is listed with its reason",
			events: `{"Action":"pass","Package":"p","Test":"TestA"}
				{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
				{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:9: needs root (remedy: run as root): EPERM\n"}
				{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
				{"Action":"skip","Package":"p","Test":"TestB"}`,
			held: true,
			want: []string{"skipped:\n  p TestB: needs root (remedy: run as root): EPERM\n", "\n1 passed, 0 failed, 1 skipped\n"},
		},
		{
			name:       "where all tests are required a skip is a failure",
			events:     `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}`,
			requireAll: true,
			want:       []string{"p TestB: no reason given", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "a race in the midst of a test that passed is shown",
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"WARNING: DATA RACE\n"}
				{"Action":"output","Package":"p","Test":"TestA","Output":"Write at 0x0c\n"}
				{"Action":"pass","Package":"p","Test":"TestA"}
				{"Action":"fail","Package":"p","Test":"TestB"}`,
			want: []string{"WARNING: DATA RACE\nWrite at 0x0c\n", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "a package without tests is not a skip, and success is quiet",
			events: `{"Action":"skip","Package":"p"}
				{"Action":"output","Package":"q","Test":"TestA","Output":"chatter\n"}
				{"Action":"pass","Package":"q","Test":"TestA"}
				{"Action":"output","Package":"q","Output":"PASS\n"}
				{"Action":"output","Package":"q","Output":"ok  \tq\t0.1s\n"}`,
			held: true,
			want: []string{"ok  \tq\t0.1s\n", "\n1 passed, 0 failed, 0 skipped\n"},
			not:  "chatter",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			tally := newTally(&out)
			if err := tally.read(strings.NewReader(tt.events)); err != nil {
				t.Fatalf("read: %v", err)
			}
			if held := tally.close(tt.requireAll); held != tt.held {
				t.Errorf("close = %v, want %v", held, tt.held)
			}
			rest := out.String()
			for _, want := range tt.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("output has no %q where expected:\n%s", want, out.String())
				}
				rest = want[len(want)-1:] + after // lines share their end and their beginning
			}
			if tt.not != "" && strings.Contains(out.String(), tt.not) {
				t.Errorf("output has %q:\n%s", tt.not, out.String())
			}
		})
	}
}

func TestTallyRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	if err := newTally(&strings.Builder{}).read(strings.NewReader("ok  \tp\t0.1s\n")); err == nil {
		t.Fatal("read of plain text succeeded")
	}
}

func TestSplitRunsBenchLast(t *testing.T) {
	t.Parallel()
	phases := split([]string{"m/bench/vm", "m/tapstack", "m/bench", "m/workbench", "m/enclave"},
		[]string{"m/bench", "m/enclave", "m/enclave/isolate"})
	want := []phase{
		{name: "units", packages: []string{"m/tapstack", "m/workbench", "m/enclave"}},
		{name: "units of enclave-sim", packages: []string{"m/enclave", "m/enclave/isolate"}, tags: "sim"},
		{name: "integration", packages: []string{"m/bench/vm", "m/bench"}, serial: true},
	}
	if !reflect.DeepEqual(phases, want) {
		t.Errorf("phases %+v, want %+v", phases, want)
	}
}

func TestRunWithoutPackagesIsWrongUsage(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	if code := run(context.Background(), nil, &out, &errs); code != 2 || !strings.Contains(errs.String(), "name the packages") {
		t.Fatalf("run = %d, %q", code, errs.String())
	}
}
