package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
)

// A DHCP message is (RFC 2131, section 2)
//
//	 0    op    1 request, 2 reply          28  chaddr  hardware address, 16 bytes
//	 1    htype 1 Ethernet                  44  sname, file: 192 bytes, unused here
//	 2    hlen  6                          236  magic cookie 63 82 53 63
//	 3    hops                             240  options: code, length, value ...; 255 ends
//	 4    xid   echoed
//	 8    secs, flags (echoed)
//	12    ciaddr, yiaddr, siaddr, giaddr: 4 bytes each
const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	dhcpReply   = 2
	dhcpYourIP  = 16
	dhcpGateway = 24
	dhcpMAC     = 28
	dhcpCookie  = 236
	dhcpOptions = 240
	// dhcpSmallest is the size that old clients expect at least (RFC 1542,
	// section 2.1).
	dhcpSmallest = 300
	dhcpLargest  = 1500

	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpACK      = 5

	optionMask      = 1
	optionRouter    = 3
	optionDNS       = 6
	optionMTU       = 26
	optionLease     = 51
	optionType      = 53
	optionServer    = 54
	optionEnd       = 255
	optionPad       = 0
	dhcpMagic       = 0x63825363
	dhcpLeaseLength = time.Hour
)

// errDHCP reports bytes that are no DHCP question for us: ignore them.
var errDHCP = errors.New("gateway: not a DHCP question")

// A dhcpServer gives the enclave its address, whoever asks: there is one machine
// on the link. Enclaves of ours configure themselves; stock gvforwarder asks.
type dhcpServer struct {
	conn net.PacketConn
	mtu  int

	mu     sync.Mutex
	leased net.HardwareAddr // nil until somebody asked
}

func newDHCPServer(s *netstack.Stack, mtu int) (*dhcpServer, error) {
	conn, err := s.ListenBroadcast(dhcpServerPort)
	if err != nil {
		return nil, err
	}
	return &dhcpServer{conn: conn, mtu: mtu}, nil
}

// run answers until close.
func (d *dhcpServer) run() {
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpClientPort}
	buf := make([]byte, dhcpLargest)
	for {
		n, _, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		reply, mac, err := answerDHCP(buf[:n], d.mtu)
		if err != nil {
			continue
		}
		d.mu.Lock()
		d.leased = mac
		d.mu.Unlock()
		// An answer that is lost is asked for again.
		_, _ = d.conn.WriteTo(reply, to)
	}
}

func (d *dhcpServer) close() { d.conn.Close() }

// leases maps addresses to hardware addresses, with the gateway's own, as
// gvproxy shows them.
func (d *dhcpServer) leases() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	leases := map[string]string{tapstack.GatewayAddr().String(): tapstack.GatewayMAC().String()}
	if d.leased != nil {
		leases[tapstack.EnclaveAddr().String()] = d.leased.String()
	}
	return leases
}

// answerDHCP returns the answer to a question, and who asked.
func answerDHCP(question []byte, mtu int) (reply []byte, mac net.HardwareAddr, err error) {
	kind, err := dhcpKind(question)
	if err != nil {
		return nil, nil, err
	}
	answer := map[byte]byte{dhcpDiscover: dhcpOffer, dhcpRequest: dhcpACK}[kind]
	if answer == 0 {
		return nil, nil, fmt.Errorf("%w: message type %d", errDHCP, kind)
	}
	reply = make([]byte, dhcpOptions, dhcpSmallest)
	copy(reply, question[:dhcpMAC+16])
	reply[0] = dhcpReply
	gateway, enclave := tapstack.GatewayAddr().As4(), tapstack.EnclaveAddr().As4()
	copy(reply[dhcpYourIP:], enclave[:])
	clear(reply[dhcpYourIP+4 : dhcpGateway]) // siaddr
	binary.BigEndian.PutUint32(reply[dhcpCookie:], dhcpMagic)
	reply = append(reply, optionType, 1, answer)
	for _, code := range []byte{optionServer, optionRouter, optionDNS} {
		reply = append(append(reply, code, 4), gateway[:]...)
	}
	reply = append(append(reply, optionMask, 4), net.CIDRMask(tapstack.Subnet().Bits(), 32)...)
	reply = binary.BigEndian.AppendUint32(append(reply, optionLease, 4), uint32(dhcpLeaseLength/time.Second))
	reply = binary.BigEndian.AppendUint16(append(reply, optionMTU, 2), uint16(mtu))
	reply = append(reply, optionEnd)
	if len(reply) < dhcpSmallest {
		reply = reply[:dhcpSmallest]
	}
	return reply, append(net.HardwareAddr(nil), question[dhcpMAC:dhcpMAC+6]...), nil
}

// dhcpKind returns the message type of a request from an Ethernet client.
func dhcpKind(b []byte) (byte, error) {
	if len(b) < dhcpOptions || b[0] != 1 || b[1] != 1 || b[2] != 6 || binary.BigEndian.Uint32(b[dhcpCookie:]) != dhcpMagic {
		return 0, errDHCP
	}
	for o := b[dhcpOptions:]; len(o) > 0 && o[0] != optionEnd; {
		if o[0] == optionPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			return 0, fmt.Errorf("%w: option %d is cut off", errDHCP, o[0])
		}
		if o[0] == optionType && o[1] == 1 {
			return o[2], nil
		}
		o = o[2+int(o[1]):]
	}
	return 0, fmt.Errorf("%w: no message type", errDHCP)
}
