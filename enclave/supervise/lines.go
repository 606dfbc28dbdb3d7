package supervise

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// maxLine is the longest piece of output that becomes one log record. Longer
// lines are cut, because the app decides how long a line is, and memory is ours.
const maxLine = 64 << 10

// A line is one line of the app's output without its newline, or a piece of one.
type line struct {
	stream string // "stdout" or "stderr"
	text   []byte
	cut    bool // the line goes on in the next one of the same stream
}

// readLines reads r to its end and calls emit for each line, with text that
// emit may keep. It never waits for a line to end before it reads on: a line
// longer than maxLine is emitted in pieces, cut between characters where it is
// UTF-8. It returns when r fails, which for a pipe is the end of the app's
// output or its closing.
func readLines(r io.Reader, emit func(text []byte, cut bool)) {
	buf := make([]byte, maxLine)
	held := 0 // bytes of an unfinished line at the start of buf
	for {
		n, err := r.Read(buf[held:])
		held = emitLines(buf, held, held+n, emit)
		if err != nil {
			break
		}
	}
	if held > 0 {
		emit(bytes.Clone(buf[:held]), false)
	}
}

// emitLines emits the lines in buf[:end], of which buf[:seen] is known to hold
// no newline, moves what remains to the front, and returns its length, which is
// less than len(buf).
func emitLines(buf []byte, seen, end int, emit func([]byte, bool)) int {
	start := 0
	for {
		i := bytes.IndexByte(buf[seen:end], '\n')
		if i < 0 {
			break
		}
		emit(bytes.Clone(buf[start:seen+i]), false)
		seen += i + 1
		start = seen
	}
	if start == 0 && end == len(buf) {
		start = wholeRunes(buf)
		emit(bytes.Clone(buf[:start]), true)
	}
	return copy(buf, buf[start:end])
}

// wholeRunes is the length of b without a character at its end that is begun
// and not finished.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if !utf8.RuneStart(b[i]) {
			continue
		}
		if utf8.FullRune(b[i:]) || i == 0 {
			break
		}
		return i
	}
	return len(b)
}
