package supervise

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

type piece struct {
	text string
	cut  bool
}

func split(r io.Reader) []piece {
	var got []piece
	readLines(r, func(text []byte, cut bool) { got = append(got, piece{string(text), cut}) })
	return got
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	tests := []struct {
		name string
		in   string
		want []piece
	}{
		{name: "nothing"},
		{name: "empty line", in: "\n", want: []piece{{"", false}}},
		{name: "no newline at the end", in: "a\nb", want: []piece{{"a", false}, {"b", false}}},
		{name: "longest whole line", in: long[1:] + "\nb\n", want: []piece{{long[1:], false}, {"b", false}}},
		{name: "line too long", in: long + "y\nz\n", want: []piece{{long, true}, {"y", false}, {"z", false}}},
		{name: "cut in front of a character", in: long[1:] + "€\n", want: []piece{{long[1:], true}, {"€", false}}},
		{name: "not text", in: "\xff\x00\n", want: []piece{{"\xff\x00", false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range map[string]io.Reader{
				"at once": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)),
			} {
				got := split(r)
				if len(got) != len(tt.want) {
					t.Fatalf("%s: %d lines; want %d", name, len(got), len(tt.want))
				}
				for i := range got {
					if got[i] != tt.want[i] {
						t.Errorf("%s: line %d is %d bytes, cut %t; want %d bytes, cut %t",
							name, i, len(got[i].text), got[i].cut, len(tt.want[i].text), tt.want[i].cut)
					}
				}
			}
		})
	}
}

func FuzzReadLines(f *testing.F) {
	f.Add([]byte("a\nb"), uint16(0))
	f.Add([]byte("€uro"), uint16(maxLine-2))
	f.Fuzz(func(t *testing.T, tail []byte, padding uint16) {
		in := append(bytes.Repeat([]byte{'x'}, int(padding)), tail...)
		var out []byte
		for _, p := range split(bytes.NewReader(in)) {
			if len(p.text) > maxLine || strings.Contains(p.text, "\n") {
				t.Fatalf("a piece of %d bytes, newline in it: %t", len(p.text), strings.Contains(p.text, "\n"))
			}
			if p.cut && utf8.Valid(in) && !utf8.ValidString(p.text) {
				t.Fatalf("a character was cut: % x", p.text[len(p.text)-4:])
			}
			out = append(out, p.text...)
			if !p.cut {
				out = append(out, '\n')
			}
		}
		if !bytes.Equal(bytes.TrimSuffix(out, []byte("\n")), bytes.TrimSuffix(in, []byte("\n"))) {
			t.Fatalf("%d bytes became %d", len(in), len(out))
		}
	})
}

func TestBacklogKeepsTheLastWordsWithinItsBound(t *testing.T) {
	t.Parallel()
	b := newBacklog()
	const total = maxBacklog / lineCost * 3
	for i := range total {
		b.add(line{text: []byte{byte(i)}})
	}
	lines, dropped, _ := b.take()
	if uint64(len(lines))+dropped != total || len(lines)*(lineCost+1) > maxBacklog || len(lines) == 0 {
		t.Errorf("%d lines kept, %d dropped, of %d", len(lines), dropped, total)
	}
	last := total - 1
	if got := lines[len(lines)-1].text[0]; got != byte(last) {
		t.Errorf("the last line is %d; want %d", got, byte(last))
	}
	if lines, dropped, closed := b.take(); len(lines) != 0 || dropped != 0 || closed {
		t.Errorf("after take: %d lines, %d dropped, closed %t", len(lines), dropped, closed)
	}
}
