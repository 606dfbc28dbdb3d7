package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/corridor-enclave/corridor/bench/impair"
	"github.com/corridor-enclave/corridor/tapstack/settings"
)

func runImpair(ctx context.Context, args, environ []string, stdout io.Writer) error {
	s := settings.New("bench impair")
	from := settings.Var(s, "listen", "", "`address` to accept on, tcp:HOST:PORT or unix:PATH", parseListen)
	to := settings.Var(s, "dial", "", "`address` to connect to for each connection, likewise", parseListen)
	frames := settings.Bool(s, "frames", "the connections carry link frames, which can be lost; else bytes, which cannot")
	line := settings.Var(s, "line", "", "what both directions suffer: `delay=20ms,jitter=2ms,rate=10Mbit,queue=64KiB`, and of frames also loss=0.1%,duplicate=1%,reorder=1%", impair.Parse)
	uplink := settings.Var(s, "uplink", "", "likewise, from who connected to who was `dialled` alone", impair.Parse)
	downlink := settings.Var(s, "downlink", "", "likewise, back to who `connected` alone", impair.Parse)
	seed := settings.Var(s, "seed", "1", "`number` that decides all chance", parseSeed)
	if done, err := load(s, args, environ, stdout); done {
		return err
	}
	o := impair.Options{Frames: *frames, Uplink: *line, Downlink: *line, Seed: *seed}
	if s.IsSet("uplink") {
		o.Uplink = *uplink
	}
	if s.IsSet("downlink") {
		o.Downlink = *downlink
	}
	if *from == nil || *to == nil {
		return usageError{errors.New("--listen and --dial: both are needed")}
	}
	if err := o.Check(); err != nil {
		return usageError{err}
	}
	l, err := net.Listen((*from).Network(), (*from).String())
	if err != nil {
		return fmt.Errorf("bench impair: %w", err)
	}
	fmt.Fprintf(stdout, "{\"msg\":\"listening\",\"addr\":%q}\n", l.Addr())
	return (&impairing{to: *to, options: o, out: stdout}).serve(ctx, l)
}

// An impairing relays every connection that a listener accepts.
type impairing struct {
	to      net.Addr
	options impair.Options

	mu  sync.Mutex
	out io.Writer
}

// serve accepts until ctx ends, and returns when all relays have.
func (i *impairing) serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer l.Close()
	var relays sync.WaitGroup
	defer relays.Wait()
	for number := uint64(0); ; number++ {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("bench impair: %w", err)
		}
		relays.Go(func() { i.relay(ctx, conn, number) })
	}
}

// relay prints one line when the connection has ended.
func (i *impairing) relay(ctx context.Context, conn net.Conn, number uint64) {
	o := i.options
	o.Number = number
	var d net.Dialer
	other, err := d.DialContext(ctx, i.to.Network(), i.to.String())
	var result impair.Result
	if err != nil {
		err = errors.Join(err, conn.Close())
	} else {
		result, err = impair.Relay(ctx, conn, other, o)
	}
	ended := "whole"
	if err != nil {
		ended = err.Error()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	fmt.Fprintf(i.out, "{\"msg\":\"ended\",\"connection\":%d,\"how\":%q,\"uplink\":%q,\"downlink\":%q}\n",
		number, ended, counted(result.Uplink), counted(result.Downlink))
}

func counted(c impair.Counts) string {
	return fmt.Sprintf("%d packets, %d bytes, %d lost, %d overflowed, %d duplicated, %d reordered",
		c.Packets, c.Bytes, c.Lost, c.Overflowed, c.Duplicated, c.Reordered)
}
