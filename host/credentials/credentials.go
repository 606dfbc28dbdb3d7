// Package credentials passes enclaves' questions for the credentials of this
// instance's role on to the instance metadata service, and no others: not what else
// that service tells, and not by its first version, which asks for no token. What
// the credentials are good for, IAM and the policies of keys say.
package credentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	tokenPath  = "/latest/api/token"
	rolePath   = "/latest/meta-data/iam/security-credentials/"
	tokenField = "X-Aws-Ec2-Metadata-Token"
	ttlField   = tokenField + "-Ttl-Seconds"

	// maxRole is the length of a role's name (IAM's limit).
	maxRole = 64
	// maxField is the size of a token or a lifetime, in bytes.
	maxField = 1 << 10
	// maxAnswer is the size of an answer, in bytes; credentials are some two KiB.
	maxAnswer = 64 << 10
	// maxHeader is the size of a question, in bytes.
	maxHeader = 8 << 10
	// maxQuestions may be with the metadata service at a time. It serves so many
	// packets a second to the whole instance.
	maxQuestions = 8
	// maxConnections may be open.
	maxConnections = 64
	// questionTimeout bounds a question, and what surrounds it on its connection.
	questionTimeout = 5 * time.Second
	// stopTimeout is how long questions may go on after Run was asked to stop.
	stopTimeout = 2 * time.Second
)

// Config says who is asked.
type Config struct {
	// Listener is of a vsockconn.Transport, and is owned from the call on.
	Listener net.Listener
	// Service is the metadata service: http://169.254.169.254.
	Service string
	// Log gets what an operator should know; it must not be nil.
	Log *slog.Logger
}

// Counts are what a Server did since it was made.
type Counts struct {
	Passed  uint64 // answered by the metadata service, whatever it said
	Refused uint64 // questions that are none for credentials, or not from an enclave
	Crowded uint64 // questions and connections beyond the limits
	Failed  uint64 // questions that the metadata service did not answer
}

// A Server answers enclaves. Make one with New; Run it once.
type Server struct {
	cfg       Config
	client    http.Client
	asking    chan struct{} // a token for each question
	connected chan struct{} // a token for each connection

	passed, refused, crowded, failed atomic.Uint64
}

// New returns a Server.
func New(c Config) *Server {
	return &Server{
		cfg: c, asking: make(chan struct{}, maxQuestions), connected: make(chan struct{}, maxConnections),
		client: http.Client{
			Timeout: questionTimeout,
			// No proxy: nobody's environment decides who sees credentials.
			Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Counts returns the numbers so far.
func (s *Server) Counts() Counts {
	return Counts{Passed: s.passed.Load(), Refused: s.refused.Load(), Crowded: s.crowded.Load(), Failed: s.failed.Load()}
}

// Close closes the listener of a Server that never runs.
func (s *Server) Close() error { return s.cfg.Listener.Close() }

// Run answers until ctx ends; then it lets questions under way finish, for two
// seconds. It fails if the listener does.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: questionTimeout,
		ReadTimeout:       questionTimeout,
		WriteTimeout:      2 * questionTimeout,
		IdleTimeout:       questionTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, peerKey{}, c) },
	}
	server.SetKeepAlivesEnabled(false)
	s.cfg.Log.Info("listening", "part", "credentials", "addr", s.cfg.Listener.Addr().String())
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded{s.cfg.Listener, s}) }()
	select {
	case err := <-served:
		return fmt.Errorf("credentials: %w", err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if server.Shutdown(patience) != nil {
		server.Close()
	}
	<-served
	return nil
}

// peerKey is the context's key of the connection.
type peerKey struct{}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(peerKey{}).(net.Conn)
	cid, known := vsockconn.PeerCID(unbound(conn))
	if !known || cid <= vsockconn.CIDHost {
		s.refuse(w, cid, "not an enclave", http.StatusForbidden)
		return
	}
	question, err := s.question(r)
	if err != nil {
		s.refuse(w, cid, err.Error(), http.StatusForbidden)
		return
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	default:
		s.crowded.Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many questions at a time", http.StatusServiceUnavailable)
		return
	}
	s.pass(w, question, cid)
}

func (s *Server) refuse(w http.ResponseWriter, cid vsockconn.CID, reason string, status int) {
	s.refused.Add(1)
	s.cfg.Log.Debug("question for credentials refused", "cid", uint32(cid), "reason", reason)
	http.Error(w, reason, status)
}

// errOther reports a question for something else.
var errOther = errors.New("only the credentials of the instance's role are told here, by tokens")

// question is a request for the metadata service that holds nothing of the
// enclave's but what was looked at.
func (s *Server) question(r *http.Request) (*http.Request, error) {
	field := tokenField
	switch role, isRole := strings.CutPrefix(r.URL.Path, rolePath); {
	case r.URL.RawPath != "" || r.URL.RawQuery != "" || r.URL.ForceQuery || r.ContentLength != 0:
		return nil, errOther
	case r.Method == http.MethodPut && r.URL.Path == tokenPath:
		field = ttlField
	case r.Method == http.MethodGet && isRole && (role == "" || isName(role)):
	default:
		return nil, errOther
	}
	value := r.Header.Values(field)
	if len(value) != 1 || value[0] == "" || len(value[0]) > maxField {
		return nil, errOther
	}
	question, err := http.NewRequestWithContext(r.Context(), r.Method, s.cfg.Service+r.URL.Path, nil)
	if err != nil {
		return nil, errOther
	}
	question.Header.Set(field, value[0])
	return question, nil
}

// isName reports whether a role may be called that (IAM: letters, digits and
// +=,.@_-), and a path with it leads nowhere else.
func isName(role string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@_-"
	return len(role) <= maxRole && strings.Trim(role, allowed) == "" && strings.Trim(role, ".") != ""
}

// pass asks, and tells the enclave what was answered.
func (s *Server) pass(w http.ResponseWriter, question *http.Request, cid vsockconn.CID) {
	answer, err := s.client.Do(question)
	if err != nil {
		s.fail(w, cid, err)
		return
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	if err != nil {
		s.fail(w, cid, err)
		return
	}
	s.passed.Add(1)
	for _, field := range []string{"Content-Type", ttlField} {
		if v := answer.Header.Get(field); v != "" {
			w.Header().Set(field, v)
		}
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(body) // an error means that the enclave is gone
}

func (s *Server) fail(w http.ResponseWriter, cid vsockconn.CID, err error) {
	s.failed.Add(1)
	s.cfg.Log.Warn("the metadata service gives no credentials", "cid", uint32(cid), "err", err)
	http.Error(w, "the metadata service does not answer", http.StatusBadGateway)
}
