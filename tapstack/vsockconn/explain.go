package vsockconn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A remedy says what an error of the kernel means on VSOCK, and what to do.
type remedy struct {
	is   []error
	text string
}

// dialRemedies returns what the kernel's errors mean when dialing; the first match
// counts.
func dialRemedies() []remedy {
	return []remedy{
		{is: []error{syscall.EAFNOSUPPORT}, text: "this kernel has no AF_VSOCK (load the vsock module and the transport of this machine)"},
		// A virtio peer refuses by RST, which connect(2) reports as a reset
		// (virtio_transport_recv_connecting).
		{is: []error{syscall.ECONNREFUSED, syscall.ECONNRESET}, text: "nobody listens there (start the other end, or check its port)"},
		{is: []error{syscall.ENODEV, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL}, text: "no VSOCK device leads to that CID (check the CID, or load the VSOCK transport of this machine)"},
		{is: []error{syscall.ETIMEDOUT, context.DeadlineExceeded, os.ErrDeadlineExceeded}, text: "no answer (the other end is not running, or the CID is not the right one)"},
		{is: []error{syscall.EACCES, syscall.EPERM}, text: "not permitted (a security policy keeps this process off AF_VSOCK)"},
	}
}

// listenRemedies is dialRemedies for listening.
func listenRemedies() []remedy {
	return []remedy{
		{is: []error{syscall.EAFNOSUPPORT}, text: "this kernel has no AF_VSOCK (load the vsock module and the transport of this machine)"},
		{is: []error{syscall.EADDRINUSE}, text: "another process listens on that port (stop it, or choose another port)"},
		{is: []error{syscall.EACCES, syscall.EPERM}, text: "not permitted (a port below 1024 needs CAP_NET_BIND_SERVICE)"},
		{is: []error{syscall.ENODEV, syscall.EADDRNOTAVAIL}, text: "this machine has no VSOCK device (load its VSOCK transport)"},
	}
}

// explain returns err with what was done, to which address, and what remedies
// know about it. The result wraps err, so that callers can test for an errno.
func explain(doing string, addr Addr, err error, remedies []remedy) error {
	for _, r := range remedies {
		for _, is := range r.is {
			if errors.Is(err, is) {
				return fmt.Errorf("vsockconn: %s %s: %s: %w", doing, addr, r.text, err)
			}
		}
	}
	return fmt.Errorf("vsockconn: %s %s: %w", doing, addr, err)
}
