package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A diary holds what the fake parts did, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) read() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, " ")
}

var errFake = errors.New("fake failure")

// fake returns a part that runs until it is asked to stop, and takes its time.
func (d *diary) fake(name string, takes time.Duration) part {
	return part{
		name:  name,
		begin: func(context.Context) error { d.write("+" + name); return nil },
		run: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(takes)
			d.write("-" + name)
			return nil
		},
		end: func() error { d.write("." + name); return nil },
	}
}

func (d *diary) sequence(parts ...part) *sequence {
	return &sequence{parts: parts, stopTimeout: time.Minute, log: slog.New(slog.DiscardHandler)}
}

func TestSequence(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		parts func(d *diary) []part
		want  string
		err   string // "" is nil
	}{
		{
			name: "a part fails to begin",
			parts: func(d *diary) []part {
				bad := d.fake("b", 0)
				bad.begin = func(context.Context) error { return errFake }
				return []part{d.fake("a", 0), bad, d.fake("c", 0)}
			},
			want: "+a -a .a", err: "sidecar: b: fake failure",
		},
		{
			name: "a part fails later",
			parts: func(d *diary) []part {
				bad := d.fake("b", 0)
				bad.run = func(context.Context) error { time.Sleep(time.Hour); return errFake }
				return []part{d.fake("a", 0), bad, d.fake("c", 0)}
			},
			want: "+a +b +c -c .c .b -a .a", err: "sidecar: b: fake failure",
		},
		{
			name: "a part that must not end does",
			parts: func(d *diary) []part {
				bad := d.fake("a", 0)
				bad.run = func(context.Context) error { time.Sleep(time.Hour); return nil }
				return []part{bad, d.fake("b", 0)}
			},
			want: "+a +b -b .b .a", err: "sidecar: a: ended by itself",
		},
		{
			name: "a part that may end does",
			parts: func(d *diary) []part {
				app := d.fake("app", 0)
				app.mayEnd = true
				app.run = func(context.Context) error { time.Sleep(time.Hour); return nil }
				return []part{d.fake("a", 0), app, d.fake("front", 0)}
			},
			want: "+a +app +front -front .front .app -a .a",
		},
		{
			name: "a part that may end fails",
			parts: func(d *diary) []part {
				app := d.fake("app", 0)
				app.mayEnd = true
				app.run = func(context.Context) error { time.Sleep(time.Hour); return errFake }
				return []part{app, d.fake("front", 0)}
			},
			want: "+app +front -front .front .app", err: "sidecar: app: fake failure",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &diary{}
				err := d.sequence(tt.parts(d)...).run(t.Context())
				if got := d.read(); got != tt.want {
					t.Errorf("did %q; want %q", got, tt.want)
				}
				if (err == nil) != (tt.err == "") || (err != nil && err.Error() != tt.err) {
					t.Errorf("run = %v; want %q", err, tt.err)
				}
			})
		})
	}
}

// TestStopIsTheReverse: each part ends only when those behind it are gone, and a
// slow one is waited for.
func TestStopIsTheReverse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		q := d.sequence(d.fake("link", 0), part{name: "certificate", begin: func(context.Context) error { d.write("+certificate"); return nil }},
			d.fake("app", 5*time.Second), d.fake("front", 20*time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.run(ctx) }()
		synctest.Wait()
		if got, want := d.read(), "+link +certificate +app +front"; got != want {
			t.Fatalf("began %q; want %q", got, want)
		}
		start := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run = %v; want nil when asked to stop", err)
		}
		if got, want := d.read(), "+link +certificate +app +front -front .front -app .app -link .link"; got != want {
			t.Errorf("did %q; want %q", got, want)
		}
		if got := time.Since(start); got != 25*time.Second {
			t.Errorf("stopping took %s; want 25s", got)
		}
	})
}

// TestStopHasAnEnd: a part that does not keep its word does not keep the others
// from ending.
func TestStopHasAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		release := make(chan struct{})
		stuck := d.fake("stuck", 0)
		stuck.run = func(context.Context) error { <-release; return nil }
		q := d.sequence(d.fake("a", 0), stuck, d.fake("c", 0))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.run(ctx) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run = %v", err)
		}
		if got := time.Since(start); got != time.Minute {
			t.Errorf("stopping took %s; want the stop timeout", got)
		}
		synctest.Wait()
		if got, want := d.read(), "+a +stuck +c -c .c .stuck -a .a"; got != want && got != "+a +stuck +c -c .c .stuck .a -a" {
			t.Errorf("did %q; want %q", got, want)
		}
		close(release)
	})
}

// TestStopWhileBeginning: what was interrupted is no failure.
func TestStopWhileBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		slow := d.fake("b", 0)
		slow.begin = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.sequence(d.fake("a", 0), slow, d.fake("c", 0)).run(ctx); err != nil {
			t.Errorf("run = %v; want nil", err)
		}
		if got, want := d.read(), "+a -a .a"; got != want {
			t.Errorf("did %q; want %q", got, want)
		}
	})
}

// TestPartsInOrder pins the order that the package comment draws.
func TestPartsInOrder(t *testing.T) {
	t.Parallel()
	s := newTestSidecar(t, "--fqdn", "a", "--isolate", "--vsock", "dir:/x", "--", "true")
	s.cfg.OwnNetwork = true
	var got []string
	for _, p := range s.parts() {
		got = append(got, p.name)
	}
	want := []string{"telemetry", "loopback", "network", "resolv.conf", "link", "certificate", "module", "listeners", "app API", "documents", "app", "front"}
	if !slices.Equal(got, want) {
		t.Errorf("parts %q; want %q", got, want)
	}
	if total := s.frontTimeout() + s.appTimeout(); total != s.cfg.Settings.DrainTimeout {
		t.Errorf("front and app together may take %s of %s", total, s.cfg.Settings.DrainTimeout)
	}
}
