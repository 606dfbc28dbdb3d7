package attestation

import (
	"crypto/x509"
	_ "embed" // the root is part of the program, so that nobody can swap a file
	"encoding/pem"
	"fmt"
)

//go:embed roots/aws-nitro-g1.der
var awsRootDER []byte

// AWSRoot returns the root of all Nitro Enclaves of the partition aws, valid
// 2019-10-28 to 2049-10-28. Its SHA-256 is the fingerprint that AWS publishes.
func AWSRoot() (*x509.Certificate, error) {
	root, err := x509.ParseCertificate(awsRootDER)
	if err != nil {
		return nil, fmt.Errorf("attestation: embedded root: %v", err)
	}
	return root, nil
}

// ParseRoots reads what to trust instead of AWS's root: one certificate in DER, or
// any number of them in PEM.
func ParseRoots(file []byte) ([]*x509.Certificate, error) {
	if block, _ := pem.Decode(file); block == nil {
		root, err := x509.ParseCertificate(file)
		if err != nil {
			return nil, fmt.Errorf("neither PEM nor a certificate in DER: %w", err)
		}
		return []*x509.Certificate{root}, nil
	}
	var roots []*x509.Certificate
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return roots, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s beside certificates", block.Type)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
}
