package attestation

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Purpose says what a document was made for. A document of one purpose proves
// nothing for another.
type Purpose uint8

// The purposes; USER_DATA.md says who makes each for whom.
const (
	PurposeClient Purpose = 1 + iota
	PurposePeer
	PurposeKMS
	PurposeApp
	PurposeBatch
)

// String returns the purpose's name in USER_DATA.md.
func (p Purpose) String() string {
	names := [...]string{PurposeClient: "client", PurposePeer: "peer", PurposeKMS: "kms", PurposeApp: "app", PurposeBatch: "batch"}
	if p == 0 || int(p) >= len(names) {
		return fmt.Sprintf("purpose %d", uint8(p))
	}
	return names[p]
}

// provesConnection says whether the purpose is about the other end of a TLS
// connection.
func (p Purpose) provesConnection() bool { return p == PurposeClient || p == PurposeBatch }

const (
	// MaxStatement is the size of an encoded statement in bytes.
	MaxStatement = 512
	// MaxKeys is how many keys, and how many certificates, a statement may name:
	// as many as fit beside everything else.
	MaxKeys = 6
	// MaxTree is the number of leaves of a tree.
	MaxTree = 1 << 16

	statementMagic   = "CORRIDOR"
	statementVersion = 1
)

// The tags of a statement's fields, in the order in which they come.
const (
	tagKeys byte = 1 + iota
	tagCertificates
	tagApp
	tagConfig
	tagTree
)

// A Digest is a SHA-256 digest, of whatever the field it stands in says.
type Digest = [sha256.Size]byte

// A Statement is what an enclave says about itself in the user data of a
// document. USER_DATA.md draws its bytes.
type Statement struct {
	Purpose      Purpose
	Keys         []Digest // of the SubjectPublicKeyInfo of each TLS key in use
	Certificates []Digest // of each leaf certificate in use, in DER
	App          Digest   // as the app has set it; zero if it has not
	Config       Digest   // of the configuration given at start; zero if none
	Tree         TreeHead // of PurposeBatch alone
}

// A TreeHead names a Merkle tree of nonces.
type TreeHead struct {
	Size uint32 // leaves; 0 means that there is no tree
	Root Digest
}

// Encode returns the statement's one encoding. The lists are put in order and
// freed of repetitions. Errors are the caller's mistakes.
func (s Statement) Encode() ([]byte, error) {
	s.Keys, s.Certificates = inOrder(s.Keys), inOrder(s.Certificates)
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("attestation: statement: %w", err)
	}
	b := append([]byte(statementMagic), statementVersion, byte(s.Purpose))
	b = appendDigests(b, tagKeys, s.Keys...)
	b = appendDigests(b, tagCertificates, s.Certificates...)
	if s.App != (Digest{}) {
		b = appendDigests(b, tagApp, s.App)
	}
	if s.Config != (Digest{}) {
		b = appendDigests(b, tagConfig, s.Config)
	}
	if s.Tree.Size != 0 {
		b = append(b, tagTree, 0, 4+sha256.Size)
		b = binary.BigEndian.AppendUint32(b, s.Tree.Size)
		b = append(b, s.Tree.Root[:]...)
	}
	return b, nil
}

func compareDigests(a, b Digest) int { return bytes.Compare(a[:], b[:]) }

func inOrder(list []Digest) []Digest {
	list = slices.Clone(list)
	slices.SortFunc(list, compareDigests)
	return slices.Compact(list)
}

func appendDigests(b []byte, tag byte, digests ...Digest) []byte {
	if len(digests) == 0 {
		return b
	}
	b = append(b, tag)
	b = binary.BigEndian.AppendUint16(b, uint16(len(digests)*sha256.Size))
	for _, d := range digests {
		b = append(b, d[:]...)
	}
	return b
}

