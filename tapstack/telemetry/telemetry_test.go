package telemetry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

func at() time.Time { return time.UnixMilli(1786000000123) }

// stream is an opening with what is behind it.
func stream(behind ...byte) []byte { return append(telemetry.AppendOpening(nil), behind...) }

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	event := tapstacktest.Vector(t, "../testdata/telemetry-event.hex")
	for _, tt := range []struct {
		name string
		in   []byte
		err  error
	}{
		{"nothing", nil, io.EOF},
		{"half an opening", event[:4], io.ErrUnexpectedEOF},
		{"a request", []byte("GET / HTTP/1.1\r\n\r\n"), telemetry.ErrOpening},
		{"version 2", tapstacktest.Vector(t, "../testdata/telemetry-version2.hex"), telemetry.ErrOpening},
		{"no record", stream(), io.EOF},
		{"half a head", stream(2, 0), io.ErrUnexpectedEOF},
		{"half a body", event[:len(event)-1], io.ErrUnexpectedEOF},
		{"no body", stream(2, 0, 1), io.ErrUnexpectedEOF},
		{"too long", tapstacktest.Vector(t, "../testdata/telemetry-oversized.hex"), telemetry.ErrRecord},
		{"a text beyond its record", tapstacktest.Vector(t, "../testdata/telemetry-overrun.hex"), telemetry.ErrRecord},
		{"a short event", stream(append([]byte{2, 0, 17}, make([]byte, 17)...)...), telemetry.ErrRecord},
		{"a long event", stream(append([]byte{2, 0, 19}, make([]byte, 19)...)...), telemetry.ErrRecord},
		{"half a metric", stream(append([]byte{3, 0, 17}, make([]byte, 17)...)...), telemetry.ErrRecord},
		{"33 attributes", stream(append([]byte{1, 0, 144, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 33}, make([]byte, 132)...)...), telemetry.ErrRecord},
		{"an attribute too few", stream(1, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), telemetry.ErrRecord},
	} {
		if got, err := telemetry.NewReader(bytes.NewReader(tt.in)).Next(); !errors.Is(err, tt.err) || got != nil {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.err)
		}
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for name, rec := range map[string]interface{ Append([]byte) []byte }{
		"event": telemetry.Event{Code: telemetry.AppEnded, At: at(), Value: 137},
		"log": telemetry.Log{Level: slog.LevelWarn, At: at(), Message: "link is down", Attrs: []telemetry.Attr{
			{Key: "part", Value: "link"}, {Key: "error", Value: "EOF"},
		}},
		"metrics": telemetry.Snapshot{At: at(), Values: []telemetry.Value{
			{Metric: telemetry.Goroutines, Value: 42}, {Metric: telemetry.ProxyRequests, Value: 7}, {Metric: 999, Value: 1},
		}},
		"link": telemetry.Snapshot{At: at(), Values: []telemetry.Value{
			{Metric: telemetry.LinkLanes, Value: 2}, {Metric: telemetry.LinkDropOffload, Value: 3}, {Metric: telemetry.LinkLossClosed, Value: 1},
			{Metric: telemetry.LaneUplink + 7, Value: 9}, {Metric: telemetry.LinkGatheredBytes, Value: 5}, {Metric: telemetry.LinkGatheredBytes + 10, Value: 640},
		}},
	} {
		vector := tapstacktest.Vector(t, "../testdata/telemetry-"+name+".hex")
		if got := rec.Append(stream()); !bytes.Equal(got, vector) {
			t.Errorf("%s: wrote % x, want % x", name, got, vector)
		}
		r := telemetry.NewReader(bytes.NewReader(vector))
		if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, rec) {
			t.Errorf("%s: read %+v, %v; want %+v", name, got, err, rec)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: behind it %v, want io.EOF", name, err)
		}
	}
}

