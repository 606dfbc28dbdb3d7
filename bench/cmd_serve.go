package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/corridor-enclave/corridor/bench/servers"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

// runServe runs one of the servers that measurements compare with.
func runServe(ctx context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench serve")
	text := func(v string) (string, error) { return v, nil }
	kind := settings.Var(s, "kind", string(servers.Null), fmt.Sprintf("which `server`: %v", servers.Kinds()), parseServer)
	listen := settings.Var(s, "listen", "tcp:127.0.0.1:0", "`address` to serve on, tcp:HOST:PORT, unix:PATH or vsock:PORT", parseServed)
	to := settings.Var(s, "to", "", "`address` to pass on to, HOST:PORT or a unix socket's path", text)
	cert := settings.Var(s, "cert", "", "`file` with a certificate and its key: serve TLS", text)
	metrics := settings.Var(s, "metrics", "", "unix `socket` to tell Prometheus on what this process takes", text)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stdout, nil))
	server, err := servers.New(*kind, *to, log)
	if err != nil {
		return usageError{err}
	}
	stop, err := exposition.ServeProcess(*metrics)
	if err != nil {
		return fmt.Errorf("bench: tell allocations: %w", err)
	}
	defer stop()
	l, err := listenOn(*listen)
	if err != nil {
		return fmt.Errorf("bench serve: %w", err)
	}
	log.Info("listening", "addr", l.Addr().String())
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *cert)
		if err != nil {
			return errors.Join(fmt.Errorf("bench serve: %w", err), l.Close())
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
	}
	return server.Run(ctx, l)
}

func parseServer(v string) (servers.Kind, error) {
	if !slices.Contains(servers.Kinds(), servers.Kind(v)) {
		return "", fmt.Errorf("not one of %v", servers.Kinds())
	}
	return servers.Kind(v), nil
}
