package main

import (
	"net/http"
	"slices"
	"time"

	"github.com/corridor-enclave/corridor/host/api"
	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/host/startup"
	"github.com/corridor-enclave/corridor/host/status"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// controlHandler is everything that the control address answers.
func (h *host) controlHandler(enclaves vsockconn.Transport) http.Handler {
	mux := http.NewServeMux()
	h.lookAt(mux)
	mux.Handle("/v1/config", h.running.Handler())
	mux.Handle("/v1/config/", h.running.Handler())
	mux.Handle("POST /v1/upgrade", http.NewCrossOriginProtection().Handler(http.HandlerFunc(h.answerUpgrade)))
	mux.Handle("/v1/enclaves", h.balancer.Handler())
	mux.Handle("POST /v1/enclaves/{cid}/startup", startup.Handler(enclaves, h.log))
	mux.Handle("/v1/enclaves/", h.balancer.Handler())
	mux.Handle("/", api.Handler(h.forwarder("gvproxy's API"), h.gateway, api.Scope{CID: vsockconn.CIDAny}, h.log))
	return status.RefuseStrangers(mux)
}

// linkHandler is what an enclave finds inside its link.
func (h *host) linkHandler(cid vsockconn.CID) http.Handler {
	forwarder := h.forwarder("enclave " + cid.String())
	may := api.Handler(forwarder, h.gateway, api.Scope{CID: cid}, h.log)
	mayNot := api.Handler(forwarder, h.gateway, api.Scope{CID: cid, ReadOnly: true}, h.log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.linkAPI.Load() {
			may.ServeHTTP(w, r)
			return
		}
		mayNot.ServeHTTP(w, r)
	})
}

func (h *host) forwarder(by string) running.Forwarder {
	return running.Forwarder{Publisher: h.publisher, Host: h.running, By: by}
}

// observeHandler is what those may see who may change nothing.
func (h *host) observeHandler() http.Handler {
	mux := http.NewServeMux()
	h.lookAt(mux)
	return status.RefuseStrangers(mux)
}

// lookAt adds what only tells.
func (h *host) lookAt(mux *http.ServeMux) {
	mux.Handle("GET /metrics", metrics.Handler(h.log,
		metrics.Published(h.publisher.Status),
		metrics.Enclaves(h.gateway.Enclaves),
		metrics.Streams(h.streams.Counts),
		metrics.Balance(h.balancer.Status),
		metrics.Changes(h.running.Counts),
		metrics.Calls(h.countCalls),
		metrics.Credentials(h.countRole),
		metrics.Reports(h.telemetry.Reports),
	))
	page := status.Handler(status.Config{
		Ports: h.publisher.Status, Enclaves: h.gateway.Enclaves, Balance: h.balancer.Status, Reports: h.telemetry.Reports,
		Now: time.Now, Log: h.log,
	})
	for _, path := range []string{"/{$}", "/status/", "/v1/status", "/healthz", "/readyz"} {
		mux.Handle(path, page)
	}
}

// knows reports whether the host has to do with an enclave: it has a link, or a
// port leads to it.
func (h *host) knows(cid vsockconn.CID) bool {
	return h.gateway.Attached(cid) ||
		slices.ContainsFunc(h.publisher.List(), func(s publish.Spec) bool { return slices.Contains(s.Enclaves, cid) })
}
