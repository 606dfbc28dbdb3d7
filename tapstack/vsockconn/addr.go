// Package vsockconn is how the rest of the repository reaches VSOCK: addresses,
// the Transport interface, and the transport over the kernel's AF_VSOCK. It
// knows nothing of what is said on a connection, and simulated transports live
// in simvsock.
package vsockconn

import (
	"context"
	"net"
	"os"
	"strconv"
)

// A CID is the context identifier of a VSOCK endpoint: the machine, where a
// port is the service on it.
type CID uint32

// Well-known context identifiers (linux/vm_sockets.h, and AWS Nitro Enclaves).
const (
	// CIDLocal is loopback on one machine (VMADDR_CID_LOCAL).
	CIDLocal CID = 1
	// CIDHost is the hypervisor's host as a guest sees it (VMADDR_CID_HOST).
	CIDHost CID = 2
	// CIDParent is the parent instance as a Nitro enclave sees it.
	CIDParent CID = 3
	// CIDAny matches every CID when listening (VMADDR_CID_ANY).
	CIDAny CID = 0xffffffff
)

// String returns the CID as a decimal number, "any" for CIDAny.
func (c CID) String() string {
	if c == CIDAny {
		return "any"
	}
	return strconv.FormatUint(uint64(c), 10)
}

// An Addr is one end of a VSOCK connection. It implements net.Addr as a value.
type Addr struct {
	CID  CID
	Port uint32
}

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns the address as "vsock:CID:PORT", for example "vsock:16:1024".
func (a Addr) String() string {
	return "vsock:" + a.CID.String() + ":" + strconv.FormatUint(uint64(a.Port), 10)
}

// A Transport makes VSOCK connections. Every connection that it returns has
// CloseRead and CloseWrite methods, and an Addr as its RemoteAddr. It may be
// used by several goroutines.
type Transport interface {
	// Dial connects to an endpoint. The context bounds the attempt, not the
	// connection.
	Dial(ctx context.Context, to Addr) (net.Conn, error)
	// Listen accepts connections to port from every CID. The RemoteAddr of an
	// accepted connection carries the peer's CID.
	Listen(port uint32) (net.Listener, error)
	// String is the transport as the user names it: "kernel", "dir:/run/x".
	String() string
}

// An Adopter is a Transport whose listening sockets can go from one process to
// another: the listeners that it returns have SyscallConn.
type Adopter interface {
	Transport
	// Adopt makes of a socket that another process opened by Listen what Listen
	// returned there. It does not keep the file.
	Adopt(file *os.File, port uint32) (net.Listener, error)
}

// PeerCID returns the CID of the other end of a connection made by a Transport,
// and false if the connection is of another kind.
func PeerCID(c net.Conn) (CID, bool) {
	a, ok := c.RemoteAddr().(Addr)
	return a.CID, ok
}
