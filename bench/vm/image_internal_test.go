package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation/eif"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// initProgram is all that runs in the image: it says that both ramdisks are there.
const initProgram = `package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	defer syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	_ = os.Mkdir("/dev", 0o755)
	_ = syscall.Mount("dev", "/dev", "devtmpfs", 0, "")
	console, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	greeting, err := os.ReadFile("/app/greeting")
	fmt.Fprintf(console, "image says %s, %v\n", greeting, err)
	console.Close()
}
`

// extractScript takes an image apart with nothing of ours: the offsets and sizes
// of its header by od, the sections by tail and head. $1 is the image; the order
// of the sections is kernel, command line, metadata, two ramdisks.
const extractScript = `set -eu
number() { od -An -tu8 --endian=big -j"$1" -N8 image.eif | tr -d ' '; }
section() { tail -c +$(($(number $((28 + 8 * $1))) + 13)) image.eif | head -c "$(number $((284 + 8 * $1)))"; }
section 0 >kernel
section 1 >cmdline
section 3 >initrd
section 4 >>initrd
`

// TestIntegrationImageBoots boots what package eif has put together, after other
// programs have taken it apart: a machine starts the kernel, and the kernel finds
// both ramdisks.
func TestIntegrationImageBoots(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	tapstacktest.Require(t, err, "QEMU", "make deps, as root")
	kernel, err := FindKernel()
	tapstacktest.Require(t, err, "a kernel for the test machine", "make deps, or CORRIDOR_KERNEL=FOLDER")
	dir := t.TempDir()
	writeImage(t, dir, kernel)

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	extract := exec.CommandContext(ctx, "sh", "-c", extractScript)
	extract.Dir = dir
	if out, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("take the image apart: %v\n%s", err, out)
	}
	if commandLine, err := os.ReadFile(filepath.Join(dir, "cmdline")); err != nil || string(commandLine) != "console=ttyS0" {
		t.Errorf("the command line is %q, %v", commandLine, err)
	}
	console := filepath.Join(dir, "console.log")
	machine := Machine{Kernel: Kernel{Image: filepath.Join(dir, "kernel")}, Console: console}
	cmd := exec.CommandContext(ctx, qemu, machine.arguments(filepath.Join(dir, "initrd"), filepath.Join(dir, "reports"))...)
	cmd.WaitDelay = 5 * time.Second
	out, runErr := cmd.CombinedOutput()
	log, err := os.ReadFile(console)
	if runErr != nil || err != nil || !strings.Contains(string(log), "image says hello from the second ramdisk, <nil>") {
		t.Fatalf("QEMU: %v, %v\n%s\n%s", runErr, err, out, log)
	}
}

// writeImage makes image.eif in dir.
func writeImage(t *testing.T, dir string, kernel Kernel) {
	t.Helper()
	source, program := filepath.Join(dir, "init.go"), filepath.Join(dir, "init")
	if err := os.WriteFile(source, []byte(initProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build init: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(kernel.Image)
	if err != nil {
		t.Fatal(err)
	}
	parts := eif.Parts{Kernel: image, CommandLine: "console=ttyS0"}
	for _, files := range []eif.Files{
		{"init": {Mode: 0o100755, Content: binary}},
		{"app/greeting": {Mode: 0o100644, Content: []byte("hello from the second ramdisk")}},
	} {
		ramdisk, err := files.Pack()
		if err != nil {
			t.Fatal(err)
		}
		parts.Ramdisks = append(parts.Ramdisks, ramdisk)
	}
	m, err := eif.New(parts)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "image.eif"), encoded, 0o600); err != nil {
		t.Fatal(err)
	}
}