// check holds a statement to what does not follow from its encoding.
func (s *Statement) check() error {
	switch {
	case s.Purpose == 0 || s.Purpose > PurposeBatch:
		return fmt.Errorf("there is no %v", s.Purpose)
	case s.Purpose.provesConnection() != (len(s.Keys) > 0):
		return fmt.Errorf("%d keys do not go with the purpose %v", len(s.Keys), s.Purpose)
	case !s.Purpose.provesConnection() && len(s.Certificates) > 0:
		return fmt.Errorf("certificates do not go with the purpose %v", s.Purpose)
	case max(len(s.Keys), len(s.Certificates)) > MaxKeys:
		return fmt.Errorf("%d keys and %d certificates, the limit is %d each", len(s.Keys), len(s.Certificates), MaxKeys)
	case (s.Purpose == PurposeBatch) != (s.Tree.Size > 0):
		return fmt.Errorf("a tree of %d leaves does not go with the purpose %v", s.Tree.Size, s.Purpose)
	case s.Tree.Size > MaxTree:
		return fmt.Errorf("a tree of %d leaves, the limit is %d", s.Tree.Size, MaxTree)
	}
	return nil
}

// IsStatement says whether user data claims to be a statement, of whatever
// version, and not something else such as nitriding's layout.
func IsStatement(userData []byte) bool { return bytes.HasPrefix(userData, []byte(statementMagic)) }

// ParseStatement decodes the user data of a document. Anything but the one
// encoding of a statement of this version is an error.
func ParseStatement(userData []byte) (Statement, error) {
	s, err := parseStatement(userData)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return Statement{}, fmt.Errorf("attestation: statement: %w", err)
	}
	return s, nil
}

func parseStatement(b []byte) (Statement, error) {
	const head = len(statementMagic) + 2
	switch {
	case len(b) > MaxStatement:
		return Statement{}, fmt.Errorf("%d bytes, the limit is %d", len(b), MaxStatement)
	case !IsStatement(b) || len(b) < head:
		return Statement{}, errors.New("the user data is none")
	case b[head-2] != statementVersion:
		return Statement{}, fmt.Errorf("version %d is not known", b[head-2])
	}
	s := Statement{Purpose: Purpose(b[head-1])}
	last := byte(0)
	for b = b[head:]; len(b) > 0; {
		if len(b) < 3 {
			return Statement{}, errors.New("cut off in the head of a field")
		}
		tag, n := b[0], int(binary.BigEndian.Uint16(b[1:]))
		b = b[3:]
		if tag <= last {
			return Statement{}, fmt.Errorf("field %d comes behind field %d", tag, last)
		}
		if n > len(b) {
			return Statement{}, fmt.Errorf("field %d is cut off", tag)
		}
		if err := s.setField(tag, b[:n]); err != nil {
			return Statement{}, fmt.Errorf("field %d: %w", tag, err)
		}
		last, b = tag, b[n:]
	}
	return s, nil
}

func (s *Statement) setField(tag byte, value []byte) (err error) {
	switch tag {
	case tagKeys:
		s.Keys, err = parseDigests(value)
	case tagCertificates:
		s.Certificates, err = parseDigests(value)
	case tagApp:
		s.App, err = parseDigest(value)
	case tagConfig:
		s.Config, err = parseDigest(value)
	case tagTree:
		if len(value) != 4+sha256.Size {
			return fmt.Errorf("%d bytes instead of %d", len(value), 4+sha256.Size)
		}
		s.Tree.Size = binary.BigEndian.Uint32(value)
		copy(s.Tree.Root[:], value[4:])
		if s.Tree.Size == 0 {
			return errors.New("a tree without leaves")
		}
	default:
		return errors.New("not known")
	}
	return err
}

func parseDigests(value []byte) ([]Digest, error) {
	if len(value) == 0 || len(value)%sha256.Size != 0 {
		return nil, fmt.Errorf("%d bytes are no digests", len(value))
	}
	list := make([]Digest, len(value)/sha256.Size)
	for i := range list {
		copy(list[i][:], value[i*sha256.Size:])
		if i > 0 && compareDigests(list[i-1], list[i]) >= 0 {
			return nil, errors.New("digests are not in ascending order")
		}
	}
	return list, nil
}

// parseDigest takes one digest that is not zero, because zero means absent.
func parseDigest(value []byte) (d Digest, err error) {
	if len(value) != sha256.Size {
		return d, fmt.Errorf("%d bytes instead of %d", len(value), sha256.Size)
	}
	copy(d[:], value)
	if d == (Digest{}) {
		return d, errors.New("all zero")
	}
	return d, nil
}
