package binaries_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
)

func TestBuildRefusesUnknownPrograms(t *testing.T) {
	t.Parallel()
	if path, err := binaries.Build(t.Context(), t.TempDir(), "nginx"); err == nil {
		t.Fatalf("Build = %q, want an error", path)
	}
}

// TestPeersAndToolsBuild builds what others wrote, from its pins, and checks that
// each is a static program, so that it also runs inside the test machine.
func TestPeersAndToolsBuild(t *testing.T) {
	t.Parallel()
	for _, p := range []binaries.Program{binaries.Bombardier, binaries.Baton, binaries.Gvproxy, binaries.Gvforwarder} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			path, err := binaries.Build(t.Context(), t.TempDir(), p)
			if err != nil {
				t.Fatal(err)
			}
			again, err := binaries.Build(t.Context(), t.TempDir(), p)
			if err != nil || again != path {
				t.Fatalf("the second Build = %q, %v; want %q from the cache", again, err, path)
			}
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, program := range f.Progs {
				if program.Type == elf.PT_INTERP {
					t.Error("linked dynamically")
				}
			}
			// -h is understood by all of them; none starts anything then.
			cmd := exec.CommandContext(t.Context(), path, "-h")
			cmd.Env = append(os.Environ(), "NO_COLOR=1")
			if out, err := cmd.CombinedOutput(); len(out) == 0 {
				t.Errorf("-h printed nothing: %v", err)
			}
		})
	}
}
