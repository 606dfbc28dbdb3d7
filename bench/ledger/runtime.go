package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// allocations is what Go's allocator handed out since the process began.
type allocations struct{ objects, bytes int64 }

// The names of allocations on a page for Prometheus (tapstack/exposition).
const (
	objectsName = "corridor_process_allocations_total"
	bytesName   = "corridor_process_allocated_bytes_total"
)

const (
	// askTimeout bounds one question to a process that is at rest.
	askTimeout = 5 * time.Second
	// maxPage bounds what it may answer.
	maxPage = 8 << 20
)

// asked are two answers of a process, one right after the other: they differ by
// what answering takes.
type asked struct{ first, last allocations }

// between returns what was allocated between two marks, without what asking took.
func (before asked) between(now asked) allocations {
	cost := allocations{now.last.objects - now.first.objects, now.last.bytes - now.first.bytes}
	return allocations{
		max(0, now.first.objects-before.last.objects-cost.objects),
		max(0, now.first.bytes-before.last.bytes-cost.bytes),
	}
}

// askTwice asks the process that serves its metrics on a unix socket.
func askTwice(ctx context.Context, socket string) (*asked, error) {
	var a asked
	for _, to := range []*allocations{&a.first, &a.last} {
		got, err := ask(ctx, socket)
		if err != nil {
			return nil, fmt.Errorf("ask for allocations: %w", err)
		}
		*to = got
	}
	return &a, nil
}

func ask(ctx context.Context, socket string) (allocations, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://process/metrics", nil)
	if err != nil {
		return allocations{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return allocations{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return allocations{}, errors.New(resp.Status)
	}
	return parseAllocations(io.LimitReader(resp.Body, maxPage))
}

// parseAllocations reads the two counters from a page for Prometheus.
func parseAllocations(r io.Reader) (allocations, error) {
	var a allocations
	wanted := map[string]*int64{objectsName: &a.objects, bytesName: &a.bytes}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		to, ok := wanted[name]
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0 && v < 1<<62) {
			return allocations{}, fmt.Errorf("%s is %q", name, text)
		}
		*to = int64(v)
		delete(wanted, name)
	}
	if err := lines.Err(); err != nil {
		return allocations{}, err
	}
	if len(wanted) > 0 {
		return allocations{}, fmt.Errorf("a page without %s or %s", objectsName, bytesName)
	}
	return a, nil
}
