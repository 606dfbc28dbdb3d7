package sidecar

import (
	"context"
	"log/slog"

	"github.com/corridor-enclave/corridor/revproxy"
)

// accessLog writes a record for each request that it is told of. There is no query
// and no field of a message in it, because they hold secrets, and whoever reads
// the log is outside.
func accessLog(log *slog.Logger) func(*revproxy.Record) {
	return func(r *revproxy.Record) {
		attrs := []slog.Attr{
			slog.String("request", r.ID), slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.Path),
			slog.String("proto", r.Proto), slog.Int("status", r.Status), slog.Int64("sent", r.Sent),
			slog.Duration("queue", r.Queue), slog.Duration("connect", r.Connect), slog.Duration("wait", r.Wait), slog.Duration("body", r.Body),
			slog.Bool("lane", r.Lane),
		}
		if r.Client.IsValid() {
			attrs = append(attrs, slog.String("client", r.Client.String()))
		}
		if r.App != "" {
			attrs = append(attrs, slog.String("app", r.App))
		}
		if r.Failed {
			attrs = append(attrs, slog.String("cause", r.Cause.String()))
		}
		if r.Broken {
			attrs = append(attrs, slog.Bool("broken", true))
		}
		log.LogAttrs(context.Background(), slog.LevelInfo, "access", attrs...)
	}
}
