package report_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/report"
)

func example() *report.Report {
	calls := int64(8)
	return &report.Report{
		Schema: report.Schema, Title: "bench proxy", Command: []string{"bench", "proxy"},
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Seconds: 9,
		Results: []report.Result{{
			Hop: "proxy", Variant: "corridor",
			Load: report.Load{Name: "16 connections", Generator: "bombardier", Kind: report.Requests, Connections: 16},
			Samples: []report.Sample{
				{
					Seconds: 2, Sent: 4, OK: 4, Values: map[report.Metric]float64{report.Rate: 2, report.CPU: 30},
					Latency: &report.Latency{
						Quantiles: []report.Quantile{{Q: 0.5, Micros: 100}, {Q: 0.99, Micros: 900}},
						Buckets:   []report.Bucket{{Micros: 100, Count: 3}, {Micros: 1000, Count: 1}},
					},
					Processes: []report.Process{{Name: "enclave-sim", Role: report.Subject, Reads: &calls}},
				},
				{Round: 1, Sent: 5, NotOK: 5, Failure: "of 5 requests 0 got 2xx"},
			},
			Summary: map[report.Metric]report.Summary{report.Rate: {N: 1, Median: 2, Low: 2, High: 2}},
		}},
		Skipped: []report.Skipped{{Hop: "proxy", Variant: "nginx", Reason: "no nginx", Remedy: "apt-get install nginx-light"}},
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	sample := func(change func(*report.Sample)) func(*report.Report) {
		return func(r *report.Report) { change(&r.Results[0].Samples[0]) }
	}
	tests := []struct {
		name   string
		change func(*report.Report)
		want   string
	}{
		{"another schema", func(r *report.Report) { r.Schema = 2 }, "schema 2"},
		{"a result twice", func(r *report.Report) { r.Results = append(r.Results, r.Results[0]) }, "twice"},
		{"an unknown metric", sample(func(s *report.Sample) { s.Values["speed"] = 1 }), "no metric"},
		{"a negative value", sample(func(s *report.Sample) { s.Values[report.Rate] = -1 }), "rate is -1"},
		{"a negative count", sample(func(s *report.Sample) { s.Errors = -1 }), "negative"},
		{"values of a failure", sample(func(s *report.Sample) { s.Failure = "reset" }), "failed and has values"},
		{"a silent zero", sample(func(s *report.Sample) { s.OK, s.Errors = 0, 4 }), "no failure is named"},
		{"counts that do not add up", sample(func(s *report.Sample) { s.Sent = 5 }), "5 sent"},
		{"falling quantiles", sample(func(s *report.Sample) { s.Latency.Quantiles[1].Micros = 1 }), "do not rise"},
		{"an empty bucket", sample(func(s *report.Sample) { s.Latency.Buckets[0].Count = 0 }), "empty"},
		{"a summary of more than there is", func(r *report.Report) {
			r.Results[0].Summary[report.Rate] = report.Summary{N: 3, Median: 2, Low: 2, High: 2}
		}, "no summary"},
		{"a median outside of its interval", func(r *report.Report) {
			r.Results[0].Summary[report.Rate] = report.Summary{N: 1, Median: 2, Low: 3, High: 4}
		}, "no summary"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := example()
			tt.change(r)
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := report.Parse(text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	for _, text := range []string{"", "{}", "[]", `{"schema":1} {}`} {
		if _, err := report.Parse([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report.json")
	if _, err := report.Read(path); err == nil {
		t.Error("read a file that is not there")
	}
	want := example()
	if err := report.Write(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := report.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if err := report.Write(filepath.Join(path, "below"), want); err == nil {
		t.Error("wrote below a file")
	}
}

// TestSchemaIsWritten: whoever reads SCHEMA.md reads all of it.
func TestSchemaIsWritten(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("SCHEMA.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	fields(reflect.TypeFor[report.Report](), names)
	if len(names) < 50 {
		t.Fatalf("found only %d fields", len(names))
	}
	for _, m := range report.Metrics() {
		names[string(m)] = true
		if m.Unit() == "" || m.Floor() <= 0 {
			t.Errorf("%s has no unit or no floor", m)
		}
	}
	for name := range names {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("SCHEMA.md does not explain %q", name)
		}
	}
	if report.Metric("speed").Unit() != "" {
		t.Error("an unknown metric has a unit")
	}
}

// fields collects the names that a type has in JSON.
func fields(of reflect.Type, names map[string]bool) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		fields(of.Elem(), names)
	case reflect.Struct:
		for i := range of.NumField() {
			if name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); name != "" {
				names[name] = true
				fields(of.Field(i).Type, names)
			}
		}
	}
}

// Whatever is read, what is accepted can be written and read again.
func FuzzParse(f *testing.F) {
	text, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := report.Parse(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := report.Parse(again); err != nil {
			t.Fatalf("accepted, then refused: %v\n%s", err, again)
		}
	})
}
