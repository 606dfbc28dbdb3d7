package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/host/api"
	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/handover"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// upgradeTimeout is how long a new process may take until it is ready.
	upgradeTimeout = 8 * time.Second
	// flowsLook is how often the old process looks whether its links are idle.
	flowsLook = 100 * time.Millisecond
)

var errHandedOver = errors.New("a new process has taken over already")

// A legacy is what a process leaves to the next one beside its sockets.
type legacy struct {
	State running.State `json:"state"`
	// Attached are the enclaves that have a link to the old process, and will have
	// one to the new process only when that is over.
	Attached []vsockconn.CID `json:"attached"`
}

// A start is how this process came to be.
type start struct {
	program string // to start again
	args    []string
	environ []string
	sockets *handover.Sockets
	before  *handover.Predecessor // nil if there is none
	legacy  legacy                // of it
}

// newStart reads what a predecessor left.
func newStart(args, environ []string) (*start, error) {
	s := &start{args: args, sockets: handover.NewSockets(nil)}
	for _, kv := range environ {
		if !strings.HasPrefix(kv, handover.Variable+"=") {
			s.environ = append(s.environ, kv)
		}
	}
	var err error
	// Not when it is wanted: the file may be another one by then, which is the point.
	if s.program, err = os.Executable(); err != nil {
		return nil, err
	}
	if s.before, err = handover.Receive(environ); err != nil {
		return s, err
	}
	if s.before == nil {
		activated, err := handover.Activated(environ, os.Getpid())
		s.sockets = handover.NewSockets(activated)
		return s, err
	}
	s.sockets = handover.NewSockets(s.before.Sockets)
	if err := json.Unmarshal(s.before.State, &s.legacy); err != nil {
		return nil, fmt.Errorf("what the old process left: %w", err)
	}
	return s, nil
}

// resume returns the configuration that the process begins with.
func (s *start) resume(c config.Config) (config.Config, running.State, error) {
	state := running.State{Document: c.Document, File: c.File}
	if s.before == nil {
		return c, state, nil
	}
	state, err := running.Resume(s.legacy.State, state)
	if err != nil {
		return c, state, err
	}
	c, err = state.Document.Config()
	return c, state, err
}

// A handedTransport listens on sockets that the next process can have.
type handedTransport struct {
	vsockconn.Transport
	sockets *handover.Sockets
}

