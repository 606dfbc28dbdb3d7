package sidecar

import (
	"log/slog"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/enclave/config"
	"github.com/corridor-enclave/corridor/revproxy"
)

// What the user set must reach the proxy, each under its own name.
func TestProxyConfig(t *testing.T) {
	t.Parallel()
	log, apps := slog.New(slog.DiscardHandler), []*url.URL{{Scheme: "http", Host: "a"}}
	got := proxyConfig(Config{Log: log, Settings: config.Config{Apps: apps, Limits: config.Limits{
		Hosts: []string{"a"}, Requests: 1, Queued: 2, PerClient: 3, Body: 4,
		QueueTimeout: 5 * time.Second, AnswerTimeout: 6 * time.Second, RequestTimeout: 7 * time.Second, ForwardTimeout: 8 * time.Second,
		PerApp: 9, Conns: 10, Retries: 0, NonIdempotent: []revproxy.Rule{{Path: "/"}}, Health: "/well",
	}}})
	want := revproxy.Config{
		Apps: apps, Log: log, Hosts: []string{"a"}, MaxConcurrent: 1, MaxQueued: 2, MaxPerClient: 3, MaxBodyBytes: 4,
		QueueTimeout: 5 * time.Second, ResponseHeaderTimeout: 6 * time.Second, RequestTimeout: 7 * time.Second, ForwardTimeout: 8 * time.Second,
		MaxPerApp: 9, MinConns: 10, Retries: -1, NonIdempotent: []revproxy.Rule{{Path: "/"}}, HealthPath: "/well",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v; want %+v", got, want)
	}
}
