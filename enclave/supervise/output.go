package supervise

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// lastWords is how long, after SIGKILL, output may still come out of the pipes.
// Only a process that has left the group can hold them open for longer.
const lastWords = time.Second

// An output is the app's two streams on their way to the log, and its empty input.
type output struct {
	null           *os.File
	stdout, stderr pipe
	silent         chan struct{} // closed when both streams have ended
}

type pipe struct{ r, w *os.File }

func openOutput() (*output, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	o := &output{null: null, silent: make(chan struct{})}
	for _, p := range []*pipe{&o.stdout, &o.stderr} {
		if p.r, p.w, err = os.Pipe(); err != nil {
			o.abandon()
			return nil, err
		}
	}
	return o, nil
}

// abandon closes everything when the app did not start.
func (o *output) abandon() {
	for _, f := range []*os.File{o.null, o.stdout.r, o.stdout.w, o.stderr.r, o.stderr.w} {
		_ = f.Close() // a nil file says ErrInvalid, and nothing was written to the others
	}
}

// forward closes the app's ends and passes the streams on. The channel is closed
// when all output has been logged and its goroutines are gone.
func (o *output) forward(log *slog.Logger) <-chan struct{} {
	for _, f := range []*os.File{o.null, o.stdout.w, o.stderr.w} {
		_ = f.Close() // nothing was written through our copies
	}
	waiting := newBacklog()
	var readers sync.WaitGroup
	readers.Go(func() { readLines(o.stdout.r, waiting.adder("stdout")) })
	readers.Go(func() { readLines(o.stderr.r, waiting.adder("stderr")) })
	go func() {
		readers.Wait()
		waiting.close()
		close(o.silent)
	}()
	logged := make(chan struct{})
	go func() {
		waiting.logTo(log)
		close(logged)
	}()
	return logged
}

// close ends the streams: at their end, or after a time if a process that is
// not ours to kill still holds them.
func (o *output) close(after time.Duration) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-o.silent:
	case <-timer.C:
	}
	_ = o.stdout.r.Close()
	_ = o.stderr.r.Close()
	<-o.silent
}
