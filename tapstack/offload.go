package tapstack

import (
	"encoding/binary"
)

// A virtio-net header says which work on a frame is left to its receiver
// (struct virtio_net_hdr in include/uapi/linux/virtio_net.h). All numbers are
// little-endian; the offsets count from the Ethernet header, which follows.
//
//	 0       1          2         4          6            8             10
//	+-------+----------+---------+----------+------------+-------------+
//	| flags | gso type | hdr len | gso size | csum start | csum offset | Ethernet
//	+-------+----------+---------+----------+------------+-------------+
//
// Of what it can say, the link uses this much. The transport checksum may be
// unfinished: it holds the sum of the pseudo-header alone. And a TCP segment may
// be larger than the MTU, to be cut into segments of gso size bytes.
const (
	// OffloadHeader is the length of the virtio-net header in front of a frame.
	OffloadHeader = 10

	offFlags     = 0
	offGSOType   = 1
	offHeaderLen = 2
	offGSOSize   = 4
	offCsumStart = 6
	offCsumField = 8

	flagNeedsChecksum = 1
	flagDataValid     = 2 // the sender's kernel has verified the checksum
	gsoNone           = 0
	gsoTCPv4          = 1
	gsoTCPv6          = 4

	// minSegment is the smallest gso size: what an MTU of 576 leaves behind IP
	// and TCP headers with all options. Smaller ones would turn one frame of a
	// hostile peer into thousands.
	minSegment = 576 - 40 - 40
)

// An OffloadError says what is wrong with the virtio-net header of a frame that
// a peer sent: the frame must be dropped, and the stream may go on.
type OffloadError string

// Error says which check failed.
func (e OffloadError) Error() string { return "tapstack: offload header: " + string(e) }

// The reasons, one for each check of CheckOffload.
const (
	errOffloadShort    = OffloadError("the frame is shorter than its headers")
	errOffloadFlags    = OffloadError("unknown flags")
	errOffloadGSOType  = OffloadError("unknown segmentation")
	errOffloadNoSum    = OffloadError("segmentation without an unfinished checksum")
	errOffloadProtocol = OffloadError("an unfinished checksum in neither TCP nor UDP over IP")
	errOffloadFragment = OffloadError("an unfinished checksum in a fragment")
	errOffloadLength   = OffloadError("the IP length is not that of the frame")
	errOffloadStart    = OffloadError("the checksum starts elsewhere than the transport header")
	errOffloadField    = OffloadError("the checksum is elsewhere than in the transport header")
	errOffloadFamily   = OffloadError("segmentation of another protocol than the frame's")
	errOffloadSize     = OffloadError("segments that are too small")
)

// CheckOffload makes the virtio-net header of frame, which begins with it, safe
// to hand to a kernel or a stack: every field that matters is compared with the
// frame itself, and all others are set to what they must be. A peer that is
// hostile may have written any bytes there. The error is an OffloadError.
func CheckOffload(frame []byte) error {
	if len(frame) < OffloadHeader+MinFrame {
		return errOffloadShort
	}
	header, frame := frame[:OffloadHeader], frame[OffloadHeader:]
	gso := header[offGSOType]
	switch {
	case header[offFlags]&^(flagNeedsChecksum|flagDataValid) != 0:
		return errOffloadFlags
	case gso != gsoNone && gso != gsoTCPv4 && gso != gsoTCPv6:
		return errOffloadGSOType
	case header[offFlags]&flagNeedsChecksum == 0 && gso != gsoNone:
		return errOffloadNoSum
	case header[offFlags]&flagNeedsChecksum == 0:
		clear(header)
		return nil
	}
	t, err := findTransport(frame)
	if err != nil {
		return err
	}
	size := binary.LittleEndian.Uint16(header[offGSOSize:])
	switch {
	case int(binary.LittleEndian.Uint16(header[offCsumStart:])) != t.start:
		return errOffloadStart
	case int(binary.LittleEndian.Uint16(header[offCsumField:])) != t.field:
		return errOffloadField
	case gso != gsoNone && gso != t.gsoType():
		return errOffloadFamily
	case gso != gsoNone && size < minSegment:
		return errOffloadSize
	case gso == gsoNone:
		size = 0
	}
	putOffload(header, gso, t, size)
	return nil
}

// putOffload writes the one header that says: the checksum is unfinished, and,
// unless gso is gsoNone, cut into segments of size bytes.
func putOffload(header []byte, gso byte, t transport, size uint16) {
	header[offFlags] = flagNeedsChecksum
	header[offGSOType] = gso
	binary.LittleEndian.PutUint16(header[offHeaderLen:], uint16(t.end))
	binary.LittleEndian.PutUint16(header[offGSOSize:], size)
	binary.LittleEndian.PutUint16(header[offCsumStart:], uint16(t.start))
	binary.LittleEndian.PutUint16(header[offCsumField:], uint16(t.field))
}

// FinishChecksum completes the transport checksum of frame, which begins with
// its virtio-net header, where that says it is unfinished, and says there that
// nothing is left to do but the segmentation. CheckOffload must have accepted
// the frame, or the kernel of this machine have made it.
func FinishChecksum(frame []byte) {
	header, frame := frame[:OffloadHeader], frame[OffloadHeader:]
	if header[offFlags]&flagNeedsChecksum == 0 {
		return
	}
	start := int(binary.LittleEndian.Uint16(header[offCsumStart:]))
	field := int(binary.LittleEndian.Uint16(header[offCsumField:]))
	clear(header)
	if start+field+2 > len(frame) {
		return // not ours to repair: the receiver drops it
	}
	// The field holds the sum of the pseudo-header: it is part of the sum.
	sum := finishSum(addSum(0, frame[start:]))
	if sum == 0 && field == udpChecksum {
		sum = 0xffff // zero would mean that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(frame[start+field:], sum)
}
