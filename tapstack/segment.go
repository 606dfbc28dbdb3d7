package tapstack

import "encoding/binary"

// Bits of the TCP flags byte that only one of the segments keeps.
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpCWR = 0x80
)

// AppendFinished appends frame, which begins with its virtio-net header, to dst
// for a peer that does none of the work that the header leaves: the checksum is
// completed, and a TCP segment for segmentation becomes as many frames as it
// takes for none to exceed maxFrame bytes. It returns the extended slice and the
// number of frames, which is 0 if the frame cannot be sent: it is longer than
// maxFrame and not to be cut. CheckOffload must accept the frame, which is
// changed. Beyond the capacity of dst it allocates nothing.
func AppendFinished(dst, frame []byte, f Framing, maxFrame int) ([]byte, int) {
	size := len(frame) - OffloadHeader
	if size < MinFrame || size > MaxFrame {
		return dst, 0
	}
	if size <= maxFrame {
		FinishChecksum(frame)
		return append(appendHeader(dst, f, size), frame[OffloadHeader:]...), 1
	}
	if frame[offGSOType] == gsoNone {
		return dst, 0
	}
	t, err := findTransport(frame[OffloadHeader:])
	if err != nil {
		return dst, 0
	}
	segment := min(int(binary.LittleEndian.Uint16(frame[offGSOSize:])), maxFrame-t.end)
	if segment <= 0 {
		return dst, 0
	}
	return appendSegments(dst, frame[OffloadHeader:], f, t, segment)
}

// appendHeader appends what precedes a finished Ethernet frame of n bytes.
func appendHeader(dst []byte, f Framing, n int) []byte {
	if f == Plain {
		return binary.LittleEndian.AppendUint16(dst, uint16(n))
	}
	var header [extendedHeader + OffloadHeader]byte
	PutExtended(header[:], n)
	return append(dst, header[:]...)
}

// appendSegments cuts the payload of a TCP segment into pieces of size bytes.
func appendSegments(dst, frame []byte, f Framing, t transport, size int) ([]byte, int) {
	headers, payload := frame[:t.end], frame[t.end:]
	count := 0
	for offset := 0; offset < len(payload); offset += size {
		piece := payload[offset:min(offset+size, len(payload))]
		dst = appendHeader(dst, f, len(headers)+len(piece))
		at := len(dst)
		dst = append(append(dst, headers...), piece...)
		last := offset+len(piece) == len(payload)
		fixSegment(dst[at:], t, offset, count, last)
		count++
	}
	return dst, count
}

// fixSegment gives the piece at offset, the count-th, its own lengths, numbers,
// flags and checksums.
func fixSegment(frame []byte, t transport, offset, count int, last bool) {
	packet, segment := frame[MinFrame:], frame[t.start:]
	addresses := packet[ipv4Source:ipv4MinHeader]
	if t.v6 {
		addresses = packet[ipv6Source:ipv6Header]
		binary.BigEndian.PutUint16(packet[ipv6PayloadLen:], uint16(len(packet)-ipv6Header))
	} else {
		header := packet[:t.start-MinFrame]
		binary.BigEndian.PutUint16(header[ipv4TotalLen:], uint16(len(packet)))
		id := binary.BigEndian.Uint16(header[ipv4Identifier:])
		binary.BigEndian.PutUint16(header[ipv4Identifier:], id+uint16(count))
		binary.BigEndian.PutUint16(header[ipv4Checksum:], 0)
		binary.BigEndian.PutUint16(header[ipv4Checksum:], finishSum(addSum(0, header)))
	}
	sequence := binary.BigEndian.Uint32(segment[tcpSequence:])
	binary.BigEndian.PutUint32(segment[tcpSequence:], sequence+uint32(offset))
	if !last {
		segment[tcpFlags] &^= tcpFIN | tcpPSH
	}
	if offset > 0 {
		segment[tcpFlags] &^= tcpCWR
	}
	binary.BigEndian.PutUint16(segment[tcpChecksum:], 0)
	sum := addSum(protocolTCP+uint64(len(segment)), addresses)
	binary.BigEndian.PutUint16(segment[tcpChecksum:], finishSum(addSum(sum, segment)))
}
