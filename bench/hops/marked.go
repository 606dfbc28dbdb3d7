package hops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/corridor-enclave/corridor/bench/report"
)

// A Place is where something listens, in the terms of package net.
type Place struct{ Network, Address string }

// StartMarked starts the whole way by streams with something between all of its parts:
// put is called for each place between two of them, from the app outwards, with where
// to listen and where to pass on to. It returns where it listens.
func StartMarked(ctx context.Context, tools Tools, put func(at, to Place) (string, error)) (*Running, error) {
	s, err := newSetup(ctx, tools)
	if err != nil {
		return nil, err
	}
	if err = s.marked(put); err == nil {
		err = s.untilAnswered()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hops: start the way with marks: %w", err), s.running.Stop())
	}
	return s.running, nil
}

func (s *Setup) marked(put func(at, to Place) (string, error)) error {
	hostPath, enclavePath, err := s.bothEnds()
	if err != nil {
		return err
	}
	app, err := s.app(false)
	if err != nil {
		return err
	}
	if app, err = put(Place{"tcp", "127.0.0.1:0"}, Place{"tcp", app}); err != nil {
		return err
	}
	// The enclave has a folder of its own, so that the one that host looks into has
	// what stands between them.
	inside := s.file("inside")
	if err := os.Mkdir(inside, 0o700); err != nil {
		return fmt.Errorf("hops: %w", err)
	}
	if _, err := s.start(program{name: "enclave-sim", role: report.Subject, path: enclavePath, args: []string{
		"--link", "off", "--vsock", "dir:" + inside, "--fqdn", name, "--front", "vsock:" + frontStream, "--app", "http://" + app,
	}}); err != nil {
		return err
	}
	socket := "16_" + frontStream + ".sock"
	if _, err := put(Place{"unix", s.file(socket)}, Place{"unix", filepath.Join(inside, socket)}); err != nil {
		return err
	}
	published, err := freeAddress()
	if err != nil {
		return err
	}
	if _, err := s.start(program{name: "host", role: report.Subject, path: hostPath, args: []string{
		"--vsock", "dir:" + s.running.dir, "--control", "off", "--publish", published + "=stream:" + frontStream + "@16",
	}}); err != nil {
		return err
	}
	outside, err := put(Place{"tcp", "127.0.0.1:0"}, Place{"tcp", published})
	s.running.URL = "https://" + outside + smallAnswer
	return err
}
