package eventloop

import (
	"container/heap"
	"iter"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// eventsAtOnce is how many sockets a loop asks the kernel for at a time.
const eventsAtOnce = 256

// An Engine is some loops, which run from Open to Close.
type Engine struct {
	running sync.WaitGroup

	mu    sync.Mutex
	loops []*Loop
}

// A Loop polls the sockets of its tasks, and runs one task at a time:
//
//	      ┌─ what came, who was called, whose time is over ─┐
//	      ▼                                                 │
//	run each task until it waits again ──► none left ──► poll: look, then leave
//	                                                     the waiting to the runtime
//
// Polling is edge-triggered, and asks for room to write only while somebody waits
// for it: a unix socket reports every read of its peer.
type Loop struct {
	index int
	tasks atomic.Int64
	poll  int // epoll(7)
	wake  int // eventfd(2), to end a wait
	rest  *rest

	events  [eventsAtOnce]unix.EpollEvent
	looked  time.Time // when the kernel last told of events
	current *Task     // which runs
	ready   []*Task   // which gave way, and want no more than another turn
	timers  timers

	mu    sync.Mutex
	conns []*Conn // by descriptor
	born  int32   // generations of conns
	calls []call
	told  bool // the wait was ended, and nobody has looked why
	over  bool // Close was called
}

// A call is a word from another goroutine: a task's Do is over, or a connection was
// closed, or a task is new.
type call struct {
	task *Task
	conn *Conn
}

// Open makes n loops; 0 stands for as many as goroutines can run at once: a core
// that others leave free serves whoever waits, and one that rests costs nothing. It
// returns how many there are, also if they were made before.
func (e *Engine) Open(n int) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for len(e.loops) < n {
		l, err := newLoop(len(e.loops))
		if err != nil {
			e.end()
			return 0, err
		}
		e.loops = append(e.loops, l)
		e.running.Go(l.run)
	}
	return len(e.loops), nil
}

// Go runs f as a task on the loop with the fewest. It reports whether there is one.
func (e *Engine) Go(f func(*Task)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	var least *Loop
	for _, l := range e.loops {
		if least == nil || l.tasks.Load() < least.tasks.Load() {
			least = l
		}
	}
	if least != nil {
		least.begin(f)
	}
	return least != nil
}

// begin makes a task, which the loop runs as soon as it comes to it.
func (l *Loop) begin(f func(*Task)) {
	l.tasks.Add(1)
	t := &Task{loop: l}
	t.timer = timer{task: t, index: -1}
	t.resume, _ = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		f(t)
	})
	l.call(call{task: t})
}

// Close ends the loops when their last tasks have ended, which is the caller's to
// see to, and returns then.
func (e *Engine) Close() {
	e.mu.Lock()
	e.end()
	e.mu.Unlock()
	e.running.Wait()
}

func (e *Engine) end() {
	for _, l := range e.loops {
		l.mu.Lock()
		l.over = true
		l.tell()
		l.mu.Unlock()
	}
	e.loops = nil
}

func newLoop(index int) (*Loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(wake)})
	}
	l := &Loop{index: index, poll: poll, wake: wake}
	if err == nil {
		l.rest, err = newRest(poll)
	}
	if err != nil {
		l.close()
		return nil, os.NewSyscallError("eventfd, epoll_create1 or epoll_ctl", err)
	}
	return l, nil
}

func (l *Loop) close() {
	unix.Close(l.poll)
	unix.Close(l.wake)
	if l.rest != nil {
		l.rest.close()
	}
}

// Index tells the engine's loops apart, from 0.
func (l *Loop) Index() int { return l.index }

// run runs until the engine is closed and the last task has ended.
func (l *Loop) run() {
	defer l.close()
	for !l.ended() {
		n := l.wait()
		l.looked = time.Now()
		for _, event := range l.events[:n] {
			l.happened(event)
		}
		l.answer()
		l.expire()
		l.goOn()
	}
}

// goOn gives those another turn who gave way.
func (l *Loop) goOn() {
	again := l.ready
	l.ready = nil
	for _, t := range again {
		l.step(t)
	}
}

func (l *Loop) ended() bool {
	if l.tasks.Load() > 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over && l.tasks.Load() == 0
}

// step runs a task until it waits again, or ends.
func (l *Loop) step(t *Task) {
	l.current = t
	t.spent = 0
	_, goesOn := t.resume()
	l.current = nil
	if !goesOn {
		l.timers.remove(&t.timer)
		l.tasks.Add(-1)
	}
}

// happened gives way to whoever waits for what the kernel reports.
func (l *Loop) happened(event unix.EpollEvent) {
	if event.Fd == int32(l.wake) {
		return // answer looks
	}
	l.mu.Lock()
	c := l.conns[event.Fd]
	l.mu.Unlock()
	if c == nil || c.born != event.Pad {
		return // closed since
	}
	c.happened(event.Events)
	if t := c.waiter; t != nil && c.state&c.wanted != 0 {
		l.step(t)
	}
}

// call has the loop do something.
func (l *Loop) call(c call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, c)
	l.tell()
}

// tell ends a wait of the loop; the caller holds the lock, so that the loop does not
// close the descriptor meanwhile.
func (l *Loop) tell() {
	if !l.told {
		l.told = true
		one := [8]byte{1}
		_, _ = unix.Write(l.wake, one[:]) // fails only if it has been told 2^64 times
	}
}

// answer does what the calls were about.
func (l *Loop) answer() {
	l.mu.Lock()
	calls := l.calls
	l.calls, l.told = nil, false
	l.mu.Unlock()
	for _, c := range calls {
		switch {
		case c.task != nil:
			l.step(c.task)
		case c.conn != nil && c.conn.waiter != nil:
			l.step(c.conn.waiter)
		}
	}
}

// expire resumes tasks whose time was over when the loop looked. What is due since is
// so in the next round.
func (l *Loop) expire() {
	now := l.looked
	for len(l.timers) > 0 && !l.timers[0].at.After(now) {
		t := l.timers[0].task
		switch {
		case t.until.IsZero(): // it waits for something else now
			l.timers.remove(&t.timer)
		case t.until.After(now):
			l.timers.set(&t.timer, t.until)
		default:
			l.timers.remove(&t.timer)
			t.late = true
			l.step(t)
		}
	}
}

// wait returns how many events there are; zero if something else is to be done.
func (l *Loop) wait() int {
	if n := glance(l.poll, l.events[:]); n > 0 || len(l.ready) > 0 {
		return n
	}
	var until time.Time
	if len(l.timers) > 0 {
		until = l.timers[0].at
		if !until.After(time.Now()) {
			return 0
		}
	}
	return l.rest.wait(l.events[:], until)
}

// timers are the tasks that wait for a time, the earliest first.
type timers []*timer

// A timer is a task's place among them. It may be earlier than what the task waits
// for, never later: most waits end before, and begin again.
type timer struct {
	task  *Task
	at    time.Time
	index int // -1: not among them
}

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *timers) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop is for container/heap.
func (h *timers) Pop() any {
	n := len(*h) - 1
	t := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	t.index = -1
	return t
}

// set gives a timer a time.
func (h *timers) set(t *timer, at time.Time) {
	t.at = at
	if t.index < 0 {
		heap.Push(h, t)
		return
	}
	heap.Fix(h, t.index)
}

func (h *timers) remove(t *timer) {
	if t.index >= 0 {
		heap.Remove(h, t.index)
	}
}
