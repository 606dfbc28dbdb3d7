package eif

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxUnpacked bounds what a ramdisk may unpack to, in bytes: gzip makes a
// thousand of one.
const maxUnpacked = 4 << 30

// Unpack reads a ramdisk: archives in gzip or as they are, one behind the other,
// as the kernel takes them. Other compressions, and other kinds of entries than
// folders, files, links and devices, are errors that match ErrMalformed.
func Unpack(ramdisk []byte) (Files, error) {
	plain, err := decompress(ramdisk)
	if err == nil {
		var files Files
		if files, err = readArchives(plain); err == nil {
			return files, nil
		}
	}
	return nil, fmt.Errorf("eif: %w: ramdisk: %w", ErrMalformed, err)
}

func decompress(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1))
	if err != nil {
		return nil, err
	}
	if len(plain) > maxUnpacked {
		return nil, fmt.Errorf("unpacks to more than %d bytes", maxUnpacked)
	}
	return plain, nil
}

// readArchives reads entries until the end. A trailer ends an archive, and zeros
// may follow it; later entries replace earlier ones of the same name.
func readArchives(b []byte) (Files, error) {
	files := make(Files)
	for {
		b = bytes.TrimLeft(b, "\x00")
		if len(b) == 0 {
			return files, nil
		}
		name, file, rest, err := readEntry(b)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(files), err)
		}
		if b = rest; name != cpioTrailer {
			files[name] = file
		}
	}
}

func readEntry(b []byte) (name string, file File, rest []byte, err error) {
	if len(b) < cpioHeader || string(b[:6]) != cpioMagic {
		return "", File{}, nil, errors.New("no header of the format newc")
	}
	var fields [13]uint64
	for i := range fields {
		if fields[i], err = strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32); err != nil {
			return "", File{}, nil, fmt.Errorf("field %d: %w", i, err)
		}
	}
	size, nameSize := int(fields[6]), int(fields[11])
	contentAt := cpioHeader + nameSize
	contentAt += -contentAt & 3
	if nameSize == 0 || contentAt > len(b) || b[cpioHeader+nameSize-1] != 0 || size > len(b)-contentAt {
		return "", File{}, nil, errors.New("cut off")
	}
	name = string(b[cpioHeader : cpioHeader+nameSize-1])
	end := min(contentAt+size+(-size&3), len(b))
	return name, File{Mode: uint32(fields[1]), Content: b[contentAt:][:size:size]}, b[end:], nil
}
