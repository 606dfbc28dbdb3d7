package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/metrics"
	"time"
)

// Allocations is what Go's allocator handed out since the process began.
type Allocations struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Runtime serves the Allocations of the process that it runs in, as JSON.
func Runtime(w http.ResponseWriter, _ *http.Request) {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/tiny/allocs:objects"}}
	metrics.Read(samples)
	a := Allocations{Bytes: int64(samples[1].Value.Uint64())}
	// Tiny objects share a block, which is counted as one; each is a call of the
	// allocator all the same.
	a.Objects = int64(samples[0].Value.Uint64() + samples[2].Value.Uint64())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // whoever asked may be gone
}

// askTimeout bounds one question to a process that is at rest.
const askTimeout = 5 * time.Second

// ask gets the Allocations of the process that serves Runtime on a unix socket.
func ask(ctx context.Context, socket string) (*Allocations, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://runtime/", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for allocations: %w", err)
	}
	defer resp.Body.Close()
	var a Allocations
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&a); err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for allocations: %s, %w", resp.Status, err)
	}
	return &a, nil
}
