// Package ping sends echo requests to machines and receives what comes back, by
// sockets that need no privilege: the kernel's ping sockets (SOCK_DGRAM with
// IPPROTO_ICMP or IPPROTO_ICMPV6), which send nothing but echo requests and receive
// nothing but what belongs to their own. It decides nothing about who may be asked.
//
// The identifier of a request is the socket's, chosen by the kernel; who has several
// requests under way tells them apart by their sequence numbers.
package ping

import (
	"errors"
	"net/netip"
)

// ErrNotPermitted reports that the kernel gives no ping sockets to this process's
// group. It stays so until its operator changes net.ipv4.ping_group_range.
var ErrNotPermitted = errors.New("ping: not permitted; net.ipv4.ping_group_range must contain a group of this process " +
	`(sysctl -w net.ipv4.ping_group_range="0 2147483647" lets all)`)

// An Answer is what came back for one request.
type Answer struct {
	Sequence uint16
	To       netip.Addr // where the request went
	// From is who answers: To, or if the request Failed, who says so; it is not valid
	// if nobody is named.
	From    netip.Addr
	Payload []byte // of the reply; valid until the next Receive
	// Failed says that the request did not arrive; Type and Code are those of the ICMP
	// message that says why.
	Failed     bool
	Type, Code byte
}

// maxMessage is the largest ICMP message in an IP packet, and longer than any that
// fits into one of IPv4.
const maxMessage = 65535

// header is what an echo message has in front of its payload.
const header = 8

// The types of echo requests (RFC 792, RFC 4443).
const (
	request4 = 8
	request6 = 128
)
