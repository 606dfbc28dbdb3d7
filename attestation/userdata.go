package attestation

import (
	"crypto/sha256"
	"fmt"
)

// nitriding's user data is two multihashes, one after the other:
//
//	0    1    2                            34   35   36                          68
//	+----+----+----------------------------+----+----+----------------------------+
//	| 12 | 20 | SHA-256 of the leaf, DER   | 12 | 20 | SHA-256 the app has set    |
//	+----+----+----------------------------+----+----+----------------------------+
//
// The second digest is zero while the app has set none.
const (
	multihashSHA256 = 0x12 // code of sha2-256, and the length of its digest
	multihashLength = sha256.Size
	multihashSize   = 2 + sha256.Size

	// NitridingUserDataSize is the size of nitriding's user data in bytes.
	NitridingUserDataSize = 2 * multihashSize
)

// NitridingUserData returns the user data that binds the TLS certificate certDER
// and the app's own hash, zero if it has none, to a document.
func NitridingUserData(certDER []byte, appKeyHash [32]byte) []byte {
	cert := sha256.Sum256(certDER)
	b := make([]byte, 0, NitridingUserDataSize)
	b = appendMultihash(b, cert)
	return appendMultihash(b, appKeyHash)
}

func appendMultihash(b []byte, digest [32]byte) []byte {
	b = append(b, multihashSHA256, multihashLength)
	return append(b, digest[:]...)
}

// ParseNitridingUserData is the inverse: it returns the SHA-256 of the
// certificate and the app's hash. Anything but exactly that shape is an error.
func ParseNitridingUserData(b []byte) (cert, app [32]byte, err error) {
	cert, app, err = splitUserData(b)
	if err != nil {
		return cert, app, fmt.Errorf("attestation: %v", err)
	}
	return cert, app, nil
}

func splitUserData(b []byte) (cert, app [32]byte, err error) {
	if len(b) != NitridingUserDataSize {
		return cert, app, fmt.Errorf("user data of %d bytes instead of %d", len(b), NitridingUserDataSize)
	}
	for _, half := range [][]byte{b[:multihashSize], b[multihashSize:]} {
		if half[0] != multihashSHA256 || half[1] != multihashLength {
			return cert, app, fmt.Errorf("user data holds multihash %02x %02x instead of sha2-256", half[0], half[1])
		}
	}
	copy(cert[:], b[2:multihashSize])
	copy(app[:], b[multihashSize+2:])
	return cert, app, nil
}
