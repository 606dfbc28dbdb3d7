package hops

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/report"
)

// Loop is the generator of loads that are work in this process.
const Loop = "loop"

// documentPath asks for a document in nitriding's form, which is made for it alone.
const documentPath = "/enclave/attestation?nonce=0123456789abcdef0123456789abcdef01234567"

// moduleTakes is how long a real module needs for a document.
const moduleTakes = "1.1ms"

// attestHop has the enclave make documents, and nothing else. The module is
// simulated; a real one answers some 860 a second.
func attestHop() Hop {
	load := func(name string, clients int) report.Load {
		return report.Load{Name: name, Generator: "openloop", Kind: report.Documents, Connections: clients}
	}
	return Hop{
		Name: "attest", About: "attestation documents by a simulated module, over TLS", Baseline: "enclave",
		Loads: []report.Load{load("1 client", 1), load("32 clients", 32)},
		Variants: []Variant{{"enclave", true, func(s *Setup) error {
			err := s.enclaveAlone("--fqdn", name)
			s.running.URL = strings.TrimSuffix(s.running.URL, smallAnswer) + documentPath
			return err
		}}},
	}
}

// evidenceHop has many clients get documents that they share, each with its own nonce
// and path, from a module that takes as long for a document as a real one. The last
// load is what is asked of it; its latency is what clients wait.
func evidenceHop() Hop {
	load := func(name string, clients int, offered float64) report.Load {
		return report.Load{Name: name, Generator: "openloop", Kind: report.Documents, Connections: clients, Offered: offered}
	}
	return Hop{
		Name: "evidence", About: "the same for clients that share them, by a module that takes " + moduleTakes, Baseline: "enclave",
		Loads: []report.Load{load("32 clients", 32, 0), load("256 clients", 256, 0), load("10000/s", 512, 10000)},
		Variants: []Variant{{"enclave", true, func(s *Setup) error {
			err := s.enclaveAlone("--fqdn", name, "--nsm-latency", moduleTakes)
			s.running.URL = strings.TrimSuffix(s.running.URL, smallAnswer) + documentPath
			s.running.Accept = "application/json"
			return err
		}}},
	}
}

// verifyHop checks a document as clients do, without fetching it.
func verifyHop() Hop {
	return Hop{
		Name: "verify", About: "a client checks a document: chain, signature, content", Baseline: "corridor",
		Loads:    []report.Load{{Name: "one after the other", Generator: Loop, Kind: report.Documents, Connections: 1}},
		Variants: []Variant{{"corridor", true, (*Setup).verifier}},
	}
}

// verifier makes a document to verify again and again, in this process.
func (s *Setup) verifier() error {
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: "bench"})
	if err != nil {
		return err
	}
	session := nsm.NewSession(module)
	defer session.Close()
	raw, err := session.Attest(s.ctx, nsm.AttestationRequest{Nonce: make([]byte, 20)})
	if err != nil {
		return err
	}
	block, _ := pem.Decode(module.RootPEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	v := attestation.Verifier{Roots: []*x509.Certificate{root}}
	s.running.Work = func(context.Context) error {
		_, err := v.Verify(raw)
		return err
	}
	s.running.Accounts = []ledger.Account{{Name: "bench", Role: report.Subject, PID: os.Getpid()}}
	return nil
}
