package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/corridor-enclave/corridor/tapstack"
)

// question is what a DHCP client sends: RFC 2131, section 4.4.1.
func question(kind byte, options ...byte) []byte {
	b := make([]byte, dhcpOptions)
	copy(b, []byte{1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 7, 0x80, 0})
	copy(b[dhcpMAC:], []byte{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee})
	binary.BigEndian.PutUint32(b[dhcpCookie:], dhcpMagic)
	b = append(b, options...)
	return append(b, optionType, 1, kind, optionEnd)
}

func TestDHCPIgnores(t *testing.T) {
	t.Parallel()
	change := func(at int, v byte) []byte {
		b := question(dhcpDiscover)
		b[at] = v
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":                    nil,
		"a header cut off":           question(dhcpDiscover)[:dhcpOptions-1],
		"no options":                 question(dhcpDiscover)[:dhcpOptions],
		"a reply":                    change(0, dhcpReply),
		"another link layer":         change(1, 6),
		"another address length":     change(2, 16),
		"no magic cookie":            change(dhcpCookie, 0),
		"a release":                  question(7),
		"an offer":                   question(dhcpOffer),
		"an option without a length": append(question(dhcpDiscover)[:dhcpOptions], 12),
		"an option that is cut off":  append(question(dhcpDiscover)[:dhcpOptions], 12, 200, 1),
		"a type of two bytes":        append(question(dhcpDiscover)[:dhcpOptions], optionType, 2, 1, 1, optionEnd),
		"a type behind the end":      append(question(dhcpDiscover)[:dhcpOptions], optionEnd, optionType, 1, 1),
	} {
		if reply, _, err := answerDHCP(b, 1500); !errors.Is(err, errDHCP) {
			t.Errorf("%s: answered by % x, %v; want errDHCP", name, reply, err)
		}
	}
}

func TestDHCPAnswers(t *testing.T) {
	t.Parallel()
	gateway, enclave := tapstack.GatewayAddr().As4(), tapstack.EnclaveAddr().As4()
	for kind, answer := range map[byte]byte{dhcpDiscover: dhcpOffer, dhcpRequest: dhcpACK} {
		q := question(kind, optionPad, 12, 2, 'v', 'm')
		reply, mac, err := answerDHCP(q, 1400)
		if err != nil {
			t.Fatal(err)
		}
		if mac.String() != "5a:94:ef:e4:0c:ee" {
			t.Errorf("the client is %s", mac)
		}
		if reply[0] != dhcpReply || !bytes.Equal(reply[4:12], q[4:12]) || !bytes.Equal(reply[16:20], enclave[:]) || !bytes.Equal(reply[28:44], q[28:44]) {
			t.Errorf("header of the answer: % x", reply[:44])
		}
		want := []byte{optionType, 1, answer, optionServer, 4}
		want = append(append(append(want, gateway[:]...), optionRouter, 4), gateway[:]...)
		want = append(append(want, optionDNS, 4), gateway[:]...)
		want = append(want, optionMask, 4, 255, 255, 255, 0, optionLease, 4, 0, 0, 0x0e, 0x10, optionMTU, 2, 0x05, 0x78, optionEnd)
		if !bytes.HasPrefix(reply[dhcpOptions:], want) {
			t.Errorf("options of the answer:\n got % x\nwant % x", reply[dhcpOptions:], want)
		}
		if len(reply) != dhcpSmallest {
			t.Errorf("the answer has %d bytes, want %d", len(reply), dhcpSmallest)
		}
	}
}

func FuzzDHCP(f *testing.F) {
	f.Add(question(dhcpDiscover, 12, 3, 'a', 'b', 'c'))
	f.Add(question(dhcpRequest))
	f.Add([]byte{1, 1, 6})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		reply, mac, err := answerDHCP(b, 1500)
		if !bytes.Equal(b, before) {
			t.Fatal("the question was changed")
		}
		if err != nil {
			return
		}
		if !bytes.Equal(reply[4:8], b[4:8]) || !bytes.Equal(mac, b[dhcpMAC:dhcpMAC+6]) {
			t.Fatalf("the answer is for somebody else: % x", reply[:44])
		}
		if kind, err := dhcpKind(append([]byte{1}, reply[1:]...)); err != nil || (kind != dhcpOffer && kind != dhcpACK) {
			t.Fatalf("the answer's options: type %d, %v", kind, err)
		}
	})
}
