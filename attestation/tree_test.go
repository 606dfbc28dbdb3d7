package attestation_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/attestation"
)

// rfc6962 is the tree's definition, word for word (section 2.1), and slow.
func rfc6962(leaves []attestation.Digest) attestation.Digest {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := rfc6962(leaves[:k]), rfc6962(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func nonceOf(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 12), uint64(i)) }

func leavesOf(t testing.TB, n int) []attestation.Digest {
	t.Helper()
	leaves := make([]attestation.Digest, n)
	for i := range leaves {
		var err error
		if leaves[i], err = attestation.LeafHash(nonceOf(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	return leaves
}

func newTree(t testing.TB, n int) *attestation.Tree {
	t.Helper()
	tree, err := attestation.NewTree(leavesOf(t, n))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// batched is a document of a tree, as if it were verified.
func batched(t testing.TB, head attestation.TreeHead) *attestation.Document {
	t.Helper()
	s := attestation.Statement{Purpose: attestation.PurposeBatch, Keys: []attestation.Digest{{1}}, Tree: head}
	encoded, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &attestation.Document{Claims: attestation.Claims{UserData: encoded}}
}

// Every leaf of every small tree has a path that holds, and no other place or
// other leaf has it.
func TestTreePaths(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 33; n++ {
		tree := newTree(t, n)
		head := tree.Head()
		if head.Root != rfc6962(leavesOf(t, n)) || int(head.Size) != n {
			t.Fatalf("tree of %d: root %x of %d leaves is not RFC 6962's", n, head.Root[:4], head.Size)
		}
		d := batched(t, head)
		for i := range n {
			proof := attestation.Proof{Index: uint32(i), Size: head.Size, Path: tree.Path(i)}
			if err := (attestation.Freshness{Nonce: nonceOf(i), Proof: &proof}).CheckNonce(d); err != nil {
				t.Fatalf("tree of %d, leaf %d: %v", n, i, err)
			}
			for j := range n + 1 {
				moved := proof
				moved.Index = uint32(j)
				err := attestation.Freshness{Nonce: nonceOf(i), Proof: &moved}.CheckNonce(d)
				if i != j && !errors.Is(err, attestation.ErrNotFresh) {
					t.Fatalf("tree of %d, leaf %d passes for %d: %v", n, i, j, err)
				}
				err = attestation.Freshness{Nonce: nonceOf(j), Proof: &proof}.CheckNonce(d)
				if i != j && !errors.Is(err, attestation.ErrNotFresh) {
					t.Fatalf("tree of %d, nonce %d passes for %d: %v", n, j, i, err)
				}
			}
		}
	}
}

func TestTreeVectors(t *testing.T) {
	t.Parallel()
	for _, tt := range readVectors(t).Trees {
		t.Run(tt.Name, func(t *testing.T) {
			t.Parallel()
			var leaves []attestation.Digest
			for _, n := range tt.Nonces {
				var exporter []byte
				if n.Exporter != "" {
					exporter = unhex(t, n.Exporter)
				}
				leaf, err := attestation.LeafHash(unhex(t, n.Nonce), exporter)
				if err != nil || hex.EncodeToString(leaf[:]) != n.Leaf {
					t.Fatalf("leaf of %s is %x, %v; want %s", n.Nonce, leaf, err, n.Leaf)
				}
				leaves = append(leaves, leaf)
			}
			tree, err := attestation.NewTree(leaves)
			if err != nil {
				t.Fatal(err)
			}
			if root := tree.Head().Root; hex.EncodeToString(root[:]) != tt.Root {
				t.Errorf("root %x, want %s", root, tt.Root)
			}
			for i, want := range tt.Paths {
				if got := tree.Path(i); fmt.Sprint(got) != fmt.Sprint(append([]attestation.Digest{}, digests(t, want)...)) {
					t.Errorf("path of leaf %d is %x, want %s", i, got, want)
				}
			}
		})
	}
}

func TestTreeRefuses(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, attestation.MaxTree + 1} {
		if tree, err := attestation.NewTree(make([]attestation.Digest, n)); tree != nil || err == nil {
			t.Errorf("there is a tree of %d leaves", n)
		}
	}
	for _, tt := range []struct{ nonce, exporter int }{{nonce: 15}, {nonce: 65}, {nonce: 16, exporter: 31}, {nonce: 16, exporter: 33}} {
		var exporter []byte
		if tt.exporter > 0 {
			exporter = make([]byte, tt.exporter)
		}
		if leaf, err := attestation.LeafHash(make([]byte, tt.nonce), exporter); err == nil || leaf != (attestation.Digest{}) {
			t.Errorf("there is a leaf of %d and %d bytes", tt.nonce, tt.exporter)
		}
	}
}

// A proof that is wrong in one thing only.
func TestFreshnessRefusesProofs(t *testing.T) {
	t.Parallel()
	const n, i = 5, 2
	exporter := bytes.Repeat([]byte{7}, 32)
	leaves := leavesOf(t, n)
	leaves[i], _ = attestation.LeafHash(nonceOf(i), exporter)
	tree, err := attestation.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	client, err := attestation.Statement{Purpose: attestation.PurposeClient, Keys: []attestation.Digest{{1}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := func() (*attestation.Document, *attestation.Freshness) {
		proof := &attestation.Proof{Index: i, Size: n, Path: tree.Path(i), Exporter: exporter}
		return batched(t, tree.Head()), &attestation.Freshness{Nonce: nonceOf(i), Proof: proof, Exporter: exporter}
	}
	tests := []struct {
		name string
		edit func(*attestation.Document, *attestation.Freshness)
		is   error
		want string
	}{
		{"no nonce", func(_ *attestation.Document, f *attestation.Freshness) { f.Nonce = nil }, attestation.ErrNotFresh, "no nonce"},
		{"short nonce", func(_ *attestation.Document, f *attestation.Freshness) { f.Nonce = []byte("short") }, attestation.ErrNotFresh, "nonce of 5 bytes"},
		{"no proof", func(_ *attestation.Document, f *attestation.Freshness) { f.Proof = nil }, attestation.ErrNotFresh, "no proof"},
		{"another size", func(_ *attestation.Document, f *attestation.Freshness) { f.Proof.Size++ }, attestation.ErrNotFresh, "tree of 6 leaves, the document's has 5"},
		{"step left out", func(_ *attestation.Document, f *attestation.Freshness) { f.Proof.Path = f.Proof.Path[1:] }, attestation.ErrNotFresh, "ends below"},
		{"step too many", func(_ *attestation.Document, f *attestation.Freshness) {
			f.Proof.Path = append(f.Proof.Path, attestation.Digest{})
		}, attestation.ErrNotFresh, "too long"},
		{"step changed", func(_ *attestation.Document, f *attestation.Freshness) { f.Proof.Path[1][0] ^= 1 }, attestation.ErrNotFresh, "does not lead"},
		{"exporter not asked for", func(_ *attestation.Document, f *attestation.Freshness) { f.Exporter = nil }, attestation.ErrNotFresh, "nobody asked"},
		{"exporter left out", func(_ *attestation.Document, f *attestation.Freshness) { f.Proof.Exporter = nil }, attestation.ErrNotThisConnection, "another TLS connection"},
		{"another exporter", func(_ *attestation.Document, f *attestation.Freshness) { f.Exporter = make([]byte, 32) }, attestation.ErrNotThisConnection, "another TLS connection"},
		{"exporter forged", func(_ *attestation.Document, f *attestation.Freshness) {
			f.Exporter = make([]byte, 32)
			f.Proof.Exporter = f.Exporter
		}, attestation.ErrNotFresh, "does not lead"},
		{"another purpose", func(d *attestation.Document, _ *attestation.Freshness) { d.UserData = client }, attestation.ErrNotFresh, "purpose client"},
		{"statement broken", func(d *attestation.Document, _ *attestation.Freshness) { d.UserData = d.UserData[:40] }, attestation.ErrNotFresh, "cut off"},
		{"nitriding's layout and an exporter", func(d *attestation.Document, f *attestation.Freshness) {
			d.UserData, d.Nonce = attestation.NitridingUserData(nil, [32]byte{}), f.Nonce
		}, attestation.ErrNotThisConnection, "names no connection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, f := good()
			if err := f.CheckNonce(d); err != nil {
				t.Fatalf("what is broken was not good: %v", err)
			}
			tt.edit(d, f)
			if err := f.CheckNonce(d); !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %v: %s", err, tt.is, tt.want)
			}
		})
	}
}

func BenchmarkTree(b *testing.B) {
	for _, n := range []int{1, 32, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			leaves := leavesOf(b, n)
			b.ReportAllocs()
			for b.Loop() {
				tree, err := attestation.NewTree(leaves)
				if err != nil {
					b.Fatal(err)
				}
				_ = tree.Path(n / 2)
			}
		})
	}
}
