package textreport

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A Progress shows how far a run is: a bar that stays in its line on a terminal,
// and lines without anything special elsewhere. It is for one goroutine.
type Progress struct {
	w     io.Writer
	live  bool
	began time.Time
	now   func() time.Time
	bar   string // as it stands in the line now
}

// NewProgress writes to w, which is live if it is a terminal.
func NewProgress(w io.Writer, live bool, now func() time.Time) *Progress {
	return &Progress{w: w, live: live, began: now(), now: now}
}

// Terminal reports whether w is one that understands how to go back in a line.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// Note writes a line, above the bar if there is one.
func (p *Progress) Note(text string) {
	p.clear()
	fmt.Fprintln(p.w, "bench:", strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    "))
	if p.bar != "" && p.live {
		fmt.Fprint(p.w, p.bar)
	}
}

// Step shows the share that is done, what is left by the time that it took so far,
// and what is measured now. Without a next there is nothing left to say.
func (p *Progress) Step(n, total int, next string) {
	p.clear()
	p.bar = ""
	if next == "" || total == 0 {
		return
	}
	left := "?"
	if elapsed := p.now().Sub(p.began); n > 0 {
		left = (elapsed / time.Duration(n) * time.Duration(total-n)).Round(time.Second).String()
	}
	if !p.live {
		fmt.Fprintf(p.w, "bench: %d of %d, %s left: %s\n", n, total, left, next)
		return
	}
	const width = 24
	full := width * n / total
	p.bar = fmt.Sprintf("[%s%s] %d/%d  %s left  %s", strings.Repeat("=", full), strings.Repeat(" ", width-full), n, total, left, next)
	fmt.Fprint(p.w, p.bar)
}

// clear wipes the bar (ECMA-48: carriage return, erase in line).
func (p *Progress) clear() {
	if p.live && p.bar != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
