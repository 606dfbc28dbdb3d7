package main

import (
	"net/http"

	"github.com/corridor-enclave/corridor/host/api"
	"github.com/corridor-enclave/corridor/host/metrics"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// controlHandler is everything that the control address answers.
func (h *host) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(h.log,
		metrics.Published(h.publisher.Status),
		metrics.Enclaves(h.gateway.Enclaves),
		metrics.Streams(h.streams.Counts),
	))
	mux.Handle("/", api.Handler(h.publisher, h.gateway, api.Scope{CID: vsockconn.CIDAny}, h.log))
	return mux
}
