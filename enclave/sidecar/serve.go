package sidecar

import (
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/issuer"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/appapi"
	"github.com/corridor-enclave/corridor/enclave/certs"
	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/enclave/page"
	"github.com/corridor-enclave/corridor/revproxy"
	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/heap"
	"github.com/corridor-enclave/corridor/tapstack/telemetry"
)

func (s *Sidecar) beginCertificate(context.Context) (err error) {
	s.certificates, err = certs.NewSelfSigned(s.cfg.Settings.FQDN, s.cfg.Settings.KeyLifetime, s.cfg.Now)
	return err
}

// beginModule asks the module who it is and has it measure the configuration. It
// goes on without a module: the app is of use without a proof, and
// whoever wants one gets 503 and with it the truth.
func (s *Sidecar) beginModule(ctx context.Context) error {
	d, err := s.session.Describe(ctx)
	if err != nil {
		s.reporter.Event(telemetry.NoModule, 0)
		s.told.Error("no security module: clients are served, but attestation is answered with 503", "error", err)
		return nil
	}
	s.told.Info("security module", "id", d.ModuleID, "pcrs", d.MaxPCRs)
	return s.measure(ctx)
}

// beginListeners takes every address before the app starts or a client is
// served, so that a busy port ends the sidecar while nobody relies on it.
func (s *Sidecar) beginListeners(ctx context.Context) (err error) {
	if s.fronts, err = listenAll(ctx, "front", s.cfg.Settings.Front, s.listenFront); err == nil {
		s.apis, err = listenAll(ctx, "app-api", s.cfg.Settings.AppAPI, listen)
	}
	if err == nil {
		err = s.beginForwarders()
	}
	if err != nil {
		return errors.Join(err, s.endListeners())
	}
	s.measurements.add(s.streamValues)
	return nil
}

// endListeners closes those that no server got, servers close their own, and waits
// for connections that linger.
func (s *Sidecar) endListeners() error {
	err := closeAll(slices.Concat(s.fronts, s.apis))
	for _, f := range s.forwarders {
		err = errors.Join(err, f.Close())
	}
	for _, l := range s.inbound {
		l.Wait()
	}
	return err
}

func closeAll(ls []net.Listener) error {
	var errs []error
	for _, l := range ls {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Sidecar) beginAPI(context.Context) error {
	s.api = appapi.New(appapi.Config{Listeners: s.apis, WaitForApp: s.cfg.Settings.WaitForApp, Secrets: s.secrets, Startup: s.startup, Log: s.cfg.Log})
	return nil
}

// beginDocuments comes behind the app API, which knows what the app has said.
func (s *Sidecar) beginDocuments(context.Context) error {
	s.issuer = issuer.New(issuer.Config{Module: s.session, Statement: s.statement, Now: s.cfg.Now})
	return nil
}

func (s *Sidecar) runDocuments(ctx context.Context) error { return s.issuer.Run(ctx) }

// statement is what documents say of this enclave now.
func (s *Sidecar) statement() attestation.Statement {
	statement := attestation.Statement{App: s.api.KeyHash(), Config: s.config}
	for _, leaf := range s.certificates.InUse() {
		statement.Keys = append(statement.Keys, sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
		statement.Certificates = append(statement.Certificates, sha256.Sum256(leaf.Raw))
	}
	return statement
}

func (s *Sidecar) runAPI(ctx context.Context) error { return s.api.Run(ctx) }

// proxyConfig is what the settings say about the way to the app.
func proxyConfig(cfg Config) revproxy.Config {
	limits := cfg.Settings.Limits
	retries := limits.Retries
	if retries == 0 {
		retries = -1 // zero is the proxy's default
	}
	var access func(*revproxy.Record)
	if limits.AccessEvery > 0 {
		access = accessLog(cfg.Log)
	}
	return revproxy.Config{
		Access:                access,
		AccessEvery:           limits.AccessEvery,
		Apps:                  cfg.Settings.Apps,
		Log:                   cfg.Log,
		Hosts:                 limits.Hosts,
		MaxConcurrent:         limits.Requests,
		MaxQueued:             limits.Queued,
		QueueTimeout:          limits.QueueTimeout,
		MaxPerClient:          limits.PerClient,
		MaxBodyBytes:          limits.Body,
		ResponseHeaderTimeout: limits.AnswerTimeout,
		RequestTimeout:        limits.RequestTimeout,
		ForwardTimeout:        limits.ForwardTimeout,
		MaxPerApp:             limits.PerApp,
		MinConns:              limits.Conns,
		Retries:               retries,
		NonIdempotent:         limits.NonIdempotent,
		HealthPath:            limits.Health,
		Untold:                limits.Untold,
	}
}

func (s *Sidecar) beginFront(context.Context) (err error) {
	set := s.cfg.Settings
	cfg := front.Config{
		Listeners:      s.fronts,
		Attester:       attester{s.session},
		App:            s.api,
		Strict:         set.Limits.Strict,
		MaxConnections: s.maxConnections(),
		Published:      s.published(),
		Source:         set.Source,
		DrainTimeout:   s.frontTimeout(),
		StockHTTP2:     set.Limits.StockHTTP2,
		Log:            s.cfg.Log,
	}
	if s.certificates != nil {
		cfg.Certificates, cfg.Evidence = s.certificates, s.issuer
	}
	if cfg.Page, err = page.New(page.Built()); errors.Is(err, page.ErrNoVerifier) {
		s.cfg.Log.Warn("browsers get text for GET /enclave: the verifier was not built in, as make build does")
	} else if err != nil {
		return err
	}
	if set.Link.On {
		cfg.SharedAddrs = []netip.Addr{tapstack.GatewayAddr()}
	}
	if s.proxy != nil {
		cfg.Proxy, cfg.Took = s.measurements.timed(s.proxy), s.measurements.requests.ObserveDuration
		if set.Limits.FastLane {
			cfg.Fast = s.proxy
		}
		s.measurements.add(func(vs []telemetry.Value) []telemetry.Value { return proxyValues(vs, s.proxy.Counts()) })
	}
	if s.front, err = front.New(cfg); err != nil {
		return err
	}
	s.measurements.add(func(vs []telemetry.Value) []telemetry.Value { return frontValues(vs, s.front) })
	return nil
}

// maxConnections is the setting, or what is safe here. Of memory that is not known
// there is no limit: the files still are.
func (s *Sidecar) maxConnections() int {
	if n := s.cfg.Settings.Limits.Connections; n > 0 {
		return n
	}
	memory, err := heap.Available(os.DirFS("/"))
	if err != nil {
		s.cfg.Log.Warn("connections are not bounded by memory", "error", err)
		memory = math.MaxInt64
	}
	return front.SafeConnections(memory)
}

// runFront runs everything that clients reach, which all drain at the same time.
func (s *Sidecar) runFront(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.front.Run(ctx) })
	if s.proxy != nil {
		g.Go(func() error { return s.proxy.Run(ctx) })
	}
	for _, f := range s.forwarders {
		g.Go(func() error { return f.Run(ctx) })
	}
	return g.Wait()
}

func (s *Sidecar) closeProxy() error {
	if s.proxy != nil {
		s.proxy.Close()
	}
	return nil
}

// An attester is the module as the front wants it.
type attester struct{ session *nsm.Session }

// Attest leaves the public key out, as nitriding's clients do not look at it.
func (a attester) Attest(ctx context.Context, nonce, userData []byte) ([]byte, error) {
	return a.session.Attest(ctx, nsm.AttestationRequest{Nonce: nonce, UserData: userData})
}