func (t handedTransport) Listen(port uint32) (net.Listener, error) {
	l, err := t.sockets.Listen(fmt.Sprintf("vsock:%d", port),
		func() (net.Listener, error) { return t.Transport.Listen(port) },
		func(f *os.File) (net.Listener, error) {
			a, ok := t.Transport.(vsockconn.Adopter)
			if !ok {
				return nil, fmt.Errorf("%s takes no sockets of others: %w", t.Transport, errors.ErrUnsupported)
			}
			return a.Adopt(f, port)
		})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// listenPort opens a port for clients.
func (s *start) listenPort(local string) (net.Listener, error) {
	listen := func() (net.Listener, error) { return net.Listen("tcp", local) }
	if strings.HasSuffix(local, ":0") {
		l, err := listen()
		if err != nil {
			return nil, err
		}
		local = l.Addr().String() // the next process has to find it by this
		listen = func() (net.Listener, error) { return l, nil }
	}
	l, err := s.sockets.Listen("tcp:"+local, listen, net.FileListener)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// listenControl opens the control address.
func (s *start) listenControl(control string) (net.Listener, error) {
	l, err := s.sockets.Listen("control:"+control,
		func() (net.Listener, error) { return api.Listen(control) },
		func(f *os.File) (net.Listener, error) { return api.Adopt(control, f) })
	if err != nil {
		return nil, err
	}
	return l, nil
}

// only returns the only enclave there is. While the old process still has its
// link, that is the one that it knew.
func (h *host) only(ctx context.Context) (vsockconn.CID, error) {
	select {
	case <-h.linkReady:
	default:
		if a := h.start.legacy.Attached; len(a) == 1 {
			return a[0], nil
		}
	}
	return h.gateway.Only(ctx)
}

// takeOver tells the old process, if there is one, that this one accepts, and
// waits until its links may come here.
func (h *host) takeOver(ctx context.Context) error {
	defer close(h.linkReady)
	if h.start.before == nil {
		notify("READY=1")
		return nil
	}
	gone, err := h.start.before.Ready()
	if err != nil {
		return err
	}
	h.start.sockets.Settle()
	h.log.Info("taken over from the old process", "revision", h.running.State().Revision())
	select {
	case <-gone:
	case <-ctx.Done():
		if h.handedOver() {
			<-gone // the next process is told of links only when none has any
		}
	}
	select {
	case <-gone:
		h.log.Info("the old process has no links any more: they come here")
	default: // this one ends too
	}
	return nil
}

// handedOver reports whether another process goes on for this one.
func (h *host) handedOver() bool {
	h.upgrading.Lock()
	defer h.upgrading.Unlock()
	return h.successor != nil
}

// upgrade starts a new process and hands everything over to it. This one ends
// once its connections have. If the new one does not take over, nothing changes.
func (h *host) upgrade(ctx context.Context) (pid int, err error) {
	h.upgrading.Lock()
	defer h.upgrading.Unlock()
	if h.successor != nil {
		return 0, errHandedOver
	}
	defer func() {
		if err != nil {
			h.log.Error("upgrade failed: this process goes on", "err", err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	left := legacy{State: h.running.Close()}
	select {
	case <-h.linkReady:
	default:
		left.Attached = h.start.legacy.Attached // to the process before this one
	}
	for _, e := range h.gateway.Enclaves() {
		if e.Attached {
			left.Attached = append(left.Attached, e.CID)
		}
	}
	state, err := json.Marshal(left)
	if err == nil {
		cmd := exec.Command(h.start.program, h.start.args...) // #nosec G204 -- this very program
		cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{}, h.start.environ...), os.Stdout, os.Stderr
		h.successor, err = h.start.sockets.Start(ctx, cmd, state)
	}
	if err != nil {
		h.running.Open()
		return 0, err
	}
	h.start.sockets.Retire()
	pid = h.successor.Process.Pid
	notify(fmt.Sprintf("MAINPID=%d", pid))
	h.log.Info("handed over to a new process", "process", pid)
	h.stop()
	return pid, nil
}

// publish carries clients until ctx ends and they have gone, then closes the links
// when nothing is to be waited for on them, and returns when the calls have ended.
func (h *host) publish(ctx context.Context, closeLink func()) error {
	stopped := make(chan time.Time, 1)
	defer context.AfterFunc(ctx, func() { stopped <- time.Now() })()
	if err := h.publisher.Run(ctx); err != nil {
		return err
	}
	c, err := h.running.State().Document.Config()
	if err != nil {
		return err // cannot be: it is in force
	}
	patience, cancel := context.WithDeadline(context.WithoutCancel(ctx), (<-stopped).Add(c.DrainTimeout))
	defer cancel()
	var calls sync.WaitGroup
	defer calls.Wait()
	if h.calls != nil {
		calls.Go(func() { h.calls.Drain(patience) })
	}
	h.awaitFlows(patience, c)
	closeLink()
	return nil
}

// awaitFlows waits, after a handover, until the enclaves' own connections by the
// link have ended, or ctx has. Clients of the link road cannot wait as long: with
// such ports the links move at once.
func (h *host) awaitFlows(ctx context.Context, c config.Config) {
	if !h.handedOver() || slices.ContainsFunc(c.Publish, func(p publish.Port) bool { return p.Road == publish.Link }) {
		return
	}
	look := time.NewTicker(flowsLook)
	defer look.Stop()
	for ctx.Err() == nil && h.flows() > 0 {
		<-look.C
	}
}

// flows counts the connections that enclaves have outside by their links.
func (h *host) flows() (n int64) {
	for _, e := range h.gateway.Enclaves() {
		n += e.Flows.TCP.Open
	}
	return n
}

// leaveLinks tells the next process, if there is one, that links come there from now
// on: there are none here, nor in a process before this one.
func (h *host) leaveLinks() {
	<-h.linkReady
	h.upgrading.Lock()
	defer h.upgrading.Unlock()
	if h.successor != nil {
		h.successor.Close()
	}
}

// answerUpgrade is POST /v1/upgrade.
func (h *host) answerUpgrade(w http.ResponseWriter, r *http.Request) {
	h.log.Info("upgrade wanted", "by", running.By(r))
	// A client that goes away does not stop it half way.
	pid, err := h.upgrade(context.WithoutCancel(r.Context()))
	w.Header().Set("Content-Type", "application/json")
	answer := any(map[string]int{"process": pid})
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		answer = running.Answer{Mistakes: []string{err.Error()}}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		h.log.Debug("API client did not take its answer", "err", err)
	}
}
