package stream

import (
	"errors"
	"fmt"
	"io"
)

// MaxReason is what is kept of a Reply's text, in bytes.
const MaxReason = 255

// ErrReply reports bytes that are no Reply. The stream must be closed.
var ErrReply = errors.New("stream: not a reply")

// A Status is how a Call ended.
type Status byte

// The statuses. A number beyond them is a failure that this version has no name
// for.
const (
	Connected     Status = iota // the stream is the connection from here on
	Denied                      // the host's policy refuses the destination; it will again
	NoSuchName                  // the name does not exist, or has no address
	NoResolver                  // no resolver answered; it may be tried again
	Refused                     // nothing listens at the destination
	Unreachable                 // there is no way to the destination
	TooSlow                     // it was not connected within the patience
	Crowded                     // the host has no room; it may be tried again
	Misunderstood               // the record was no Call that the host knows
	Failed                      // something else
)

// String names the status for people and for labels of metrics.
func (s Status) String() string {
	names := [...]string{"connected", "denied", "no such name", "no resolver", "refused", "unreachable", "too slow", "crowded", "misunderstood", "failed"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status %d", byte(s))
}

// A Reply is what the host says to a Call. On the wire:
//
//	 0    1        2   3      3+n
//	+----+--------+---+------+
//	| 1  | status | n | text |
//	+----+--------+---+------+
//	  └ version
//
// Behind Connected come the destination's own bytes, behind any other status the
// end of the stream.
type Reply struct {
	Status Status
	Reason string // for people: why not, or the address that was connected to
}

// The fixed part of a Reply.
const (
	replyVersion = 1
	replyHead    = 3
)

// Append appends the record to dst. The text is cut at MaxReason.
func (r Reply) Append(dst []byte) []byte {
	text := r.Reason[:min(len(r.Reason), MaxReason)]
	return append(append(dst, replyVersion, byte(r.Status), byte(len(text))), text...)
}

// ReadReply reads one Reply from r, and not a byte behind it. The text is fit to
// be logged: what does not print is replaced. The error is io.EOF if the stream
// ended before its first byte, ErrReply if the bytes are wrong,
// io.ErrUnexpectedEOF if they end, or r's own.
func ReadReply(r io.Reader) (Reply, error) {
	head := make([]byte, replyHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return Reply{}, err
	}
	if head[0] != replyVersion {
		return Reply{}, fmt.Errorf("%w: version %d, known is %d", ErrReply, head[0], replyVersion)
	}
	text := make([]byte, head[2])
	if _, err := io.ReadFull(r, text); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Reply{}, err
	}
	return Reply{Status: Status(head[1]), Reason: printable(text)}, nil
}

// printable replaces what is no printable ASCII, byte by byte.
func printable(text []byte) string {
	for i, b := range text {
		if b < ' ' || b > '~' {
			text[i] = '?'
		}
	}
	return string(text)
}
