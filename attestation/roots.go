package attestation

import (
	"crypto/x509"
	_ "embed" // the root is part of the program, so that nobody can swap a file
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
