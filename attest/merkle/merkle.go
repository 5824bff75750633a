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

// Node is the hash of an inner node.
func Node(left, right Hash) Hash {
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
			next = append(next, Node(level[i], level[i+1]))
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
			r = Node(sibling, r)
			// Levels at which this node had no sibling are passed over. The index is odd, or last, and not zero.
			skip := bits.TrailingZeros64(index)
			index, last = index>>skip, last>>skip
		} else {
			r = Node(r, sibling)
		}
		index >>= 1
		last >>= 1
	}
	return r, last == 0
}

// span is the root of the leaves from index from to below to, where from is a multiple of the next power of two: the
// subtrees that RFC 9162 splits a tree into.
func (t *Tree) span(from, to uint64) Hash {
	n := to - from
	if n&(n-1) == 0 {
		return t.levels[bits.TrailingZeros64(n)][from/n]
	}
	k := split(n)
	return Node(t.span(from, from+k), t.span(from+k, to))
}

// split is the largest power of two below n, which is at least 2.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// RootAt is the root that the tree had when it was of the given size, from 1 to Size.
func (t *Tree) RootAt(size uint64) (Hash, bool) {
	if size == 0 || size > t.Size() {
		return Hash{}, false
	}
	return t.span(0, size), true
}

// Consistency is the proof that the first old leaves of the tree are unchanged (RFC 9162 section 2.1.4.1); old is from 1 to
// Size.
func (t *Tree) Consistency(old uint64) ([]Hash, bool) {
	if old == 0 || old > t.Size() {
		return nil, false
	}
	var proof []Hash
	from, to, whole := uint64(0), t.Size(), true
	var right []Hash // the other halves, from the top
	for old < to-from {
		k := split(to - from)
		if old <= k {
			right = append(right, t.span(from+k, to))
			to = from + k
		} else {
			right = append(right, t.span(from, from+k))
			from, old, whole = from+k, old-k, false
		}
	}
	if !whole {
		proof = append(proof, t.span(from, to))
	}
	for i := len(right) - 1; i >= 0; i-- {
		proof = append(proof, right[i])
	}
	return proof, true
}

// Consistent reports whether a tree of the size and root now has a tree of the size and root old as its beginning (RFC
// 9162 section 2.1.4.2).
func Consistent(old uint64, oldRoot Hash, now uint64, nowRoot Hash, proof []Hash) bool {
	if old == 0 || old > now {
		return false
	}
	if old == now {
		return len(proof) == 0 && oldRoot == nowRoot
	}
	if old&(old-1) == 0 {
		proof = append([]Hash{oldRoot}, proof...)
	}
	if len(proof) == 0 {
		return false
	}
	fn, sn := old-1, now-1
	skip := bits.TrailingZeros64(^fn) // while the lowest bit of fn is set
	fn, sn = fn>>skip, sn>>skip
	fr, sr := proof[0], proof[0]
	for _, c := range proof[1:] {
		if sn == 0 {
			return false
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = Node(c, fr), Node(c, sr)
			skip := bits.TrailingZeros64(fn) // it is odd, or sn, and not zero
			fn, sn = fn>>skip, sn>>skip
		} else {
			sr = Node(sr, c)
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && fr == oldRoot && sr == nowRoot
}
