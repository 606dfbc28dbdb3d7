// Package api is the host's HTTP API for its operator: gvproxy's requests to
// publish ports and to look at the network, with gvproxy's JSON and status
// codes, so that existing scripts work. It changes nothing by itself: publish
// and gateway do.
//
// Differences from gvproxy v0.8.9:
//
//   - Nothing but the link is served on the VSOCK port, and inside the link (on
//     192.168.127.1:80) the API shows an enclave only what concerns itself and
//     changes nothing, unless the operator allows it (--link-api on). Who may
//     expose ports decides what clients of the host reach, and an enclave runs
//     code that the operator need not trust.
//   - expose carries TCP; other protocols are refused by name. An enclave may be
//     named by "cid"; without it the port leads to the only one there is. The
//     remote must be an address of the enclave.
//   - all shows ports of the stream road, which gvproxy has not, with the VSOCK
//     endpoint as their remote. GET /v1/published shows what every port did so far.
//   - stats and leases take ?cid=N, which must be given when there are several
//     enclaves. /cam and /tunnel do not exist: there is no switch, and a tunnel is
//     what expose makes.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/corridor-enclave/corridor/host/gateway"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// maxBody bounds a request's JSON, in bytes.
const maxBody = 64 << 10

// A Forwarder publishes ports; publish.Publisher is one.
type Forwarder interface {
	Add(publish.Spec) (net.Addr, error)
	Remove(local string) error
	List() []publish.Spec
	Status() []publish.Status
}

// Enclaves shows the networks; gateway.Gateway does.
type Enclaves interface {
	Enclaves() []gateway.Enclave
}

// A Scope is what one way to the API may see and do.
type Scope struct {
	// CID limits the API to what concerns one enclave; vsockconn.CIDAny is all.
	CID vsockconn.CID
	// ReadOnly refuses to expose and unexpose.
	ReadOnly bool
}

// handler is the API in one scope.
type handler struct {
	forwarder Forwarder
	enclaves  Enclaves
	scope     Scope
	log       *slog.Logger
}

