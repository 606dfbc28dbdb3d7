package telemetry

import (
	"context"
	"log/slog"

	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

// Tee returns a logger that writes to log, and in the mode Logs tells the host the
// lines of level Info and above as well. It is for parts whose lines hold nothing
// of the app's or of a client's.
func (r *Reporter) Tee(log *slog.Logger) *slog.Logger {
	if r == nil || r.cfg.Mode < Logs {
		return log
	}
	return slog.New(&tee{Handler: log.Handler(), reporter: r})
}

// A tee is a handler that passes lines on and tells them.
type tee struct {
	slog.Handler
	reporter *Reporter
	group    string           // of attributes to come, with a dot behind it
	attrs    []telemetry.Attr // of lines to come
}

// Handle writes the line, then tells it.
func (t *tee) Handle(ctx context.Context, r slog.Record) error {
	err := t.Handler.Handle(ctx, r)
	if r.Level < slog.LevelInfo {
		return err
	}
	l := telemetry.Log{Level: r.Level, At: r.Time, Message: r.Message, Attrs: t.attrs[:len(t.attrs):len(t.attrs)]}
	r.Attrs(func(a slog.Attr) bool {
		l.Attrs = flatten(l.Attrs, t.group, a)
		return len(l.Attrs) < telemetry.MaxAttrs
	})
	t.reporter.waiting.add(l.Append(nil), true)
	return err
}

// WithAttrs returns a handler whose lines have the attributes as well.
func (t *tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	u := *t
	u.Handler = t.Handler.WithAttrs(attrs)
	u.attrs = t.attrs[:len(t.attrs):len(t.attrs)]
	for _, a := range attrs {
		u.attrs = flatten(u.attrs, t.group, a)
	}
	return &u
}

// WithGroup returns a handler that puts the name in front of attributes to come.
func (t *tee) WithGroup(name string) slog.Handler {
	if name == "" {
		return t
	}
	u := *t
	u.Handler = t.Handler.WithGroup(name)
	u.group = t.group + name + "."
	return &u
}

// flatten appends an attribute as text, those of a group one by one.
func flatten(dst []telemetry.Attr, group string, a slog.Attr) []telemetry.Attr {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		if a.Key == "" {
			return dst
		}
		return append(dst, telemetry.Attr{Key: group + a.Key, Value: v.String()})
	}
	if a.Key != "" {
		group += a.Key + "."
	}
	for _, inner := range v.Group() {
		dst = flatten(dst, group, inner)
	}
	return dst
}
