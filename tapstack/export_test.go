package tapstack

import (
	"net"
	"net/netip"
)

// What tests of the wire look at from outside.

// ARPRequest is arpRequest.
func ARPRequest(mac net.HardwareAddr, addr, target netip.Addr) []byte {
	return arpRequest(mac, addr, target)
}

// IsARPReply is isARPReply.
func IsARPReply(frame []byte, addr, target netip.Addr) bool { return isARPReply(frame, addr, target) }

// UpgradeRequest is upgradeRequest.
func UpgradeRequest(own Capabilities) string { return upgradeRequest(own) }

// UpgradeAnswer is upgradeAnswer.
func UpgradeAnswer(own Capabilities) string { return upgradeAnswer(own) }

// Wrote is wrote.
func (b *Batch) Wrote(n int) { b.wrote(n) }

// Rewind is rewind.
func (b *Batch) Rewind() { b.rewind() }
