package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/bench/binaries"
)

// module is the path of this repository's module.
const module = "github.com/corridor-enclave/corridor"

// A listedPackage is what `go list -json` says of one package.
type listedPackage struct {
	ImportPath   string
	Name         string
	Dir          string
	Standard     bool
	Module       *struct{ Path string }
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// local is the import path from the top of the repository: "tapstack/tap".
func (p listedPackage) local() string { return local(p.ImportPath) }

func local(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

// top returns the folder of the repository.
func top(t *testing.T) string {
	t.Helper()
	dir, err := binaries.Top()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// fields are the parts of go list's answer that are asked for. All of them would
// cost ten times as long: among them is whether each package is up to date.
const fields = "-json=ImportPath,Name,Dir,Standard,Module,Imports,TestImports,XTestImports"

// list runs `go list` for Linux, as everything is built that is shipped.
func list(t *testing.T, args ...string) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", fields}, args...)...)
	cmd.Dir = top(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, &stderr)
	}
	var packages []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list %v: %v", args, err)
		}
		packages = append(packages, p)
	}
}

// below reports whether path is the folder room or lies below it.
func below(path, room string) bool {
	return path == room || strings.HasPrefix(path, room+"/")
}
