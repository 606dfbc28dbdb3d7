package main

import (
	"net/http"
	"slices"

	"github.com/corridor-enclave/corridor/host/api"
	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// controlHandler is everything that the control address answers.
func (h *host) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(h.log,
		metrics.Published(h.publisher.Status),
		metrics.Enclaves(h.gateway.Enclaves),
		metrics.Streams(h.streams.Counts),
		metrics.Calls(h.countCalls),
		metrics.Reports(h.telemetry.Reports),
	))
	mux.Handle("/", api.Handler(h.publisher, h.gateway, api.Scope{CID: vsockconn.CIDAny}, h.log))
	return mux
}

// knows reports whether the host has to do with an enclave: it has a link, or a
// port leads to it.
func (h *host) knows(cid vsockconn.CID) bool {
	return h.gateway.Attached(cid) ||
		slices.ContainsFunc(h.publisher.List(), func(s publish.Spec) bool { return slices.Contains(s.Enclaves, cid) })
}
