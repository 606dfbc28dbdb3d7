package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// originEntry is originAddress as the table of connections spells it, and the
// state ESTABLISHED behind it (Documentation/networking/proc_net_tcp.rst).
const originEntry = " 0A7100CB:0050 01 "

// survivesCut cuts the VSOCK stream under a download: both ends live, so the
// download must end as if nothing had happened.
func (c *corridor) survivesCut(ctx context.Context, w *wire) (values, error) {
	before, err := c.tapBytes()
	if err != nil {
		return nil, err
	}
	download := c.background(ctx)
	if err := c.origin.reached(ctx); err != nil {
		return nil, err
	}
	cut := w.cut()
	c.origin.goOn <- struct{}{}
	result := <-download
	if result.err != nil {
		return nil, fmt.Errorf("guest: after %d connections were cut: %w", cut, result.err)
	}
	if cut == 0 {
		return nil, fmt.Errorf("guest: there was no stream to cut")
	}
	if err := c.untilAnswered(ctx); err != nil {
		return nil, err
	}
	return values{"cut": cut, "download": result.values}, c.sameTAP(before)
}

// survivesHost kills the host under a download. The outer ends of the app's
// connections die with it, so they must end inside too, by what the next host
// answers to them, instead of waiting for ever. New requests work once there is a
// host again, and the TAP device is still the same one.
func (c *corridor) survivesHost(ctx context.Context) (values, error) {
	before, err := c.tapBytes()
	if err != nil {
		return nil, err
	}
	download := c.background(ctx)
	if err := c.origin.reached(ctx); err != nil {
		return nil, err
	}
	if open, err := c.openToOrigin(); err != nil || open == 0 {
		return nil, fmt.Errorf("guest: %d connections in the middle of a download, %v", open, err)
	}
	c.host.Kill()
	if err := c.startHost(ctx); err != nil {
		return nil, err
	}
	if err := c.untilAnswered(ctx); err != nil {
		return nil, err
	}
	if result := <-download; result.err == nil {
		return nil, fmt.Errorf("guest: a download over a host that was killed ended as %v", result.values)
	}
	took, err := c.forgotten(ctx)
	if err != nil {
		return nil, err
	}
	return values{"orphans ended after seconds": took.Seconds()}, c.sameTAP(before)
}

// forgotten waits until no connection inside leads to the server outside.
func (c *corridor) forgotten(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for {
		open, err := c.openToOrigin()
		if err != nil {
			return 0, err
		}
		if open == 0 {
			return time.Since(start), nil
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("guest: %d connections to a host that is gone are still open", open)
		}
	}
}

// openToOrigin counts the established connections from the enclave to the server.
func (c *corridor) openToOrigin() (int, error) {
	table, err := os.Open(fmt.Sprintf("/proc/%d/net/tcp", c.enclave.PID()))
	if err != nil {
		return 0, fmt.Errorf("guest: list connections: %w", err)
	}
	defer table.Close()
	open := 0
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if strings.Contains(lines.Text(), originEntry) {
			open++
		}
	}
	return open, lines.Err()
}

// An outcome is how a download in the background ended.
type outcome struct {
	values values
	err    error
}

func (c *corridor) background(ctx context.Context) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		v, err := c.fetch(ctx, "/gated", gatedBytes)
		done <- outcome{v, err}
	}()
	return done
}

func (c *corridor) tapBytes() (int64, error) {
	list, err := interfaces(fmt.Sprintf("/proc/%d/net/dev", c.enclave.PID()))
	return list[tapName], err
}

// sameTAP checks that the device has counted on: a new one would start from zero.
func (c *corridor) sameTAP(before int64) error {
	now, err := c.tapBytes()
	if err != nil {
		return err
	}
	if now <= before {
		return fmt.Errorf("guest: %s has counted %d bytes, and %d before: it is another device", tapName, now, before)
	}
	return nil
}
