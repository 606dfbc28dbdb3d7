// Package binaries compiles the programs that tests and measurements start: ours
// the way `make build` does, and the pinned load generators, peers and suites from
// the modules bench/tools, bench/peers and bench/suites, whose pins do not touch ours. It starts
// none of them; see bench/process, bench/loadgen and bench/vm.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A Program is one that can be built.
type Program string

// Our own programs, and Guest, which only lives inside the test machine.
const (
	Enclave    Program = "enclave"
	EnclaveSim Program = "enclave-sim"
	Host       Program = "host"
	Bench      Program = "bench"
	Attest     Program = "attest"
	Guest      Program = "guest"
)

// Programs of others, unmodified. Gvforwarder is the command that
// gvisor-tap-vsock keeps in the folder cmd/vm.
const (
	Bombardier  Program = "bombardier"
	Baton       Program = "baton"
	Gvproxy     Program = "gvproxy"
	Gvforwarder Program = "gvforwarder"

	ConnectConformance Program = "connectconformance"
	ReferenceServer    Program = "referenceserver" // of the same suite
	GRPCClient         Program = "grpc-interop-client"
	GRPCServer         Program = "grpc-interop-server"
	HTTPBin            Program = "go-httpbin"
)

// A source is where a program is built from.
type source struct {
	module string // folder of the module, from the top of the repository
	pkg    string
	tags   string
}

func (p Program) source() (source, error) {
	sources := map[Program]source{
		Enclave:    {pkg: "./enclave"},
		EnclaveSim: {pkg: "./enclave", tags: "sim"},
		Host:       {pkg: "./host"},
		Bench:      {pkg: "./bench"},
		Attest:     {pkg: "./attestation/attest"},
		Guest:      {pkg: "./bench/vm/guest"},

		Bombardier:  {module: "bench/tools", pkg: "github.com/codesenberg/bombardier"},
		Baton:       {module: "bench/tools", pkg: "github.com/americanexpress/baton"},
		Gvproxy:     {module: "bench/peers", pkg: "github.com/containers/gvisor-tap-vsock/cmd/gvproxy"},
		Gvforwarder: {module: "bench/peers", pkg: "github.com/containers/gvisor-tap-vsock/cmd/vm"},

		ConnectConformance: {module: "bench/suites", pkg: "connectrpc.com/conformance/cmd/connectconformance"},
		ReferenceServer:    {module: "bench/suites", pkg: "connectrpc.com/conformance/cmd/referenceserver"},
		GRPCClient:         {module: "bench/suites", pkg: "google.golang.org/grpc/interop/client"},
		GRPCServer:         {module: "bench/suites", pkg: "google.golang.org/grpc/interop/server"},
		HTTPBin:            {module: "bench/suites", pkg: "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"},
	}
	s, ok := sources[p]
	if !ok {
		return source{}, fmt.Errorf("binaries: no program is called %q", p)
	}
	return s, nil
}

// Build builds the program into dir, static and reproducible, and returns its path.
// Programs of others come from the user's cache folder if they were built there
// before from the same pins by the same Go; several processes may build at once.
func Build(ctx context.Context, dir string, p Program) (string, error) {
	s, err := p.source()
	if err != nil {
		return "", err
	}
	top, err := Top()
	if err != nil {
		return "", err
	}
	if s.module == "" {
		return s.build(ctx, top, filepath.Join(dir, string(p)))
	}
	cache, err := s.cache(top)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, string(p))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("binaries: make the cache folder: %w", err)
	}
	own, err := os.MkdirTemp(cache, ".build-")
	if err != nil {
		return "", fmt.Errorf("binaries: make a build folder: %w", err)
	}
	defer os.RemoveAll(own)
	built, err := s.build(ctx, filepath.Join(top, s.module), filepath.Join(own, string(p)))
	if err != nil {
		return "", err
	}
	// A rename is atomic: whoever finds the program finds all of it.
	if err := os.Rename(built, path); err != nil {
		return "", fmt.Errorf("binaries: keep %s: %w", p, err)
	}
	return path, nil
}

// build compiles into the file to. The flags are those of the Makefile.
func (s source) build(ctx context.Context, module, to string) (string, error) {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-tags", s.tags, "-o", to, s.pkg}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("binaries: go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return to, nil
}

// cache is the folder for what is built from this state of the module: its name
// is a digest of the pins and of the compiler's version.
func (s source) cache(top string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("binaries: find the cache folder: %w", err)
	}
	digest := sha256.New()
	fmt.Fprintln(digest, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		pins, err := os.ReadFile(filepath.Join(top, s.module, name))
		if err != nil {
			return "", fmt.Errorf("binaries: read pins: %w", err)
		}
		digest.Write(pins)
	}
	sum := hex.EncodeToString(digest.Sum(nil))
	return filepath.Join(base, "corridor", "programs", sum[:16]), nil
}

// Top returns the top folder of the repository that the working directory is in:
// the nearest one above with a go.mod, which for a test is our own.
func Top() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("binaries: find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", errors.New("binaries: no go.mod in this folder or above")
		}
		dir = above
	}
}