// Handler returns the API in a scope.
func Handler(f Forwarder, e Enclaves, s Scope, log *slog.Logger) http.Handler {
	h := &handler{forwarder: f, enclaves: e, scope: s, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("/services/forwarder/all", h.all)
	mux.HandleFunc("/services/forwarder/expose", h.change(h.expose))
	mux.HandleFunc("/services/forwarder/unexpose", h.change(h.unexpose))
	mux.HandleFunc("GET /v1/published", h.published)
	mux.HandleFunc("/stats", h.stats)
	mux.HandleFunc("/leases", h.leases)
	mux.HandleFunc("/services/dhcp/leases", h.leases)
	// A page in the operator's browser is not the operator.
	return http.NewCrossOriginProtection().Handler(mux)
}

// A request is the body of expose and unexpose.
type request struct {
	Local    string  `json:"local"`
	Remote   string  `json:"remote"`
	Protocol string  `json:"protocol"`
	CID      *uint32 `json:"cid"`
}

// A forward is one entry of all.
type forward struct {
	Local    string  `json:"local"`
	Remote   string  `json:"remote"`
	Protocol string  `json:"protocol"`
	CID      *uint32 `json:"cid,omitempty"`
}

// change wraps what changes something: a POST with JSON, in a scope that may.
func (h *handler) change(do func(request) (status int, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if h.scope.ReadOnly {
			http.Error(w, "the API is read-only here: ask the operator of the host", http.StatusForbidden)
			return
		}
		if r.Method != http.MethodPost {
			http.Error(w, "post only", http.StatusBadRequest)
			return
		}
		var req request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if status, err := do(req); err != nil {
			http.Error(w, err.Error(), status)
			return
		}
		w.WriteHeader(http.StatusOK)
	}
}

func (h *handler) expose(req request) (int, error) {
	if err := checkProtocol(req.Protocol); err != nil {
		return http.StatusInternalServerError, err
	}
	if err := publish.CheckLocal(req.Local); err != nil {
		return http.StatusBadRequest, err
	}
	port, err := enclavePort(req.Remote)
	if err != nil {
		return http.StatusBadRequest, err
	}
	var enclaves []vsockconn.CID
	if req.CID != nil {
		enclaves = []vsockconn.CID{vsockconn.CID(*req.CID)}
	}
	if h.scope.CID != vsockconn.CIDAny {
		enclaves = []vsockconn.CID{h.scope.CID}
	}
	_, err = h.forwarder.Add(publish.Spec{Local: req.Local, Enclaves: enclaves, Port: uint32(port)})
	if errors.Is(err, publish.ErrPublished) {
		err = errors.New("proxy already running")
	}
	return http.StatusInternalServerError, err
}

func (h *handler) unexpose(req request) (int, error) {
	if err := checkProtocol(req.Protocol); err != nil {
		return http.StatusInternalServerError, err
	}
	notFound := errors.New("proxy not found")
	if h.scope.CID != vsockconn.CIDAny && !h.owns(req.Local) {
		return http.StatusInternalServerError, notFound
	}
	err := h.forwarder.Remove(req.Local)
	if errors.Is(err, publish.ErrNotPublished) {
		err = notFound
	}
	return http.StatusInternalServerError, err
}

// owns reports whether the published address leads to the enclave of the scope,
// and to no other.
func (h *handler) owns(local string) bool {
	for _, s := range h.forwarder.List() {
		if s.Local == local {
			return s.LeadsOnlyTo(h.scope.CID)
		}
	}
	return false
}

func (h *handler) all(w http.ResponseWriter, _ *http.Request) {
	forwards := []forward{}
	for _, s := range h.forwarder.List() {
		if h.scope.CID != vsockconn.CIDAny && !s.LeadsOnlyTo(h.scope.CID) {
			continue
		}
		f := forward{Local: s.Local, Remote: remoteOf(s), Protocol: "tcp"}
		if len(s.Enclaves) == 1 {
			f.CID = (*uint32)(&s.Enclaves[0])
		}
		forwards = append(forwards, f)
	}
	h.answer(w, forwards)
}

// remoteOf is where a port leads: an address on the link, or a VSOCK endpoint.
func remoteOf(s publish.Spec) string {
	if s.Road == publish.Stream {
		cid := vsockconn.CIDAny
		if len(s.Enclaves) == 1 {
			cid = s.Enclaves[0]
		}
		return vsockconn.Addr{CID: cid, Port: s.Port}.String()
	}
	return netip.AddrPortFrom(tapstack.EnclaveAddr(), uint16(s.Port)).String()
}

// A published is one entry of /v1/published.
type published struct {
	Port        string           `json:"port"` // as --publish takes it
	Connections int64            `json:"connections"`
	Accepted    int64            `json:"accepted"`
	Failed      int64            `json:"failed"`
	Refused     map[string]int64 `json:"refused"`
}

func (h *handler) published(w http.ResponseWriter, _ *http.Request) {
	all := []published{}
	for _, s := range h.forwarder.Status() {
		if h.scope.CID == vsockconn.CIDAny || s.Spec.LeadsOnlyTo(h.scope.CID) {
			all = append(all, published{s.Spec.String(), s.Connections, s.Accepted, s.Failed, s.Refused})
		}
	}
	h.answer(w, all)
}

// stats shows gvproxy's counters of one enclave, and below "corridor" those that
// gvproxy has not.
func (h *handler) stats(w http.ResponseWriter, r *http.Request) {
	e, err := h.pick(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	tree := map[string]any{"BytesSent": 0, "BytesReceived": 0}
	if e != nil {
		tree = e.Counters
		tree["BytesSent"] = e.Stats.DownlinkBytes
		tree["BytesReceived"] = e.Stats.UplinkBytes
		tree["corridor"] = map[string]any{
			"cid": e.CID, "attached": e.Attached, "link": e.Stats, "flows": e.Flows,
		}
	}
	h.answer(w, tree)
}

func (h *handler) leases(w http.ResponseWriter, r *http.Request) {
	e, err := h.pick(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	leases := map[string]string{tapstack.GatewayAddr().String(): tapstack.GatewayMAC().String()}
	if e != nil {
		leases = e.Leases
	}
	h.answer(w, leases)
}

// pick returns the enclave that the request is about, or nil if there is none.
func (h *handler) pick(r *http.Request) (*gateway.Enclave, error) {
	wanted := h.scope.CID
	if text := r.URL.Query().Get("cid"); text != "" && wanted == vsockconn.CIDAny {
		cid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("cid %q is not a CID", text)
		}
		wanted = vsockconn.CID(cid)
	}
	var found *gateway.Enclave
	for _, e := range h.enclaves.Enclaves() {
		if wanted != vsockconn.CIDAny && wanted != e.CID {
			continue
		}
		if found != nil {
			return nil, errors.New("there are several enclaves: add ?cid=N")
		}
		found = &e
	}
	return found, nil
}

func (h *handler) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.log.Debug("API client did not take its answer", "err", err)
	}
}

// checkProtocol refuses what gvproxy would forward and this host does not.
func checkProtocol(protocol string) error {
	switch protocol {
	case "", "tcp":
		return nil
	case "udp", "unix", "npipe":
		return fmt.Errorf("protocol %s is not carried: only tcp is", protocol)
	}
	return fmt.Errorf("unknown protocol %s", protocol)
}

// enclavePort reads a remote: "192.168.127.2:443", or ":443" for the same.
func enclavePort(remote string) (uint16, error) {
	host, portText, err := net.SplitHostPort(remote)
	if err != nil {
		return 0, err
	}
	if host != "" && host != tapstack.EnclaveAddr().String() {
		return 0, fmt.Errorf("remote %s is not the enclave's address, %s", host, tapstack.EnclaveAddr())
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("remote port %q is not 1 to 65535", portText)
	}
	return uint16(port), nil
}
