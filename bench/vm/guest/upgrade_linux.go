package main

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/bench/process"
)

// survivesUpgrade has a new host take over in the middle of a download: its sockets
// of AF_VSOCK go from one process to another. What was there is finished by the old
// process, who comes is served by the new one, and the link follows.
func (c *corridor) survivesUpgrade(ctx context.Context) (values, error) {
	before, err := c.tapBytes()
	if err != nil {
		return nil, err
	}
	c.client.CloseIdleConnections()
	download := c.background(ctx)
	if err := c.origin.reached(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	if c.heir, err = upgrade(ctx); err != nil {
		return nil, err
	}
	took := time.Since(start)
	if err := c.streamed(ctx); err != nil {
		return nil, fmt.Errorf("guest: during the upgrade: %w", err)
	}
	if err := syscall.Kill(c.host.PID(), 0); err != nil {
		return nil, fmt.Errorf("guest: the old host did not wait for the download: %w", err)
	}
	c.origin.goOn <- struct{}{}
	result := <-download
	if result.err != nil {
		return nil, fmt.Errorf("guest: a download that was there: %w", result.err)
	}
	c.client.CloseIdleConnections()
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := c.host.WaitMessage(wait, "the old process has no links any more: they come here"); err != nil {
		return nil, err
	}
	if err := c.untilAnswered(ctx); err != nil {
		return nil, err
	}
	if err := c.streamed(ctx); err != nil {
		return nil, fmt.Errorf("guest: after the upgrade: %w", err)
	}
	again, err := c.fetch(ctx, "/bytes?n=1048576", 1<<20)
	if err != nil {
		return nil, err
	}
	return values{"seconds": took.Seconds(), "process": c.heir, "download": result.values, "again": again}, c.sameTAP(before)
}

// upgrade asks for it, and returns the new process.
func upgrade(ctx context.Context) (pid int, err error) {
	ask, err := process.Start(process.Command{Name: "upgrade", Path: "/bin/host", Args: []string{"ctl", "--control", hostControl, "upgrade"}})
	if err != nil {
		return 0, err
	}
	defer ask.Kill()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = ask.Wait(ctx, func(r process.Record) bool {
		_, err := fmt.Sscanf(r.Line, "process %d has taken over", &pid)
		return err == nil
	})
	return pid, err
}

// streamed asks by the stream road, on a new connection.
func (c *corridor) streamed(ctx context.Context) error {
	status, body, err := c.getFrom(ctx, streamed, "/hello")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %q", status, body)
	}
	c.client.CloseIdleConnections()
	return err
}

// stopHeir stops the host that has taken over, and returns its exit code. Its parent
// is gone, so that it is the child of the first process, which is this one.
func (c *corridor) stopHeir() (int, error) {
	if err := syscall.Kill(c.heir, syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("guest: stop process %d: %w", c.heir, err)
	}
	select {
	case <-c.host.Done():
	case <-time.After(patience):
		return 0, fmt.Errorf("guest: process %d does not stop", c.heir)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.heir, &status, 0, nil); err != nil {
		return 0, fmt.Errorf("guest: how process %d ended: %w", c.heir, err)
	}
	return status.ExitStatus(), nil
}
