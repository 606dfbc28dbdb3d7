package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/corridor-enclave/corridor/tapstack/telemetry"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// maxText and maxKey bound what is shown of an enclave's texts, in bytes.
	maxText = 1024
	maxKey  = 64
)

// logLine puts an enclave's line into the host's log, as a value of it: its
// message cannot pass for one of the host's, nor its attributes for the host's.
func (r *Receiver) logLine(cid vsockconn.CID, l telemetry.Log) {
	level := min(max(l.Level, slog.LevelDebug), slog.LevelError)
	said := make([]any, 0, len(l.Attrs))
	for _, a := range l.Attrs {
		said = append(said, slog.String(key(a.Key), Printable(a.Value, maxText)))
	}
	r.config.Log.Log(context.Background(), level, "enclave says", "cid", uint32(cid),
		"text", Printable(l.Message, maxText), "at", l.At.UTC().Format(time.RFC3339Nano), slog.Group("enclave", said...))
}

// Printable returns a text of at most size bytes in which everything is a
// printable character: no line ends, no escapes of terminals, nothing invisible,
// nothing that turns the direction of writing. What is not becomes U+FFFD.
func Printable(text string, size int) string {
	var b strings.Builder
	for _, c := range text {
		if !unicode.IsPrint(c) {
			c = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(c) > size {
			break
		}
		b.WriteRune(c)
	}
	return b.String()
}

// key returns the name of an attribute in an alphabet that every log tool takes.
func key(text string) string {
	text = strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
			return c
		}
		return '_'
	}, text[:min(len(text), maxKey)])
	if text == "" {
		return "_"
	}
	return text
}

const (
	// burst is how many records an enclave may send at once, and perSecond how
	// many after that.
	burst     = 1000
	perSecond = 100
)

// A pace is how fast an enclave may speak. It outlives streams, so that
// connecting again earns nothing.
type pace struct {
	mu   sync.Mutex // an old stream may overlap with a new one
	left float64
	last time.Time
}

func newPace(now time.Time) *pace { return &pace{left: burst, last: now} }

// spend takes one record's worth and says how long to wait before the next.
func (p *pace) spend(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = min(p.left+max(now.Sub(p.last), 0).Seconds()*perSecond, burst) - 1
	p.last = now
	if p.left >= 0 {
		return 0
	}
	return time.Duration(-p.left / perSecond * float64(time.Second))
}
