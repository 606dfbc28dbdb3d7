package supervise

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// maxBacklog bounds the bytes of output that wait for the log. What the logger
// has in hand comes on top, so twice this can be in memory.
const maxBacklog = 1 << 20

// lineCost is what a waiting line is taken to cost beside its text, so that a
// flood of empty lines is bounded too.
const lineCost = 64

// A backlog holds output between the app, which must never wait, and the log,
// which may be slow. When it is full the oldest lines go: the last words of an
// app that dies are the ones that are missed.
type backlog struct {
	wake chan struct{} // holds one token when there is something to take

	mu      sync.Mutex
	lines   []line
	bytes   int
	dropped uint64
	closed  bool
}

func newBacklog() *backlog { return &backlog{wake: make(chan struct{}, 1)} }

// add puts a line behind the others. It never waits for the log.
func (b *backlog) add(l line) {
	b.mu.Lock()
	b.lines = append(b.lines, l)
	b.bytes += len(l.text) + lineCost
	for b.bytes > maxBacklog {
		b.bytes -= len(b.lines[0].text) + lineCost
		b.lines[0] = line{} // the array lives on, the text need not
		b.lines = b.lines[1:]
		b.dropped++
	}
	b.mu.Unlock()
	b.signal()
}

// adder returns an add for the lines of one stream.
func (b *backlog) adder(stream string) func(text []byte, cut bool) {
	return func(text []byte, cut bool) { b.add(line{stream: stream, text: text, cut: cut}) }
}

// close says that no line will follow.
func (b *backlog) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.signal()
}

func (b *backlog) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the backlog. dropped counts the lines that went missing in front
// of the first one.
func (b *backlog) take() (lines []line, dropped uint64, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines, dropped = b.lines, b.dropped
	b.lines, b.bytes, b.dropped = nil, 0, 0
	return lines, dropped, b.closed
}

// logTo logs lines as they come, until the backlog is closed and empty. Output
// is one level for both streams: many programs write everything to stderr.
func (b *backlog) logTo(log *slog.Logger) {
	ctx := context.Background() // output belongs to no request
	for range b.wake {
		lines, dropped, closed := b.take()
		if dropped > 0 {
			log.LogAttrs(ctx, slog.LevelWarn, "app output dropped, the log is too slow", slog.Uint64("lines", dropped))
		}
		for _, l := range lines {
			attrs := []slog.Attr{slog.String("stream", l.stream), slog.String("text", strings.ToValidUTF8(string(l.text), "\uFFFD"))}
			if l.cut {
				attrs = append(attrs, slog.Bool("cut", true))
			}
			log.LogAttrs(ctx, slog.LevelInfo, "app output", attrs...)
		}
		if closed {
			return
		}
	}
}
