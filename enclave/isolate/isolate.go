//go:build sim

// Package isolate puts a simulated enclave where a real one is: in a place with
// no network but what it makes itself. It is linked by enclave-sim alone, and it
// configures nothing inside; sidecar does.
package isolate

// marker is the environment variable by which the process outside tells the one
// inside which network namespace it comes from, as the kernel names it.
const marker = "CORRIDOR_SIM_OUTSIDE"

// Options say what to isolate.
type Options struct {
	Args    []string // the command line to run again, inside; with the program's name
	Environ []string // its environment
	// ResolvConf is the file to keep from being written on the machine. Empty
	// means none.
	ResolvConf string
}

// Enter puts this process into new network and mount namespaces, and, where it
// is not root, a new user namespace in which it is. Call it first of all in main,
// before goroutines, files or sockets that should be isolated exist: the program
// is started again.
//
//	outside, root               outside, not root
//	──────────────────          ─────────────────────────────
//	unshare net, mount          clone user, net, mount ──────────► inside (a child)
//	exec self ──► inside        pass signals on, await its end
//	              (same PID)    return its exit code
//
// Inside, Enter verifies that it is, makes all mounts private, covers ResolvConf
// with a copy, and returns inside = true: go on with main. Outside, it returns
// only when the process inside has ended, with its exit code (128 + n after
// signal n), or with an error: leave with them. A process that ends outside takes
// the one inside along (PR_SET_PDEATHSIG).
//
// Inside knows itself by an environment variable with the name of the network
// namespace outside, which it removes: take os.Environ anew for the app. The
// variable is not believed as it stands: the namespace now must be another one,
// and none of its interfaces may be up, as in one that is new. Set by hand it
// leads to an error, never to running without isolation.
//
// ResolvConf is covered at the end of its symbolic links. If it does not exist it
// cannot be, and Enter fails rather than let it be created on the machine.
//
// Errors that a setting of the machine can mend say which one.
func Enter(o Options) (inside bool, exitCode int, err error) { return enter(o) }
