// Package merkle is the hash tree of RFC 9162 section 2.1 over SHA-256, with leaves that are hashed already.
package merkle

import (
	"crypto/sha256"
	"math/bits"
)

// Hash is a node of the tree. A leaf has to be domain-separated from nodes by its maker: SHA-256 over 0x00 and its content.
type Hash = [sha256.Size]byte

// MaxProof is the longest inclusion proof: of a tree with 2^32 leaves.
const MaxProof = 32

func node(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 0x01
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// Tree is complete: its root and every proof can be had. The zero Tree is of no leaves and has no root.
type Tree struct {
	levels [][]Hash // levels[0] are the leaves
}

// New builds the tree over at least one leaf.
func New(leaves []Hash) *Tree {
	t := &Tree{levels: [][]Hash{leaves}}
	for level := leaves; len(level) > 1; {
		// A last node without a sibling moves up as it is: this gives the tree of RFC 9162, which splits at the largest power
		// of two.
		next := make([]Hash, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			next = append(next, node(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			next = append(next, level[len(level)-1])
		}
		t.levels = append(t.levels, next)
		level = next
	}
	return t
}

// Root is that of the tree.
func (t *Tree) Root() Hash { return t.levels[len(t.levels)-1][0] }

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return uint64(len(t.levels[0])) }

// Proof is the inclusion proof of the leaf at index (RFC 9162 section 2.1.3.1).
func (t *Tree) Proof(index uint64) []Hash {
	proof := make([]Hash, 0, len(t.levels))
	for _, level := range t.levels[:len(t.levels)-1] {
		if sibling := index ^ 1; sibling < uint64(len(level)) {
			proof = append(proof, level[sibling])
		}
		index >>= 1
	}
	return proof
}

// Root computes the root that a leaf at index leads to in a tree of the given size (RFC 9162 section 2.1.3.2). It reports
// false for a proof of the wrong length or an index outside of the tree: each leaf has exactly one proof.
func Root(leaf Hash, index, size uint64, proof []Hash) (Hash, bool) {
	if index >= size || len(proof) > MaxProof {
		return Hash{}, false
	}
	r := leaf
	last := size - 1
	for _, sibling := range proof {
		if last == 0 {
			return Hash{}, false
		}
		if index&1 == 1 || index == last {
			r = node(sibling, r)
			// Levels at which this node had no sibling are passed over.
			if index&1 == 0 {
				skip := bits.TrailingZeros64(index) // index is last here, and not zero
				index >>= skip
				last >>= skip
			}
		} else {
			r = node(r, sibling)
		}
		index >>= 1
		last >>= 1
	}
	return r, last == 0
}
