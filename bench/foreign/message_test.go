package foreign_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// readMessage reads a message behind its length.
func readMessage(in io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 1<<20 {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(in, message)
	return message, err
}

func writeMessage(out io.Writer, message []byte) error {
	_, err := out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}

// A field is one of a Protocol Buffers message, as far as the suite uses them.
type field struct {
	number uint64
	value  uint64 // of a varint
	raw    []byte // with its tag
}

type fields []field

func fieldsOf(message []byte) (all fields, err error) {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return nil, errors.New("no tag")
		}
		value, m := binary.Uvarint(message[n:])
		if m <= 0 {
			return nil, errors.New("no value")
		}
		end := n + m
		switch tag & 7 {
		case 0: // a varint
		case 2: // bytes, behind their length
			if value > uint64(len(message)-end) {
				return nil, errors.New("a value that is cut short")
			}
			end += int(value)
		default:
			return nil, fmt.Errorf("wire type %d", tag&7)
		}
		all = append(all, field{tag >> 3, value, message[:end]})
		message = message[end:]
	}
	return all, nil
}

// number is the value of a varint field, 0 where it is missing.
func (all fields) number(which uint64) uint64 {
	for _, f := range all {
		if f.number == which {
			return f.value
		}
	}
	return 0
}

// without is the message less some fields.
func (all fields) without(which ...uint64) []byte {
	var message []byte
next:
	for _, f := range all {
		for _, w := range which {
			if f.number == w {
				continue next
			}
		}
		message = append(message, f.raw...)
	}
	return message
}

// announce tells the suite where to find the front: a ServerCompatResponse.
func announce(out io.Writer, f *front, useTLS bool) error {
	var port uint64
	if _, err := fmt.Sscan(f.port(), &port); err != nil {
		return err
	}
	message := appendBytes(nil, 1, []byte(fqdn))
	message = binary.AppendUvarint(append(message, 2<<3), port)
	if useTLS {
		pem, err := f.certificate(context.Background())
		if err != nil {
			return err
		}
		message = appendBytes(message, 3, pem)
	}
	return writeMessage(out, message)
}

func appendBytes(message []byte, number byte, value []byte) []byte {
	message = binary.AppendUvarint(append(message, number<<3|2), uint64(len(value)))
	return append(message, value...)
}
