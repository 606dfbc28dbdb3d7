package house_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMakeEIF runs what make eif runs, on stand-ins for the blobs and the enclave:
// the same inputs give the same image, another enclave another one, and a blob that
// is missing is named with its remedy.
func TestMakeEIF(t *testing.T) {
	t.Parallel()
	root, dir := top(t), t.TempDir()
	attest := filepath.Join(dir, "attest")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", attest, "./attestation/attest")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	enclave, other := write("enclave", "one"), write("other", "two")
	run := func(enclave, image string, words ...string) ([]byte, string, error) {
		t.Helper()
		image = filepath.Join(dir, image)
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, ".ci", "eif"), append([]string{dir, enclave, attest, image}, words...)...)
		out, err := cmd.CombinedOutput()
		made, _ := os.ReadFile(image) // there is none where it failed
		return made, string(out), err
	}
	for _, blob := range []string{"bzImage", "cmdline", "init", "nsm.ko"} {
		if made, out, err := run(enclave, "none.eif"); err == nil || made != nil || !strings.Contains(out, blob) || !strings.Contains(out, "remedy") {
			t.Errorf("without %s: %v, %s", blob, err, out)
		}
		write(blob, "the blob "+blob)
	}
	first, out, err := run(enclave, "first.eif", "--fqdn", "a.example")
	if err != nil || !strings.Contains(out, "PCR0") {
		t.Fatalf("%v\n%s", err, out)
	}
	if second, _, err := run(enclave, "second.eif", "--fqdn", "a.example"); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same inputs give another image: %v", err)
	}
	if second, _, err := run(other, "third.eif", "--fqdn", "a.example"); err != nil || bytes.Equal(first, second) {
		t.Errorf("another enclave gives the same image: %v", err)
	}
	if second, _, err := run(enclave, "fourth.eif", "--fqdn", "b.example"); err != nil || bytes.Equal(first, second) {
		t.Errorf("other words give the same image: %v", err)
	}
}
