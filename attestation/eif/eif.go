// Package eif makes and reads images for Nitro Enclaves, and computes the
// registers that an enclave started from one will have. It runs no enclave and
// judges no document (package attestation does); command attest eif is its user.
package eif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/corridor-enclave/corridor/attestation"
)

// An image is a header and its sections, one behind the other; all numbers are
// big endian (aws-nitro-enclaves-image-format, src/defs/mod.rs):
//
//	0      4         6       8                16            24          26
//	+------+---------+-------+----------------+-------------+-----------+----------+
//	| .eif | version | flags | default memory | default CPUs| 0         | sections |
//	+------+---------+-------+----------------+-------------+-----------+----------+
//	28                       284                     540    544     548
//	+------------------------+-----------------------+------+-------+
//	| 32 offsets of 8 bytes  | 32 sizes of 8 bytes   | 0    | CRC32 |   sizes without the
//	+------------------------+-----------------------+------+-------+   sections' headers
//
//	section: +------+-------+--------+-----------+
//	         | type | flags | size   | content   |
//	         +------+-------+--------+-----------+
//	           2      2       8        size
//
// The CRC is that of IEEE 802.3, over the whole file but the CRC itself.
const (
	headerSize        = 548
	sectionHeaderSize = 12
	maxSections       = 32
	crcOffset         = headerSize - 4
	magic             = ".eif"
	version           = 4
	oldestVersion     = 2 // the first with a CRC

	// MaxSize is the largest image that is read, in bytes.
	MaxSize = 2 << 30

	flagARM64 = 1
)

// A Kind says what a section is.
type Kind uint16

// The kinds of sections.
const (
	Kernel Kind = 1 + iota
	CommandLine
	Ramdisk
	Signature
	Metadata
)

// String returns the kind's name.
func (k Kind) String() string {
	names := [...]string{Kernel: "kernel", CommandLine: "command line", Ramdisk: "ramdisk", Signature: "signature", Metadata: "metadata"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", uint16(k))
	}
	return names[k]
}

// A Section is one part of an image.
type Section struct {
	Kind    Kind
	Content []byte
}

// An Image is the content of a file.
type Image struct {
	ARM64    bool   // else x86-64
	Memory   uint64 // bytes that the enclave gets where nobody says otherwise
	CPUs     uint64 // likewise
	Sections []Section
}

// ErrMalformed reports bytes that are no image, or not the one they once were.
var ErrMalformed = errors.New("no enclave image")

// Encode returns the image as a file.
func (m *Image) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("eif: encode: %w", err)
	}
	header := make([]byte, headerSize)
	copy(header, magic)
	binary.BigEndian.PutUint16(header[4:], version)
	if m.ARM64 {
		binary.BigEndian.PutUint16(header[6:], flagARM64)
	}
	binary.BigEndian.PutUint64(header[8:], m.Memory)
	binary.BigEndian.PutUint64(header[16:], m.CPUs)
	binary.BigEndian.PutUint16(header[26:], uint16(len(m.Sections)))
	size := headerSize
	for i, s := range m.Sections {
		binary.BigEndian.PutUint64(header[28+8*i:], uint64(size))
		binary.BigEndian.PutUint64(header[284+8*i:], uint64(len(s.Content)))
		size += sectionHeaderSize + len(s.Content)
	}
	b := append(make([]byte, 0, size), header...)
	for _, s := range m.Sections {
		b = binary.BigEndian.AppendUint16(b, uint16(s.Kind))
		b = binary.BigEndian.AppendUint16(b, 0)
		b = binary.BigEndian.AppendUint64(b, uint64(len(s.Content)))
		b = append(b, s.Content...)
	}
	binary.BigEndian.PutUint32(b[crcOffset:], checksum(b))
	return b, nil
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(b[:crcOffset]), crc32.IEEETable, b[headerSize:])
}

// check holds an image to what every loader takes for granted.
func (m *Image) check() error {
	count := make(map[Kind]int)
	for _, s := range m.Sections {
		count[s.Kind]++
	}
	switch {
	case len(m.Sections) > maxSections:
		return fmt.Errorf("%d sections, the limit is %d", len(m.Sections), maxSections)
	case count[Kernel] != 1 || m.Sections[0].Kind != Kernel:
		return errors.New("not one kernel, and that first")
	case count[CommandLine] != 1:
		return errors.New("not one command line")
	case count[Ramdisk] == 0:
		return errors.New("no ramdisk")
	case count[Metadata] > 1 || count[Signature] > 1:
		return errors.New("metadata or signature twice")
	}
	for kind := range count {
		if kind == 0 || kind > Metadata {
			return fmt.Errorf("there is no section of %v", kind)
		}
	}
	return nil
}

