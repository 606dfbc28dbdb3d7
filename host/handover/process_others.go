//go:build !linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// A Successor is a new process.
type Successor struct{ Process *os.Process }

// Close does nothing here.
func (s *Successor) Close() error { return nil }

// Start fails here.
func (s *Sockets) Start(context.Context, *exec.Cmd, []byte) (*Successor, error) {
	return nil, fmt.Errorf("%w: %w", ErrNotReady, errors.ErrUnsupported)
}

// A Predecessor is the process that started this one; there is none here.
type Predecessor struct {
	Sockets map[string]*os.File
	State   []byte
}

// Receive returns nothing here.
func Receive([]string) (*Predecessor, error) { return nil, nil }

// Ready fails here.
func (p *Predecessor) Ready() (<-chan struct{}, error) { return nil, errors.ErrUnsupported }
