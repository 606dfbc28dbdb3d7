package resolvconf_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/corridor-enclave/corridor/enclave/resolvconf"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// mountEnv makes the test binary bind the first of two files over the second and
// write the second, in a mount namespace that nobody else sees.
const mountEnv = "RESOLVCONF_TEST_MOUNT"

func TestMain(m *testing.M) {
	dir := os.Getenv(mountEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount(dir+"/source", dir+"/resolv.conf", "", syscall.MS_BIND, "")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	if err := resolvconf.Write(dir+"/resolv.conf", gateway); err != nil {
		fmt.Println(err)
		os.Exit(4)
	}
}

func TestWriteToAMountPoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"source", "resolv.conf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mountEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 3 {
		tapstacktest.Require(t, fmt.Errorf("%w %s", err, out), "a mount namespace", "run as root, or allow unprivileged user namespaces")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check(t, filepath.Join(dir, "source"), written)
	check(t, filepath.Join(dir, "resolv.conf"), old) // what the mount covered
}
