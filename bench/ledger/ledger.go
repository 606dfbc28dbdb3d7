// Package ledger keeps the accounts of a measurement: what each process used while
// a load ran, from /proc and, where a process offers it, from Go's own counts. It
// starts nothing and loads nothing. On a machine that others use too, this is the
// figure to trust: a process is charged for its own work whatever the neighbours do.
package ledger

import (
	"context"
	"fmt"
	"os"

	"github.com/corridor-enclave/corridor/bench/report"
)

// An Account is a process to watch, with all its descendants.
type Account struct {
	Name string
	Role report.Role
	PID  int
	// Inside says that it runs in the enclave's place.
	Inside bool
	// Metrics is the unix socket on which the process tells what it allocated, as
	// tapstack/exposition writes it; empty means that it does not.
	Metrics string
}

// A Mark is the state of the accounts at one moment.
type Mark struct {
	accounts []Account
	uses     []use
	allocs   []*asked
	machine  busy
	own      int64 // µs that this process used, with children that ended
}

// Take marks the present state of the accounts. It fails if a process is gone:
// then nothing about it can be believed.
func Take(ctx context.Context, accounts []Account) (Mark, error) {
	m := Mark{accounts: accounts}
	children, err := childrenByParent()
	if err != nil {
		return Mark{}, err
	}
	for _, a := range accounts {
		u, err := readTree(a.PID, children)
		if err != nil {
			return Mark{}, fmt.Errorf("ledger: %s, process %d: %w", a.Name, a.PID, err)
		}
		m.uses = append(m.uses, u)
		var allocs *asked
		if a.Metrics != "" {
			if allocs, err = askTwice(ctx, a.Metrics); err != nil {
				return Mark{}, fmt.Errorf("ledger: %s: %w", a.Name, err)
			}
		}
		m.allocs = append(m.allocs, allocs)
	}
	if m.own, err = ownMicros(); err != nil {
		return Mark{}, err
	}
	m.machine, err = readBusy()
	return m, err
}

// Since returns what each account used between an earlier mark of the same
// accounts and m, and which share of all cores went to processes that are none
// of them and not this one, 0 to 1.
func (m Mark) Since(before Mark) (used []report.Process, foreign float64) {
	ours := m.own - before.own
	for i, a := range m.accounts {
		p := m.uses[i].since(before.uses[i])
		p.Name, p.Role, p.Inside = a.Name, a.Role, a.Inside
		if now, then := m.allocs[i], before.allocs[i]; now != nil && then != nil {
			between := then.between(*now)
			p.Allocs, p.AllocBytes = &between.objects, &between.bytes
		}
		if a.PID != os.Getpid() { // which is in there already
			ours += int64(p.UserMicros + p.SystemMicros)
		}
		used = append(used, p)
	}
	total := m.machine.total - before.machine.total
	if total <= 0 {
		return used, 0
	}
	others := float64(m.machine.used-before.machine.used-ours) / float64(total)
	return used, min(1, max(0, others))
}

// Exists reports whether this machine has what the ledger reads.
func Exists() error {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		return fmt.Errorf("ledger: %w (remedy: a Linux kernel with CONFIG_SCHED_INFO, and /proc)", err)
	}
	return nil
}
