package hops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/corridor-enclave/corridor/bench/report"
)

// firstCID is that of the first of several enclaves.
const firstCID = 16

// StartEnclaves starts the whole way by streams with so many enclaves behind one host,
// each with a published port of its own, and one app behind them all. Connections by
// the Running's Dial go to each in turn. It returns when all have answered.
func StartEnclaves(ctx context.Context, tools Tools, number int) (*Running, error) {
	s, err := newSetup(ctx, tools)
	if err != nil {
		return nil, err
	}
	if err = s.enclaves(number); err != nil {
		return nil, errors.Join(fmt.Errorf("hops: start %d enclaves: %w", number, err), s.running.Stop())
	}
	return s.running, nil
}

func (s *Setup) enclaves(number int) error {
	hostPath, enclavePath, err := s.bothEnds()
	if err != nil {
		return err
	}
	app, err := s.app(false)
	if err != nil {
		return err
	}
	var published []string
	args := []string{"--vsock", s.vsock(), "--control", "unix:" + s.file("control.sock")}
	for i := range number {
		cid := strconv.Itoa(firstCID + i)
		if _, err := s.start(program{name: "enclave-" + cid, role: report.Subject, path: enclavePath, args: []string{
			"--cid", cid, "--link", "off", "--vsock", s.vsock(), "--fqdn", name, "--front", "vsock:" + frontStream, "--app", "http://" + app,
		}}); err != nil {
			return err
		}
		local, err := freeAddress()
		if err != nil {
			return err
		}
		published = append(published, local)
		args = append(args, "--publish", local+"=stream:"+frontStream+"@"+cid)
	}
	if _, err := s.start(program{name: "host", role: report.Subject, path: hostPath, args: args}); err != nil {
		return err
	}
	s.running.URL = "https://" + name + smallAnswer
	for _, address := range published {
		s.running.Dial = func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", address) }
		if err := s.untilAnswered(); err != nil {
			return err
		}
	}
	var next atomic.Uint64
	s.running.Dial = func(ctx context.Context) (net.Conn, error) {
		address := published[(next.Add(1)-1)%uint64(len(published))]
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	return nil
}
