// Package issuer has the security module make the documents that clients ask
// for, many clients to a document: it gathers their nonces in a tree, and keeps a
// document for those who bring none. It does not speak HTTP or limit its clients
// (the enclave's front does) and verifies nothing (package attestation does).
package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

const (
	// DefaultGather is how long the first of a batch waits for others. The module
	// needs about a millisecond for a document, during which the next batch
	// gathers by itself; this is for the time when it is idle.
	DefaultGather = 2 * time.Millisecond
	// DefaultWaiting is how many clients may wait for a document.
	DefaultWaiting = 4096
	// maxBatch is the number of nonces in one document, and so the length of a
	// client's path: 10 steps.
	maxBatch = 1024
	// keepFor is how old the document for clients without nonce may become.
	keepFor = time.Minute
	// keepMargin is how long before its certificate's end a document is replaced.
	keepMargin = 10 * time.Minute
	// keepLeast bounds the requests to a module whose certificate is about to end.
	keepLeast = time.Second
)

// ErrBusy reports that DefaultWaiting clients wait already. Come back later.
var ErrBusy = errors.New("issuer: too many clients wait for the security module")

// A Module makes documents; *nsm.Session is one.
type Module interface {
	Attest(ctx context.Context, r nsm.AttestationRequest) ([]byte, error)
}

// Config is what an Issuer needs.
type Config struct {
	// Module signs. It is asked for one document at a time for clients with a
	// nonce, and for another one at a time for those without.
	Module Module
	// Statement returns what is true of the enclave now: its keys, certificates,
	// app and configuration. Purpose and tree are the Issuer's to fill in.
	Statement func() attestation.Statement
	// Gather is how long the first of a batch waits; 0 means DefaultGather.
	Gather time.Duration
	// Waiting is how many clients may wait; 0 means DefaultWaiting.
	Waiting int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// An Issuer answers clients once it runs. It is safe for concurrent use.
//
//	nonces ──► queue ──► tree of up to 1024 ──► module ──► document, and a path each
//	             ▲                                │
//	             └── the next ones gather while ──┘
type Issuer struct {
	cfg   Config
	queue chan *waiting
	kept  kept
}

// A waiting client has a leaf and gets one answer.
type waiting struct {
	leaf   attestation.Digest
	answer chan answer // has room for one, so that nobody has to listen
}

type answer struct {
	document []byte
	index    int
	tree     *attestation.Tree
	err      error
}

// New returns an Issuer, which Run starts.
func New(cfg Config) *Issuer {
	if cfg.Gather == 0 {
		cfg.Gather = DefaultGather
	}
	if cfg.Waiting == 0 {
		cfg.Waiting = DefaultWaiting
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Issuer{cfg: cfg, queue: make(chan *waiting, cfg.Waiting), kept: kept{turn: make(chan struct{}, 1)}}
}

// Fresh returns evidence that answers the nonce and, unless it is nil, names the
// exporter of the connection. It waits for the module until ctx ends. Errors are
// ErrBusy, the end of ctx, a nonce or exporter of a wrong size, or the module's.
func (i *Issuer) Fresh(ctx context.Context, nonce, exporter []byte) (attestation.Evidence, error) {
	leaf, err := attestation.LeafHash(nonce, exporter)
	if err != nil {
		return attestation.Evidence{}, err
	}
	w := &waiting{leaf: leaf, answer: make(chan answer, 1)}
	select {
	case i.queue <- w:
	default:
		return attestation.Evidence{}, ErrBusy
	}
	select {
	case a := <-w.answer:
		if a.err != nil {
			return attestation.Evidence{}, a.err
		}
		return attestation.Evidence{Document: a.document, Proof: &attestation.Proof{
			Index: uint32(a.index), Size: a.tree.Head().Size, Path: a.tree.Path(a.index), Exporter: exporter,
		}}, nil
	case <-ctx.Done():
		return attestation.Evidence{}, fmt.Errorf("issuer: waiting for a document: %w", context.Cause(ctx))
	}
}

// Run gathers nonces and has documents made until ctx ends. Clients that still
// wait then get an error.
func (i *Issuer) Run(ctx context.Context) error {
	gather := time.NewTimer(i.cfg.Gather)
	defer gather.Stop()
	for {
		var batch []*waiting
		select {
		case w := <-i.queue:
			batch = append(batch, w)
		case <-ctx.Done():
			i.dismiss(context.Cause(ctx))
			return nil
		}
		gather.Reset(i.cfg.Gather)
		i.sign(ctx, i.fill(batch, gather.C))
	}
}

// fill adds to the batch what comes until the timer does. What is in the queue
// already has waited while the last batch was signed, so it need not wait again
// where it fills a batch.
func (i *Issuer) fill(batch []*waiting, timer <-chan time.Time) []*waiting {
	for len(batch) < maxBatch {
		select {
		case w := <-i.queue:
			batch = append(batch, w)
		case <-timer:
			return batch
		}
	}
	return batch
}

// sign makes one document for the batch and answers everybody in it.
func (i *Issuer) sign(ctx context.Context, batch []*waiting) {
	leaves := make([]attestation.Digest, len(batch))
	for n, w := range batch {
		leaves[n] = w.leaf
	}
	tree, err := attestation.NewTree(leaves)
	var document []byte
	if err == nil {
		s := i.cfg.Statement()
		s.Purpose, s.Tree = attestation.PurposeBatch, tree.Head()
		document, err = i.attest(ctx, s)
	}
	for n, w := range batch {
		w.answer <- answer{document: document, index: n, tree: tree, err: err}
	}
}

func (i *Issuer) attest(ctx context.Context, s attestation.Statement) ([]byte, error) {
	userData, err := s.Encode()
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	return i.cfg.Module.Attest(ctx, nsm.AttestationRequest{UserData: userData})
}

// dismiss answers everybody in the queue with an error.
func (i *Issuer) dismiss(cause error) {
	for {
		select {
		case w := <-i.queue:
			w.answer <- answer{err: fmt.Errorf("issuer: stopped: %w", cause)}
		default:
			return
		}
	}
}
