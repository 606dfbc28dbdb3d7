package house_test

import (
	"bytes"
	"crypto/sha256"
	"go/version"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestBuildCanBeRepeated builds what is shipped in two folders of different names
// and lengths, the second time with an empty build cache, so that nothing of the
// first build is reused: the binaries must be the same, byte for byte.
func TestBuildCanBeRepeated(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skipf("needs minutes for a build with an empty cache (remedy: run without -short)")
	}
	root := top(t)
	_, err := exec.LookPath("make")
	tapstacktest.Require(t, err, "make", "apt-get install make")

	first := buildCopy(t, root, filepath.Join(t.TempDir(), "a"), nil)
	cache := "GOCACHE=" + filepath.Join(t.TempDir(), "cache")
	second := buildCopy(t, root, filepath.Join(t.TempDir(), "a-second-folder"), []string{cache})
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("bin/%s differs between two builds of the same sources", name)
		}
	}
	for _, name := range []string{"enclave", "enclave-sim", "host", "bench", "attest"} {
		if _, ok := first[name]; !ok {
			t.Errorf("make build made no bin/%s", name)
		}
	}
}

// buildCopy copies the sources, runs `make build` there and returns the digests of
// what it made.
func buildCopy(t *testing.T, root, dir string, env []string) map[string][sha256.Size]byte {
	t.Helper()
	copySources(t, root, dir)
	cmd := exec.CommandContext(t.Context(), "make", "-C", dir, "build")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	sums := map[string][sha256.Size]byte{}
	entries, err := os.ReadDir(filepath.Join(dir, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		binary, err := os.ReadFile(filepath.Join(dir, "bin", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = sha256.Sum256(binary)
	}
	return sums
}

func copySources(t *testing.T, root, to string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (name == ".git" || name == "bin" || name == "artifacts"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDockerfileBuildsWithTheRightGo: the image's compiler must be one that the
// module accepts, and both targets must be there.
func TestDockerfileBuildsWithTheRightGo(t *testing.T) {
	t.Parallel()
	root := top(t)
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	image := regexp.MustCompile(`(?m)^FROM golang:(\S+) AS build$`).FindSubmatch(dockerfile)
	wanted := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(gomod)
	if image == nil || wanted == nil {
		t.Fatal("no build stage in Dockerfile, or no Go version in go.mod")
	}
	if version.Compare("go"+string(image[1]), "go"+string(wanted[1])) < 0 {
		t.Errorf("Dockerfile builds with Go %s, go.mod asks for %s", image[1], wanted[1])
	}
	for _, target := range []string{"enclave", "host"} {
		if !bytes.Contains(dockerfile, []byte("FROM scratch AS "+target+"\n")) {
			t.Errorf("Dockerfile has no target %s", target)
		}
	}
}

// TestServiceFile has systemd read the service, and rate how much it leaves open
// (in tenths: 20 is 2.0 of 10). The binary's place is filled by one that exists.
func TestServiceFile(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	tapstacktest.Require(t, err, "systemd-analyze", "apt-get install systemd")
	unit, err := os.ReadFile(filepath.Join(top(t), "deploy", "host.service"))
	if err != nil {
		t.Fatal(err)
	}
	standIn, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	const installed = "/usr/local/lib/corridor/host"
	if !bytes.Contains(unit, []byte("ExecStart="+installed+" ")) {
		t.Fatalf("the service does not start %s", installed)
	}
	copied := filepath.Join(t.TempDir(), "corridor-host.service")
	if err := os.WriteFile(copied, bytes.ReplaceAll(unit, []byte("="+installed), []byte("="+standIn)), 0o644); err != nil {
		t.Fatal(err)
	}
	socket, err := os.ReadFile(filepath.Join(top(t), "deploy", "host.socket"))
	if err != nil {
		t.Fatal(err)
	}
	activating := filepath.Join(filepath.Dir(copied), "corridor-host.socket") // as it is installed, beside its service
	if err := os.WriteFile(activating, socket, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", "--man=no", copied, activating}, {"security", "--offline=true", "--threshold=20", copied}} {
		if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