// Parse reads an image. The sections share the memory of b. Errors match
// ErrMalformed.
func Parse(b []byte) (*Image, error) {
	m, err := parse(b)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return nil, fmt.Errorf("eif: %w: %w", ErrMalformed, err)
	}
	return m, nil
}

func parse(b []byte) (*Image, error) {
	switch {
	case len(b) < headerSize:
		return nil, fmt.Errorf("%d bytes, the header alone has %d", len(b), headerSize)
	case len(b) > MaxSize:
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(b), MaxSize)
	case string(b[:4]) != magic:
		return nil, errors.New("it does not begin with .eif")
	}
	number := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	v, flags, n := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), int(binary.BigEndian.Uint16(b[26:]))
	switch {
	case v < oldestVersion || v > version:
		return nil, fmt.Errorf("version %d, known are %d to %d", v, oldestVersion, version)
	case flags&^flagARM64 != 0:
		return nil, fmt.Errorf("flags %#x are not known", flags)
	case n > maxSections:
		return nil, fmt.Errorf("%d sections, the limit is %d", n, maxSections)
	case binary.BigEndian.Uint32(b[crcOffset:]) != checksum(b):
		return nil, fmt.Errorf("CRC %08x, the content has %08x", binary.BigEndian.Uint32(b[crcOffset:]), checksum(b))
	}
	m := &Image{ARM64: flags&flagARM64 != 0, Memory: number(8), CPUs: number(16)}
	end := uint64(headerSize)
	for i := range n {
		s, err := parseSection(b, end, number(28+8*i), number(284+8*i))
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", i, err)
		}
		m.Sections = append(m.Sections, s)
		end += sectionHeaderSize + uint64(len(s.Content))
	}
	if end != uint64(len(b)) {
		return nil, fmt.Errorf("%d bytes behind the last section", uint64(len(b))-end)
	}
	return m, nil
}

// parseSection reads the section that the header says is at offset. Sections are
// where the last one ended, so no byte belongs to two or to none.
func parseSection(b []byte, end, offset, size uint64) (Section, error) {
	if offset != end {
		return Section{}, fmt.Errorf("at %d, but the one before ends at %d", offset, end)
	}
	if uint64(len(b))-end < sectionHeaderSize {
		return Section{}, errors.New("cut off in its header")
	}
	header := b[end:]
	if own := binary.BigEndian.Uint64(header[4:]); own != size {
		return Section{}, fmt.Errorf("%d bytes by its own header, %d by the image's", own, size)
	}
	if size > uint64(len(header)-sectionHeaderSize) {
		return Section{}, fmt.Errorf("%d bytes, but the image ends after %d", size, len(header)-sectionHeaderSize)
	}
	if flags := binary.BigEndian.Uint16(header[2:]); flags != 0 {
		return Section{}, fmt.Errorf("flags %#x are not known", flags)
	}
	return Section{Kind: Kind(binary.BigEndian.Uint16(header)), Content: header[sectionHeaderSize:][:size:size]}, nil
}

// Measurements returns the registers that an enclave started from the image will
// have: 0 the whole of it, 1 kernel, command line and first ramdisk, 2 the other
// ramdisks, and 8, if it is signed, its signer. Metadata is not measured, nor are
// the headers (src/utils/mod.rs of the image format).
func (m *Image) Measurements() (map[int][]byte, error) {
	var boot, app [][]byte
	ramdisks := 0
	for _, kind := range []Kind{Kernel, CommandLine, Ramdisk} {
		for _, s := range m.Sections {
			switch {
			case s.Kind != kind:
			case kind == Ramdisk && ramdisks > 0:
				app = append(app, s.Content)
			default:
				boot = append(boot, s.Content)
			}
			if s.Kind == kind && kind == Ramdisk {
				ramdisks++
			}
		}
	}
	pcrs := map[int][]byte{
		0: attestation.Measure(append(boot[:len(boot):len(boot)], app...)...),
		1: attestation.Measure(boot...),
		2: attestation.Measure(app...),
	}
	signer, err := m.Signer()
	if err != nil {
		return nil, err
	}
	if signer != nil {
		pcrs[8] = attestation.Measure(signer.Raw)
	}
	return pcrs, nil
}

// section returns the content of the only section of that kind, or nil.
func (m *Image) section(kind Kind) []byte {
	for _, s := range m.Sections {
		if s.Kind == kind {
			return s.Content
		}
	}
	return nil
}
