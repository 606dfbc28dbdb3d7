//go:build !linux

package eventloop

import (
	"errors"
	"net"
	"time"
)

// An Engine is for Linux alone.
type Engine struct{}

// Open returns errors.ErrUnsupported.
func (e *Engine) Open(int) (int, error) { return 0, errors.ErrUnsupported }

// Go reports that nothing was begun.
func (e *Engine) Go(func(*Task)) bool { return false }

// Close does nothing.
func (e *Engine) Close() {}

// Takes reports that nothing can be taken.
func Takes(net.Conn) bool { return false }

// A Loop is for Linux alone.
type Loop struct{}

// Index is 0.
func (l *Loop) Index() int { return 0 }

// A Task is for Linux alone: nobody gets one.
type Task struct{}

// Loop returns nil.
func (t *Task) Loop() *Loop { return nil }

// Now is the time.
func (t *Task) Now() time.Time { return time.Now() }

// Do calls f.
func (t *Task) Do(f func()) { f() }

// Mind does nothing.
func (t *Task) Mind(*Conn, bool) {}

// Take returns errors.ErrUnsupported.
func (t *Task) Take(net.Conn) (*Conn, error) { return nil, errors.ErrUnsupported }

// A Conn is for Linux alone: nobody gets one.
type Conn struct{ net.Conn }

// Gone reports that the connection is gone.
func (c *Conn) Gone() bool { return true }

// Wait returns errors.ErrUnsupported.
func (c *Conn) Wait() error { return errors.ErrUnsupported }

// Return returns errors.ErrUnsupported.
func (c *Conn) Return() (net.Conn, error) { return nil, errors.ErrUnsupported }
