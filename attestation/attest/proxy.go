package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/client"
	"github.com/corridor-enclave/corridor/attestation/findings"
)

const (
	defaultListen = "127.0.0.1:8480"
	// Limits of the proxy's own clients, which are programs of this machine.
	proxyHeaderTimeout = 10 * time.Second
	proxyIdleTimeout   = 2 * time.Minute
	proxyStopTimeout   = 5 * time.Second
)

// proxy forwards plain HTTP of this machine to an enclave until ctx ends. It
// verifies the enclave first, and ends with the code of verify if that fails.
func (c command) proxy(ctx context.Context, args []string) int {
	listen, listens := "", false
	o, mistakes := parseOptions(args, flag{name: "listen", set: once(&listen, &listens)})
	if !listens {
		listen = defaultListen
	}
	if addr, err := netip.ParseAddrPort(listen); err != nil || !addr.Addr().IsLoopback() {
		mistakes = append(mistakes, fmt.Errorf("--listen: %q is no address and port of loopback: what is spoken there is not encrypted", listen))
	}
	if o.target != nil && o.target.Path != "" && o.target.Path != "/" {
		mistakes = append(mistakes, fmt.Errorf("%q has a path, but requests keep theirs", o.target))
	}
	if len(mistakes) > 0 {
		return c.misused(mistakes...)
	}
	// HTTP/1.1, so that upgrades can pass.
	dialer, err := client.NewDialer(client.Config{
		Roots: o.roots, Policy: o.policy, MaxAge: o.maxAge, Protocols: []string{"http/1.1"}, Now: c.now,
	})
	if err == nil {
		err = c.firstVerify(ctx, dialer, o)
	}
	if err == nil {
		err = c.serve(ctx, listen, c.newProxy(dialer, o))
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "attest: %v\n", err)
	}
	return findings.Code(err)
}

func (c command) firstVerify(ctx context.Context, dialer *client.Dialer, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	_, err := dialer.Verify(ctx, client.Addr(o.target))
	return err
}

// newProxy returns the handler. Only names of this machine are answered, so that
// no page of the web can reach the enclave by a name of its own that it lets
// point here.
func (c command) newProxy(dialer *client.Dialer, o options) http.Handler {
	forward := &httputil.ReverseProxy{
		Transport: client.NewTransport(dialer),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(o.target)
			r.Out.Host = o.target.Host
		},
		FlushInterval: -1,
		ErrorLog:      log.New(c.stderr, "attest: ", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			fmt.Fprintf(c.stderr, "attest: %v\n", err)
			var refused *attestation.Error
			if errors.As(err, &refused) {
				http.Error(w, "attest: nothing was sent: the enclave is "+refused.Verdict.Error(), http.StatusBadGateway)
				return
			}
			http.Error(w, "attest: the enclave cannot be reached", http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocal(r.Host) {
			http.Error(w, "attest: only requests to localhost or a loopback address are forwarded", http.StatusForbidden)
			return
		}
		forward.ServeHTTP(w, r)
	})
}

func isLocal(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = hostPort
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (c command) serve(ctx context.Context, listen string, h http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: proxyHeaderTimeout, IdleTimeout: proxyIdleTimeout}
	fmt.Fprintf(c.stderr, "attest: verified; forwarding http://%s\n", l.Addr())
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), proxyStopTimeout)
		defer cancel()
		err := server.Shutdown(bound)
		stopped <- errors.Join(err, server.Close())
	})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}
