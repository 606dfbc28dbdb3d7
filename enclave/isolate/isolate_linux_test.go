//go:build sim && linux

package isolate_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/enclave/isolate"
	"github.com/corridor-enclave/corridor/enclave/resolvconf"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// These make the test binary a program that isolates itself.
const (
	roleEnv    = "ISOLATE_TEST_ROLE"
	marker     = "CORRIDOR_SIM_OUTSIDE"
	resolvConf = "/etc/resolv.conf"
	nobody     = 65534
)

// exits of that program
const (
	exitNotAllowed = 90 // what the machine would have to allow is on standard output
	exitFailed     = 91
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(isolated(role))
	}
	goleak.VerifyTestMain(m)
}

// A view is what the program sees inside.
type view struct {
	PID, UID   int
	Namespace  string
	Interfaces []string
	Marked     bool
	Before     string // of resolv.conf
	After      string
}

func isolated(role string) int {
	args := os.Args
	inside, code, err := isolate.Enter(isolate.Options{Args: args, Environ: os.Environ(), ResolvConf: resolvConf})
	if err != nil {
		fmt.Println(err)
		if strings.Contains(err.Error(), "user namespaces") {
			return exitNotAllowed
		}
		return exitFailed
	}
	if !inside {
		return code
	}
	if role == "wait" {
		stop := make(chan os.Signal, 2)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println("ready", os.Getpid())
		<-stop
		return 5
	}
	if role == "die" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if err := json.NewEncoder(os.Stdout).Encode(look()); err != nil {
		return exitFailed
	}
	return 7
}

func look() view {
	v := view{PID: os.Getpid(), UID: os.Getuid()}
	v.Namespace, _ = os.Readlink("/proc/self/ns/net")
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		v.Interfaces = append(v.Interfaces, i.Name)
	}
	_, v.Marked = os.LookupEnv(marker)
	before, _ := os.ReadFile(resolvConf)
	err := resolvconf.Write(resolvConf, resolvconf.Config{Nameservers: []netip.Addr{netip.MustParseAddr("192.168.127.1")}})
	after, _ := os.ReadFile(resolvConf)
	v.Before, v.After = string(before), string(after)
	if err != nil {
		v.After = err.Error()
	}
	return v
}

// command is the test binary in a role, as a user. The binary is reached through
// /proc: the folder that go test builds it in is closed to others.
func command(role string, uid int, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "an argument")
	cmd.Env = append(append(os.Environ(), env...), roleEnv+"="+role)
	if uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return cmd
}

// users are those that a test can be: itself, and if it is root, nobody.
func users() map[string]int {
	if os.Getuid() != 0 {
		return map[string]int{"this user": os.Getuid()}
	}
	return map[string]int{"root": 0, "not root": nobody}
}

// allowed skips the test if the machine does not let this user isolate itself.
func allowed(t *testing.T, cmd *exec.Cmd, err error, out []byte) {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != exitNotAllowed {
		return
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	tapstacktest.Require(t, err, "user or network namespaces as uid "+strconv.Itoa(uidOf(cmd)), "run as root, or sysctl user.max_user_namespaces=10000")
}

func uidOf(cmd *exec.Cmd) int {
	if cmd.SysProcAttr == nil {
		return os.Getuid()
	}
	return int(cmd.SysProcAttr.Credential.Uid)
}

func TestInsideIsAloneAndTheMachineIsUntouched(t *testing.T) {
	t.Parallel()
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			machine, err := os.ReadFile(resolvConf)
			tapstacktest.Require(t, err, resolvConf, "create it")
			cmd := command("look", uid)
			out, err := cmd.Output()
			allowed(t, cmd, err, out)
			var v view
			if jsonErr := json.Unmarshal(out, &v); jsonErr != nil || cmd.ProcessState.ExitCode() != 7 {
				t.Fatalf("%v, %s; want status 7 and a view", err, out)
			}
			if v.Namespace == here || v.UID != 0 || v.Marked {
				t.Errorf("%+v: want root in another namespace than %s, without the marker", v, here)
			}
			if fmt.Sprint(v.Interfaces) != "[lo]" {
				t.Errorf("inside there is %v; want lo alone", v.Interfaces)
			}
			if v.Before != string(machine) || v.After != "nameserver 192.168.127.1\n" {
				t.Errorf("resolv.conf inside was %q, is %q", v.Before, v.After)
			}
			if now, err := os.ReadFile(resolvConf); err != nil || !bytes.Equal(now, machine) {
				t.Errorf("the machine's resolv.conf was %q, is %q (%v)", machine, now, err)
			}
			if uid == 0 && v.PID != cmd.Process.Pid {
				t.Errorf("root's process %d became %d", cmd.Process.Pid, v.PID)
			}
		})
	}
}

// start starts a program that waits inside, and returns when it is ready.
func start(t *testing.T, uid int) (cmd *exec.Cmd, out *bufio.Reader, inner int) {
	t.Helper()
	cmd = command("wait", uid)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	out = bufio.NewReader(pipe)
	line, err := out.ReadString('\n')
	pid, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ready {
		allowed(t, cmd, cmd.Wait(), []byte(line))
		t.Fatalf("%q, %v; want ready", line, err)
	}
	if inner, err = strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	return cmd, out, inner
}

func TestSignalsAndExitCodesGoThrough(t *testing.T) {
	t.Parallel()
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, _, _ := start(t, uid)
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
				t.Errorf("ended with %v; want the status 5 from inside", err)
			}
		})
	}
}

func TestInsideDiesWithOutside(t *testing.T) {
	t.Parallel()
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, out, inner := start(t, uid)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			// The end of the output is the end of everybody who holds it.
			if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
				t.Errorf("process %d said %q, %v", inner, rest, err)
			}
		})
	}
}

func TestDeathInsideIsReported(t *testing.T) {
	t.Parallel()
	uid := nobody
	if os.Getuid() != 0 {
		uid = os.Getuid()
	}
	cmd := command("die", uid)
	out, err := cmd.Output()
	allowed(t, cmd, err, out)
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("status %d; want 137", code)
	}
}

func TestForgedMarkerDoesNotSkipIsolation(t *testing.T) {
	t.Parallel()
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	up := false
	interfaces, err := net.Interfaces()
	for _, i := range interfaces {
		up = up || i.Flags&net.FlagUp != 0
	}
	if err != nil || !up {
		tapstacktest.Require(t, errors.Join(err, errors.New("no interface is up")), "an interface that is up", "ip link set lo up")
	}
	for _, forged := range []string{here, "net:[1]", ""} {
		cmd := command("look", os.Getuid(), marker+"="+forged)
		out, _ := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(string(out), "unset it") {
			t.Errorf("%s=%q: status %d, %q; want a refusal", marker, forged, code, out)
		}
	}
}
