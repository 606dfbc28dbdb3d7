package client_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/client"
)

// A client that talks to one image and to nothing else.
func ExampleNewTransport() {
	root, err := attestation.AWSRoot()
	if err != nil {
		fmt.Println(err)
		return
	}
	// The register is the one that `attest eif pcr` prints.
	image := attestation.Accept{Name: "release 1.4", PCRs: map[int][]byte{0: attestation.Measure([]byte("kernel, command line, ramdisks"))}}
	policy, err := attestation.NewPolicy([]attestation.Accept{image}, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	dialer, err := client.NewDialer(client.Config{Roots: []*x509.Certificate{root}, Policy: policy})
	if err != nil {
		fmt.Println(err)
		return
	}
	c := http.Client{Transport: client.NewTransport(dialer)}
	_, err = c.Get("http://service.example.com/")
	fmt.Println(errors.Is(err, attestation.ErrNotGenuine), err)
	// Output: false Get "http://service.example.com/": client: http://service.example.com: only https can be verified
}
