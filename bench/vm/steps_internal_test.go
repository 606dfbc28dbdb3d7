package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadLongSteps: a report that is not one is an error, and one that holds a whole
// measurement is read.
func TestReadLongSteps(t *testing.T) {
	t.Parallel()
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "reports")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if steps, err := readSteps(write("{\"name\":\"one\"}\nKernel panic\n")); err == nil || len(steps) != 1 {
		t.Errorf("%+v, %v", steps, err)
	}
	if steps, err := readSteps(write(strings.Repeat("x", maxLine+1))); err == nil {
		t.Errorf("a line without end is %d steps", len(steps))
	}
	if steps, err := readSteps(filepath.Join(t.TempDir(), "none")); err != nil || steps != nil {
		t.Errorf("without reports: %+v, %v", steps, err)
	}
	long := strings.Repeat("y", 1<<20)
	steps, err := readSteps(write("{\"name\":\"report\",\"values\":{\"report\":\"" + long + "\"}}\n\n{\"name\":\"end\"}\n"))
	if err != nil || len(steps) != 2 || steps[0].Values[ReportStep] != long || steps[1].Name != EndStep {
		t.Errorf("%d steps, %v", len(steps), err)
	}
}
