package revproxy

import (
	"errors"
	"net"
	"sync"
)

// Listen puts the lane behind a listener. The result gives what the lane does not
// take, and is for the lane's Server; closing it closes the listener, while
// connections in the lane go on until Shutdown or Close. A lane that is off
// returns the listener, with TLS in front if there is any.
func (l *Lane) Listen(source net.Listener) net.Listener {
	l.open()
	s := &laneListener{lane: l, source: source, errs: make(chan error), closed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources[s] = true
	l.running.Go(s.loop)
	return s
}

// A laneListener accepts for the lane, and hands on what the lane does not take.
type laneListener struct {
	lane   *Lane
	source net.Listener
	errs   chan error // of accepting, for whoever calls Accept
	once   sync.Once
	closed chan struct{}
}

// Accept returns a connection that is not the lane's, or the listener's error.
func (s *laneListener) Accept() (net.Conn, error) {
	select {
	case c := <-s.lane.handed:
		return c, nil
	case err := <-s.errs:
		return nil, err
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener. Connections in the lane go on.
func (s *laneListener) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		close(s.closed)
		err = s.source.Close()
	})
	return err
}

// Addr is the listener's.
func (s *laneListener) Addr() net.Addr { return s.source.Addr() }

// loop accepts until the listener is closed. Errors go to the server, which knows
// how long to pause.
func (s *laneListener) loop() {
	defer s.forget()
	for {
		c, err := s.source.Accept()
		switch {
		case err == nil:
			if !s.lane.adopt(c) {
				_ = c.Close()
			}
			continue
		case s.lane.draining.Load() && errors.Is(err, net.ErrClosed):
			return
		}
		select {
		case s.errs <- err:
		case <-s.closed:
			return
		case <-s.lane.ctx.Done():
			return
		}
	}
}

func (s *laneListener) forget() {
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	delete(s.lane.sources, s)
}
