package balance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// maxWait is how long a request waits for the last connection of an enclave: less
// than a server takes for an answer. Who wants to wait longer asks again.
const maxWait = 5 * time.Second

// An Idle is whether an enclave has lost its last connection.
type Idle struct {
	Idle        bool `json:"idle"`
	Connections int  `json:"connections"`
}

// A listed is one enclave in JSON.
type listed struct {
	CID         uint32 `json:"cid"`
	Health      string `json:"health"`
	Drained     bool   `json:"drained"`
	Connections int    `json:"connections"`
	Taken       uint64 `json:"taken"`
	Failures    uint64 `json:"failures"`
	Reason      string `json:"reason,omitempty"`
	Since       string `json:"since,omitempty"`
}

// Handler answers requests about enclaves that take clients:
//
//	GET /v1/enclaves               how each is
//	GET /v1/enclaves/{cid}/idle    whether it has no connection; waits some seconds for that
func (b *Balancer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/enclaves", func(w http.ResponseWriter, _ *http.Request) {
		all := []listed{}
		for _, s := range b.Status() {
			l := listed{
				CID: uint32(s.CID), Health: s.Health, Drained: s.Drained, Connections: s.Connections,
				Taken: s.Taken, Failures: s.Failures, Reason: s.Reason,
			}
			if !s.Since.IsZero() {
				l.Since = s.Since.UTC().Format(time.RFC3339)
			}
			all = append(all, l)
		}
		b.write(w, all)
	})
	mux.HandleFunc("GET /v1/enclaves/{cid}/idle", func(w http.ResponseWriter, r *http.Request) {
		cid, err := strconv.ParseUint(r.PathValue("cid"), 10, 32)
		if err != nil {
			http.Error(w, fmt.Sprintf("%q is not a CID", r.PathValue("cid")), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), maxWait)
		defer cancel()
		idle := b.AwaitIdle(ctx, vsockconn.CID(cid)) == nil
		b.write(w, Idle{idle, b.connections(vsockconn.CID(cid))})
	})
	return mux
}

func (b *Balancer) connections(cid vsockconn.CID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.members[cid]; m != nil {
		return m.connections
	}
	return 0
}

func (b *Balancer) write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		b.config.Log.Debug("API client did not take its answer", "err", err)
	}
}
