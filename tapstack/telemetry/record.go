// Package telemetry is what an enclave tells its host about itself over VSOCK
// port 1026: records of events, of log lines and of metrics (tapstack/WIRE.md,
// section 13). It writes and reads bytes; enclave/telemetry decides what is told,
// host/telemetry what is believed.
package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Port is the VSOCK port of the host where enclaves report.
const Port = 1026

const (
	// MaxBody bounds the body of a record, in bytes.
	MaxBody = 4096
	// MaxAttrs bounds the attributes of a log line.
	MaxAttrs = 32
	// headSize is kind and length.
	headSize = 3
)

// opening is what a stream begins with: a name and the version.
const opening = "CRDRTEL\x01"

// The kinds of records, as they are on the wire.
const (
	kindLog     = 1
	kindEvent   = 2
	kindMetrics = 3
)

var (
	// ErrOpening reports a stream that begins with something else, or with
	// another version. It must be closed.
	ErrOpening = errors.New("telemetry: not a stream of telemetry")
	// ErrRecord reports a record that contradicts itself or the limits. The
	// stream must be closed.
	ErrRecord = errors.New("telemetry: malformed record")
)

// AppendOpening appends what a stream begins with.
func AppendOpening(dst []byte) []byte { return append(dst, opening...) }

// An Event is something that happened at a time. Value is what its Code says.
type Event struct {
	Code  Code
	At    time.Time
	Value uint64
}

// A Log is one line of a log, with its attributes as text.
type Log struct {
	Level   slog.Level
	At      time.Time
	Message string
	Attrs   []Attr
}

// An Attr is one attribute of a log line.
type Attr struct{ Key, Value string }

// A Snapshot is the value of metrics at a time.
type Snapshot struct {
	At     time.Time
	Values []Value
}

// A Value is that of one metric, by its number in Metrics.
type Value struct {
	Metric uint16
	Value  uint64
}

// record appends a head, lets body append the body, and completes the head. A
// body that is too long for a record is left out whole.
func record(dst []byte, kind byte, body func([]byte) []byte) []byte {
	start := len(dst)
	dst = body(append(dst, kind, 0, 0))
	n := len(dst) - start - headSize
	if n > MaxBody {
		return dst[:start]
	}
	binary.BigEndian.PutUint16(dst[start+1:], uint16(n))
	return dst
}

func appendTime(dst []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(t.UnixMilli()))
}

// Append appends the record of an event.
func (e Event) Append(dst []byte) []byte {
	return record(dst, kindEvent, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint16(appendTime(b, e.At), uint16(e.Code))
		return binary.BigEndian.AppendUint64(b, e.Value)
	})
}

// Append appends the record of a log line. Attributes beyond MaxAttrs are left
// out, then those that no longer fit; a text is cut where it would not fit.
func (l Log) Append(dst []byte) []byte {
	return record(dst, kindLog, func(b []byte) []byte {
		start := len(b)
		room := func(fixed int) int { return max(MaxBody-(len(b)-start)-fixed, 0) }
		b = append(appendTime(b, l.At), byte(int8(min(max(l.Level, -128), 127))))
		b = appendText(b, l.Message, room(3))
		count := len(b)
		b = append(b, 0)
		for _, a := range l.Attrs[:min(len(l.Attrs), MaxAttrs)] {
			if room(4) < len(a.Key) {
				break
			}
			b = appendText(b, a.Key, room(4))
			b = appendText(b, a.Value, room(2))
			b[count]++
		}
		return b
	})
}

// appendText appends a length and at most room bytes of a text.
func appendText(dst []byte, text string, room int) []byte {
	text = text[:min(len(text), room)]
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(text))), text...)
}

// Append appends the record of a snapshot. Values beyond what a record holds are
// left out.
func (s Snapshot) Append(dst []byte) []byte {
	const head, each = 8, 10
	return record(dst, kindMetrics, func(b []byte) []byte {
		b = appendTime(b, s.At)
		for _, v := range s.Values[:min(len(s.Values), (MaxBody-head)/each)] {
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(b, v.Metric), v.Value)
		}
		return b
	})
}

// A Reader reads the records of a stream. It is not safe for concurrent use.
type Reader struct {
	r      io.Reader
	opened bool
	head   [headSize]byte
	body   [MaxBody]byte
}

// NewReader returns a reader of a stream from its first byte on.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next record: an Event, a Log or a Snapshot. Records of kinds
// that are not known yet are passed over. The error is io.EOF if the stream ended
// between two records. The texts of a Log are the enclave's own bytes: whatever
// is shown of them has to be made harmless first.
func (r *Reader) Next() (any, error) {
	if err := r.open(); err != nil {
		return nil, err
	}
	for {
		if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
			return nil, err
		}
		n := int(binary.BigEndian.Uint16(r.head[1:]))
		if n > MaxBody {
			return nil, fmt.Errorf("%w: body of %d bytes", ErrRecord, n)
		}
		if _, err := io.ReadFull(r.r, r.body[:n]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		body := &fields{rest: r.body[:n]}
		var rec any
		switch r.head[0] {
		case kindLog:
			rec = readLog(body)
		case kindEvent:
			rec = Event{At: body.time(), Code: Code(body.uint16()), Value: body.uint64()}
		case kindMetrics:
			rec = readSnapshot(body)
		default:
			continue
		}
		if body.short || len(body.rest) > 0 {
			return nil, fmt.Errorf("%w: kind %d with %d bytes", ErrRecord, r.head[0], n)
		}
		return rec, nil
	}
}

func (r *Reader) open() error {
	if r.opened {
		return nil
	}
	var got [len(opening)]byte
	if _, err := io.ReadFull(r.r, got[:]); err != nil {
		return err
	}
	if string(got[:]) != opening {
		return fmt.Errorf("%w: it begins with %q", ErrOpening, got[:])
	}
	r.opened = true
	return nil
}

func readLog(b *fields) Log {
	l := Log{At: b.time(), Level: slog.Level(int8(b.uint8())), Message: b.text()}
	n := int(b.uint8())
	b.short = b.short || n > MaxAttrs
	for i := 0; i < n && !b.short; i++ {
		l.Attrs = append(l.Attrs, Attr{Key: b.text(), Value: b.text()})
	}
	return l
}

func readSnapshot(b *fields) Snapshot {
	s := Snapshot{At: b.time()}
	for len(b.rest) > 0 && !b.short {
		s.Values = append(s.Values, Value{Metric: b.uint16(), Value: b.uint64()})
	}
	return s
}

// fields takes a body apart. Once it was too short for what was asked, it stays
// so, and everything is zero.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if f.short || len(f.rest) < n {
		f.short = true
		return make([]byte, min(n, 8))
	}
	taken := f.rest[:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) uint8() byte     { return f.take(1)[0] }
func (f *fields) uint16() uint16  { return binary.BigEndian.Uint16(f.take(2)) }
func (f *fields) uint64() uint64  { return binary.BigEndian.Uint64(f.take(8)) }
func (f *fields) time() time.Time { return time.UnixMilli(int64(f.uint64())) }

func (f *fields) text() string {
	n := int(f.uint16())
	if n > len(f.rest) {
		f.short = true
		return ""
	}
	return string(f.take(n))
}