// TestUnknownKindIsPassedOver: a newer enclave may say more.
func TestUnknownKindIsPassedOver(t *testing.T) {
	t.Parallel()
	in := telemetry.Event{Code: telemetry.Serving, At: at()}.Append(stream(200, 0, 3, 1, 2, 3))
	if got, err := telemetry.NewReader(bytes.NewReader(in)).Next(); err != nil || got != (telemetry.Event{Code: telemetry.Serving, At: at()}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLogIsCut: whatever a line holds, it becomes a record that can be read.
func TestLogIsCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3000)
	many := make([]telemetry.Attr, 40)
	for i := range many {
		many[i] = telemetry.Attr{Key: fmt.Sprint(i), Value: "v"}
	}
	for _, tt := range []struct {
		name           string
		in             telemetry.Log
		message, attrs int
	}{
		{"a long message", telemetry.Log{Message: long + long, Attrs: many[:1]}, 4096 - 12, 0},
		{"many attributes", telemetry.Log{Message: "m", Attrs: many}, 1, telemetry.MaxAttrs},
		{"long values", telemetry.Log{Attrs: []telemetry.Attr{{Key: "a", Value: long}, {Key: "b", Value: long}, {Key: "c", Value: long}}}, 0, 2},
		{"a long key", telemetry.Log{Attrs: []telemetry.Attr{{Key: long + long}}}, 0, 0},
		{"a level beyond all", telemetry.Log{Level: 1000}, 0, 0},
	} {
		tt.in.At = at()
		got, err := telemetry.NewReader(bytes.NewReader(tt.in.Append(stream()))).Next()
		l, ok := got.(telemetry.Log)
		if err != nil || !ok || len(l.Message) != tt.message || len(l.Attrs) != tt.attrs {
			t.Errorf("%s: message of %d, %d attributes, %v; want %d and %d", tt.name, len(l.Message), len(l.Attrs), err, tt.message, tt.attrs)
		}
	}
	values := make([]telemetry.Value, 1000)
	got, err := telemetry.NewReader(bytes.NewReader(telemetry.Snapshot{At: at(), Values: values}.Append(stream()))).Next()
	if s, ok := got.(telemetry.Snapshot); err != nil || !ok || len(s.Values) != 408 {
		t.Errorf("of 1000 values: %d, %v", len(s.Values), err)
	}
}

// TestMetricsAreDocumented holds the table of WIRE.md to the code, and numbers
// apart.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	wire, err := os.ReadFile("../WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint16]bool{}
	for _, m := range telemetry.Metrics() {
		if seen[m.Number] {
			t.Errorf("number %d is used twice", m.Number)
		}
		seen[m.Number] = true
		name := m.Name
		for _, l := range m.Labels {
			name += fmt.Sprintf("{%s=%q}", l.Name, l.Value)
		}
		kind := "gauge"
		if m.Counter {
			kind = "counter"
		}
		if row := fmt.Sprintf("\n| %d | `%s` | %s", m.Number, name, kind); !bytes.Contains(wire, []byte(row)) {
			t.Errorf("WIRE.md lacks %q", row)
		}
	}
	known := telemetry.Known()
	for _, h := range telemetry.Histograms() {
		for n := h.First; n <= h.First+uint16(len(h.Empty.Counts)); n++ {
			if seen[n] || !known[n] {
				t.Errorf("number %d is used twice, or not known", n)
			}
			seen[n] = true
		}
		if row := fmt.Sprintf("\n| %d to %d | `%s` | histogram", h.First, h.First+uint16(len(h.Empty.Counts)), h.Name); !bytes.Contains(wire, []byte(row)) {
			t.Errorf("WIRE.md lacks %q", row)
		}
	}
	if len(known) != len(seen) {
		t.Errorf("%d numbers are known, and %d in the table", len(known), len(seen))
	}
	for c := telemetry.Serving; c <= telemetry.Reporting; c++ {
		if c.String() == "unknown" || !bytes.Contains(wire, fmt.Appendf(nil, "\n| %d | ", c)) {
			t.Errorf("event %d has no name or no row in WIRE.md", c)
		}
	}
}

func TestHistogramComesBack(t *testing.T) {
	t.Parallel()
	h := exposition.NewDurations()
	h.ObserveDuration(time.Millisecond)
	h.ObserveDuration(time.Minute)
	values := map[uint16]uint64{}
	if _, ok := telemetry.RequestTimes().Of(values); ok {
		t.Error("a histogram was found in nothing")
	}
	for _, v := range telemetry.AppendHistogram(nil, telemetry.RequestTime, h.Snapshot()) {
		values[v.Metric] = v.Value
	}
	if got, ok := telemetry.RequestTimes().Of(values); !ok || !reflect.DeepEqual(got, h.Snapshot()) {
		t.Errorf("%+v, want %+v", got, h.Snapshot())
	}
}

// FuzzReader: whatever is read becomes the same again when it is written and read
// once more.
func FuzzReader(f *testing.F) {
	for _, name := range []string{"event", "log", "metrics", "link", "oversized", "overrun", "version2"} {
		f.Add(tapstacktest.Vector(f, "../testdata/telemetry-"+name+".hex"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := telemetry.NewReader(bytes.NewReader(in))
		for {
			rec, err := r.Next()
			if err != nil {
				return // rejecting is fine, crashing is not
			}
			again, err := telemetry.NewReader(bytes.NewReader(rec.(interface{ Append([]byte) []byte }).Append(stream()))).Next()
			if err != nil || !reflect.DeepEqual(again, rec) {
				t.Fatalf("%+v became %+v, %v", rec, again, err)
			}
		}
	})
}
