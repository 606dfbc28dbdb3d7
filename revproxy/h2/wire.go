package h2

import (
	"encoding/binary"
	"fmt"
)

const (
	headSize = 9 // of a frame (RFC 9113 section 4.1)
	// frameSize is the longest payload that every peer takes, and that we take.
	frameSize = 16 << 10
	preface   = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// The types of frames (RFC 9113 section 6).
const (
	typeData = iota
	typeHeaders
	typePriority
	typeReset
	typeSettings
	typePushPromise
	typePing
	typeGoAway
	typeWindowUpdate
	typeContinuation
)

// Flags of frames.
const (
	flagAck        = 0x1 // of SETTINGS and PING
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 section 6.5.2, RFC 9218 section 2.1).
const (
	settingHeaderTableSize   = 1
	settingEnablePush        = 2
	settingMaxStreams        = 3
	settingInitialWindow     = 4
	settingMaxFrameSize      = 5
	settingMaxHeaderListSize = 6
	settingNoPriorities      = 9
)

// A code says why a stream or connection ends (RFC 9113 section 7).
type code uint32

const (
	codeNo          code = 0x0
	codeProtocol    code = 0x1
	codeInternal    code = 0x2
	codeFlow        code = 0x3
	codeClosed      code = 0x5
	codeFrameSize   code = 0x6
	codeRefused     code = 0x7
	codeCompression code = 0x9
	codeCalm        code = 0xb
)

// A streamError ends a stream.
type streamError struct {
	id    uint32
	code  code
	cause error // nil: the code says it
}

func (e streamError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("h2: stream reset: %v", e.cause)
	}
	return fmt.Sprintf("h2: stream reset: code %d", e.code)
}

func (e streamError) Unwrap() error { return e.cause }

// A connError ends the connection.
type connError code

func (e connError) Error() string { return fmt.Sprintf("h2: connection error: code %d", e) }

// A frameHead is the head of a frame.
type frameHead struct {
	size  int
	kind  uint8
	flags uint8
	id    uint32
}

func (h frameHead) has(flag uint8) bool { return h.flags&flag != 0 }

func parseHead(b []byte) frameHead {
	return frameHead{
		size: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind: b[3], flags: b[4], id: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
}

// unpad takes the padding off a payload (RFC 9113 section 6.1).
func (h frameHead) unpad(p []byte) ([]byte, error) {
	if !h.has(flagPadded) {
		return p, nil
	}
	if len(p) == 0 {
		return nil, connError(codeFrameSize)
	}
	n := int(p[0])
	if p = p[1:]; n > len(p) {
		return nil, connError(codeProtocol)
	}
	return p[:len(p)-n], nil
}

// check finds what is wrong with a frame by its head alone: its length, and whether
// it belongs to a stream. Streams of clients have odd numbers.
func (h frameHead) check() error {
	of, exact := true, -1
	switch h.kind {
	case typePriority:
		if h.size != 5 && h.id != 0 {
			return streamError{id: h.id, code: codeFrameSize}
		}
	case typeReset:
		exact = 4
	case typeSettings:
		of = false
		if h.has(flagAck) {
			exact = 0
		} else if h.size%6 != 0 {
			return connError(codeFrameSize)
		}
	case typePing:
		of, exact = false, 8
	case typeGoAway:
		of = false
		if h.size < 8 {
			return connError(codeFrameSize)
		}
	case typeWindowUpdate:
		of, exact = h.id != 0, 4
	case typeData, typeHeaders, typeContinuation, typePushPromise:
	default:
		of = h.id != 0
	}
	switch {
	case of != (h.id != 0):
		return connError(codeProtocol)
	case exact >= 0 && h.size != exact:
		return connError(codeFrameSize)
	}
	return nil
}

// appendHead appends the head of a frame with size bytes of payload.
func appendHead(b []byte, size int, kind, flags uint8, id uint32) []byte {
	b = append(b, byte(size>>16), byte(size>>8), byte(size), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

// A setting is one of SETTINGS.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(b []byte, settings ...setting) []byte {
	b = appendHead(b, 6*len(settings), typeSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}

func appendWindowUpdate(b []byte, id, more uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, typeWindowUpdate, 0, id), more)
}

func appendReset(b []byte, id uint32, c code) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, typeReset, 0, id), uint32(c))
}

func appendGoAway(b []byte, last uint32, c code) []byte {
	b = binary.BigEndian.AppendUint32(appendHead(b, 8, typeGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

func appendPing(b []byte, flags uint8, data []byte) []byte {
	return append(appendHead(b, 8, typePing, flags, 0), data...)
}

// appendBlock appends a header block, in as many frames as it takes.
func appendBlock(b, block []byte, id uint32, end bool) []byte {
	kind, flags := uint8(typeHeaders), uint8(0)
	if end {
		flags = flagEndStream
	}
	for {
		n := min(len(block), frameSize)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b = append(appendHead(b, n, kind, flags, id), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		kind, flags = typeContinuation, 0
	}
}
