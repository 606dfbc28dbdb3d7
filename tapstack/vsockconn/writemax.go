package vsockconn

import (
	"errors"
	"strconv"
)

// kernelWriteMax keeps one write(2) below 32 KiB: on Nitro, larger ones to
// AF_VSOCK are reported to arrive corrupted.
const kernelWriteMax = 31 << 10

// leastWriteMax keeps a wrong unit from turning every frame into many writes.
const leastWriteMax = 512

// WriteMax is the setting --vsock-write-max: the most bytes that one write to a VSOCK
// connection may have. The zero value is AutoWriteMax.
type WriteMax int

// The settings that are no number of bytes.
const (
	// AutoWriteMax limits writes where large ones are known to be a risk.
	AutoWriteMax WriteMax = 0
	// NoWriteMax does not limit them.
	NoWriteMax WriteMax = -1
)

// ParseWriteMax reads "auto", "off" or a number of bytes.
func ParseWriteMax(v string) (WriteMax, error) {
	switch v {
	case "auto":
		return AutoWriteMax, nil
	case "off":
		return NoWriteMax, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || n < leastWriteMax {
		return 0, errors.New("not auto, off, or at least " + strconv.Itoa(leastWriteMax) + " bytes")
	}
	return WriteMax(n), nil
}

// On returns the limit in bytes on the transport named vsock, "kernel" for
// AF_VSOCK; 0 is none.
func (w WriteMax) On(vsock string) int {
	switch {
	case w > 0:
		return int(w)
	case w == AutoWriteMax && vsock == "kernel":
		return kernelWriteMax
	}
	return 0
}

// Limited is the transport whose connections say that one write may have so many bytes, 0
// for any number. The kernel's alone have a limit; others are returned as they are.
func Limited(t Transport, bytes int) Transport {
	k, ok := t.(*kernel)
	if !ok {
		return t
	}
	limited := *k
	limited.writeMax = bytes
	return &limited
}
