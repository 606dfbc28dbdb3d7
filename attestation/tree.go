package attestation

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/bits"
)

// Sizes of what a leaf is made of, in bytes.
const (
	// MinTreeNonce is the least that nobody can guess.
	MinTreeNonce = 16
	// MaxTreeNonce is the largest nonce of a leaf.
	MaxTreeNonce = 64
	// ExporterSize is the size of a tls-exporter (RFC 9266, section 2).
	ExporterSize = 32
)

// A Tree is a Merkle tree over the nonces of many clients, as in RFC 6962,
// section 2.1; USER_DATA.md defines its leaves. It is read-only once made.
//
//	levels[2]              root
//	                      /    \
//	levels[1]         node      \
//	                 /    \      \
//	levels[0]     leaf    leaf   leaf      the last one of an odd level moves up
type Tree struct {
	levels [][]Digest
}

// NewTree returns the tree over the given leaves, 1 to MaxTree of them.
func NewTree(leaves []Digest) (*Tree, error) {
	if len(leaves) == 0 || len(leaves) > MaxTree {
		return nil, fmt.Errorf("attestation: tree of %d leaves, allowed are 1 to %d", len(leaves), MaxTree)
	}
	t := &Tree{levels: [][]Digest{leaves}}
	for level := leaves; len(level) > 1; {
		above := make([]Digest, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			above = append(above, nodeHash(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			above = append(above, level[len(level)-1])
		}
		t.levels = append(t.levels, above)
		level = above
	}
	return t, nil
}

// Head returns what a statement says of the tree.
func (t *Tree) Head() TreeHead {
	return TreeHead{Size: uint32(len(t.levels[0])), Root: t.levels[len(t.levels)-1][0]}
}

// Path returns the neighbours of the i-th leaf from below up to the root, by
// which somebody who knows the leaf computes the root.
func (t *Tree) Path(i int) []Digest {
	path := make([]Digest, 0, len(t.levels)-1)
	for _, level := range t.levels[:len(t.levels)-1] {
		if neighbour := i ^ 1; neighbour < len(level) {
			path = append(path, level[neighbour])
		}
		i /= 2
	}
	return path
}

// LeafHash returns the leaf of a nonce and, unless it is nil, the exporter of the
// connection that the nonce came by. Other sizes than the allowed are an error.
func LeafHash(nonce, exporter []byte) (Digest, error) {
	if len(nonce) < MinTreeNonce || len(nonce) > MaxTreeNonce {
		return Digest{}, fmt.Errorf("attestation: nonce of %d bytes, allowed are %d to %d", len(nonce), MinTreeNonce, MaxTreeNonce)
	}
	if exporter != nil && len(exporter) != ExporterSize {
		return Digest{}, fmt.Errorf("attestation: exporter of %d bytes instead of %d", len(exporter), ExporterSize)
	}
	var b [2 + MaxTreeNonce + ExporterSize]byte
	b[0], b[1] = 0x00, byte(len(nonce))
	n := 2 + copy(b[2:], nonce)
	n += copy(b[n:], exporter)
	return sha256.Sum256(b[:n]), nil
}

func nodeHash(left, right Digest) Digest {
	var b [1 + 2*sha256.Size]byte
	b[0] = 0x01
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// checkPath says whether a leaf is at the index of the tree with that head
// (RFC 9162, section 2.1.3.2).
func checkPath(leaf Digest, index uint32, path []Digest, head TreeHead) error {
	if index >= head.Size {
		return fmt.Errorf("leaf %d of a tree of %d", index, head.Size)
	}
	if len(path) > bits.Len32(head.Size-1) {
		return fmt.Errorf("a path of %d steps is too long for a tree of %d leaves", len(path), head.Size)
	}
	at, last := index, head.Size-1
	for _, neighbour := range path {
		if last == 0 {
			return errors.New("the path goes beyond the root")
		}
		if at&1 == 1 || at == last {
			leaf = nodeHash(neighbour, leaf)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			leaf = nodeHash(leaf, neighbour)
		}
		at, last = at>>1, last>>1
	}
	if last != 0 {
		return errors.New("the path ends below the root")
	}
	if subtle.ConstantTimeCompare(leaf[:], head.Root[:]) != 1 {
		return errors.New("the path does not lead to the signed root")
	}
	return nil
}
