package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/corridor-enclave/corridor/bench/openloop"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
	"github.com/corridor-enclave/corridor/tapstack/settings"
	"github.com/corridor-enclave/corridor/tapstack/simvsock"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// maxBody bounds the body of a request that bench sends: it is kept in memory.
const maxBody = 64 << 20

// A targetSettings is where and how to send requests, as flags.
type targetSettings struct {
	url      string
	via      *func(context.Context) (net.Conn, error)
	http2    *bool
	streams  *int
	fresh    *bool
	resume   *bool
	insecure *bool
	body     *int64
	timeout  *time.Duration
}

// declareTarget declares the settings of a target and takes its URL, the last
// argument, off args.
func declareTarget(s *settings.Set, args []string) (*targetSettings, []string) {
	t := &targetSettings{
		via:      settings.Var(s, "via", "", "connect to this `address` instead of the URL's: tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, or dir:PATH:CID:PORT", parseVia),
		http2:    settings.Bool(s, "http2", "speak HTTP/2, over http without asking"),
		streams:  settings.Var(s, "streams", "1", "`number` of requests that share a connection of HTTP/2 at a time", strconv.Atoi),
		fresh:    settings.Bool(s, "fresh", "a new connection for each request"),
		resume:   settings.Bool(s, "resume", "resume TLS sessions on new connections"),
		insecure: settings.Bool(s, "insecure", "accept any certificate"),
		body:     settings.Var(s, "body", "0", "send a body of so many `bytes` by POST; 0 sends none, by GET", parseBody),
		timeout:  settings.Var(s, "timeout", "30s", "how `long` one request may take", parsePositive),
	}
	if n := len(args); n > 0 && strings.Contains(args[n-1], "://") {
		t.url, args = args[n-1], args[:n-1]
	}
	return t, args
}

// target returns what the settings say, once they are loaded.
func (t *targetSettings) target() (openloop.Target, error) {
	if t.url == "" {
		return openloop.Target{}, usageError{errors.New("no URL: it is the last argument")}
	}
	target := openloop.Target{URL: t.url, Dial: *t.via, HTTP2: *t.http2, Streams: *t.streams, Fresh: *t.fresh, Timeout: *t.timeout}
	if *t.body > 0 {
		target.Body = make([]byte, *t.body)
		// The pattern is endless.
		_, _ = io.ReadFull(sampleapp.Pattern(*t.body), target.Body)
	}
	target.TLS = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: *t.insecure} // of a measurement, on request
	if *t.resume {
		target.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	return target, nil
}

func parsePositive(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err == nil && d <= 0 {
		err = errors.New("not above zero")
	}
	return d, err
}

func parseBody(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > maxBody {
		return 0, fmt.Errorf("not a number from 0 to %d", maxBody)
	}
	return n, nil
}

// parseVia returns what opens connections to an address.
func parseVia(v string) (func(context.Context) (net.Conn, error), error) {
	network, rest, _ := strings.Cut(v, ":")
	switch {
	case rest == "":
	case network == "tcp" || network == "unix":
		return func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, rest)
		}, nil
	case network == "vsock":
		return viaVSOCK("kernel", rest)
	case network == "dir":
		if colon := strings.LastIndexByte(rest, ':'); colon > 0 {
			if colon = strings.LastIndexByte(rest[:colon], ':'); colon > 0 {
				return viaVSOCK("dir:"+rest[:colon], rest[colon+1:])
			}
		}
	}
	return nil, errors.New("none of tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, dir:PATH:CID:PORT")
}

// viaVSOCK connects as the parent does.
func viaVSOCK(transport, endpoint string) (func(context.Context) (net.Conn, error), error) {
	cid, port, _ := strings.Cut(endpoint, ":")
	c, err := strconv.ParseUint(cid, 10, 32)
	p, portErr := strconv.ParseUint(port, 10, 32)
	if err = errors.Join(err, portErr); err != nil {
		return nil, fmt.Errorf("%q is not CID:PORT", endpoint)
	}
	vsock, err := simvsock.Parse(transport, vsockconn.CIDParent)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		return vsock.Dial(ctx, vsockconn.Addr{CID: vsockconn.CID(c), Port: uint32(p)})
	}, nil
}

func runLoad(ctx context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench load")
	where, args := declareTarget(s, args)
	arrivals := openloop.Arrivals{}
	rate := settings.Var(s, "rate", "", "`requests` a second that start whatever becomes of them; without, each connection waits for its answers (a closed loop)", parseRate)
	process := settings.Var(s, "arrivals", string(openloop.Uniform), "how they are spread: `uniform, poisson or burst`", openloop.ParseProcess)
	group := settings.Var(s, "burst", "10", "`requests` of one burst", strconv.Atoi)
	seed := settings.Var(s, "seed", "1", "`number` that decides poisson arrivals", parseSeed)
	connections := settings.Var(s, "connections", "64", "`number` of connections", strconv.Atoi)
	duration := settings.Var(s, "duration", "10s", "how `long` to measure", parsePositive)
	warmup := settings.Var(s, "warmup", "1s", "how `long` to load before, uncounted", time.ParseDuration)
	patience := settings.Var(s, "patience", "2s", "how `long` requests that are due may wait for a connection at the end", time.ParseDuration)
	asJSON := settings.Bool(s, "json", "print the result as one sample of a report (bench/report/SCHEMA.md)")
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	target, err := where.target()
	if err != nil {
		return err
	}
	if *rate > 0 {
		arrivals = openloop.Arrivals{Process: *process, Rate: *rate, Seed: *seed}
		if *process == openloop.Burst {
			arrivals.Group = *group
		}
	}
	result, err := openloop.Run(ctx, target, openloop.Load{
		Arrivals: arrivals, Connections: *connections, Warmup: *warmup, Duration: *duration, Patience: *patience, Sleep: openloop.PreciseSleep,
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return errors.Join(json.NewEncoder(stdout).Encode(result.Sample(time.Now())), result.Clean())
	}
	return errors.Join(printLoad(stdout, result), result.Clean())
}

func parseRate(v string) (float64, error) {
	r, err := strconv.ParseFloat(v, 64)
	if err == nil && !(r > 0) {
		err = errors.New("not above zero")
	}
	return r, err
}

func parseSeed(v string) (uint64, error) { return strconv.ParseUint(v, 10, 64) }

func printLoad(w io.Writer, r *openloop.Result) error {
	fmt.Fprintf(w, "%.1f/s answered with 2xx in %v: %d sent, %d OK, %d failed, %d never sent; %d bytes of bodies\n\n",
		r.Rate(), r.Elapsed.Round(time.Millisecond), r.Sent, r.OK, r.Sent-r.OK, r.Unsent, r.Bytes)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "µs\tp50\tp90\tp99\tp99.9\tmax\t\n")
	for _, row := range []struct {
		name string
		h    *openloop.Histogram
	}{
		{"latency, from when it should have started", r.Latency},
		{"service, from its first byte", r.Service},
		{"refused, from its first byte to an answer that is no 2xx", r.Refused},
		{"late, this generator's own error", r.Late},
	} {
		summary := openloop.Summarise(row.h)
		if summary == nil {
			continue
		}
		fmt.Fprintf(table, "%s\t", row.name)
		for _, q := range summary.Quantiles {
			fmt.Fprintf(table, "%.0f\t", q.Micros)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}
