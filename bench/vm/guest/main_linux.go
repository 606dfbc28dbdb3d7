// Command guest is all that runs inside the test machine beside the programs
// under test: its init, the app in the enclave, and the server outside. It
// proves the corridor over a real AF_VSOCK and a real TAP device, and reports
// each step. Booting and judging is the work of package vm, from outside.
//
//	guest                  as the first process: the life of the machine
//	guest alone PATH ARGS  run a program in a network namespace of its own
//	guest app ADDRESS      the app behind the enclave's front
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/bench/vm"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case os.Getpid() == 1:
		live()
	case len(args) > 1 && args[0] == "alone":
		err = alone(args[1:])
	case len(args) == 2 && args[0] == "app":
		err = app(args[1])
	default:
		err = fmt.Errorf("guest: runs as the first process of the test machine")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// live is the life of the machine, from its first process to its end.
func live() {
	defer powerOff()
	if err := mount(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	port, err := os.OpenFile(reportPort, os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest: open the report port:", err)
		return
	}
	defer port.Close()

	r := &reporter{out: port}
	run := scenario
	if _, err := os.Stat(vm.MeasureList); err == nil {
		run = measurement
	}
	run(context.Background(), r)
	r.end()
}

// alone replaces this process by another program, in a network namespace that has
// nothing but a loopback interface that is down: an enclave's network.
func alone(argv []string) error {
	runtime.LockOSThread() // the namespace belongs to the thread that execs
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("guest: make a network namespace: %w", err)
	}
	return fmt.Errorf("guest: run %s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// app serves the sample app until the process is told to end.
func app(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("guest: app: %w", err)
	}
	server := &http.Server{Handler: sampleapp.New(), ReadHeaderTimeout: time.Minute}
	return fmt.Errorf("guest: app: %w", server.Serve(listener))
}
