package merkle_test

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest/merkle"
)

func leaves(n int) []merkle.Hash {
	out := make([]merkle.Hash, n)
	for i := range out {
		out[i] = sha256.Sum256(binary.BigEndian.AppendUint64([]byte{0}, uint64(i)))
	}
	return out
}

// reference is the definition of RFC 9162 section 2.1.1, word by word.
func reference(d []merkle.Hash) merkle.Hash {
	if len(d) == 1 {
		return d[0]
	}
	k := 1
	for k*2 < len(d) {
		k *= 2
	}
	left, right := reference(d[:k]), reference(d[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

// path is the definition of RFC 9162 section 2.1.3.1.
func path(m int, d []merkle.Hash) []merkle.Hash {
	if len(d) == 1 {
		return nil
	}
	k := 1
	for k*2 < len(d) {
		k *= 2
	}
	if m < k {
		return append(path(m, d[:k]), reference(d[k:]))
	}
	return append(path(m-k, d[k:]), reference(d[:k]))
}

func TestAgainstTheDefinition(t *testing.T) {
	for n := 1; n <= 70; n++ {
		d := leaves(n)
		tree := merkle.New(d)
		if tree.Root() != reference(d) || tree.Size() != uint64(n) {
			t.Fatalf("root of %d leaves", n)
		}
		for i := range n {
			proof := tree.Proof(uint64(i))
			if !slices.Equal(proof, path(i, d)) {
				t.Fatalf("proof of leaf %d of %d", i, n)
			}
			if root, ok := merkle.Root(d[i], uint64(i), uint64(n), proof); !ok || root != tree.Root() {
				t.Fatalf("leaf %d of %d does not verify", i, n)
			}
		}
	}
}

// No other index, size, leaf or proof leads to the same root.
func TestNothingElseVerifies(t *testing.T) {
	for n := 1; n <= 20; n++ {
		d := leaves(n)
		tree := merkle.New(d)
		want := tree.Root()
		for i := range n {
			proof := tree.Proof(uint64(i))
			accepts := func(leaf merkle.Hash, index, size uint64, proof []merkle.Hash) bool {
				root, ok := merkle.Root(leaf, index, size, proof)
				return ok && root == want
			}
			for j := range uint64(24) {
				if j != uint64(i) && accepts(d[i], j, uint64(n), proof) {
					t.Fatalf("leaf %d of %d verifies at index %d", i, n, j)
				}
			}
			for j := range proof {
				bad := slices.Clone(proof)
				bad[j][0] ^= 1
				if accepts(d[i], uint64(i), uint64(n), bad) || accepts(d[i], uint64(i), uint64(n), slices.Delete(slices.Clone(proof), j, j+1)) {
					t.Fatalf("leaf %d of %d verifies with another proof", i, n)
				}
			}
			// A proof that is too long leads nowhere, not only elsewhere.
			for extra := range 3 {
				longer := append(slices.Clone(proof), make([]merkle.Hash, extra+1)...)
				if root, ok := merkle.Root(d[i], uint64(i), uint64(n), longer); ok || root != (merkle.Hash{}) {
					t.Fatalf("leaf %d of %d leads somewhere with a proof that is longer by %d", i, n, extra+1)
				}
			}
			if root, ok := merkle.Root(d[i], uint64(n), uint64(n), proof); ok || root != (merkle.Hash{}) {
				t.Fatalf("a leaf outside of %d leads somewhere", n)
			}
			if other := (merkle.Hash{1}); accepts(other, uint64(i), uint64(n), proof) {
				t.Fatal("another leaf verifies")
			}
			if accepts(d[i], uint64(i), 0, proof) {
				t.Fatal("verifies in an empty tree")
			}
		}
	}
}

func TestLongestProof(t *testing.T) {
	longest := make([]merkle.Hash, merkle.MaxProof)
	if _, ok := merkle.Root(merkle.Hash{}, 0, 1<<32, longest); !ok {
		t.Error("the longest proof is refused")
	}
	if root, ok := merkle.Root(merkle.Hash{}, 0, 1<<33, append(longest, merkle.Hash{})); ok || root != (merkle.Hash{}) {
		t.Error("a longer one leads somewhere")
	}
}

// Whoever chooses both roots can have them reached by a proof that ends too early or goes on too long. It is refused for
// its length.
func TestConsistentByLength(t *testing.T) {
	a, b, c, d := merkle.Hash{1}, merkle.Hash{2}, merkle.Hash{3}, merkle.Hash{4}
	node := merkle.Node
	for _, x := range []struct {
		old, now merkle.Hash
		proof    []merkle.Hash
		want     bool
	}{
		{node(c, a), node(c, node(a, b)), []merkle.Hash{a, b, c}, true},
		{a, node(a, b), []merkle.Hash{a, b}, false},
		{node(d, node(c, a)), node(d, node(c, node(a, b))), []merkle.Hash{a, b, c, d}, false},
	} {
		if merkle.Consistent(3, x.old, 4, x.now, x.proof) != x.want {
			t.Errorf("a proof of %d hashes: %v", len(x.proof), !x.want)
		}
	}
}

func FuzzRoot(f *testing.F) {
	f.Add(uint64(3), uint64(7), []byte("x"))
	f.Fuzz(func(_ *testing.T, index, size uint64, raw []byte) {
		var proof []merkle.Hash
		for len(raw) >= 32 {
			proof = append(proof, merkle.Hash(raw[:32]))
			raw = raw[32:]
		}
		merkle.Root(merkle.Hash{}, index, size, proof)
	})
}

// subproof is the definition of RFC 9162 section 2.1.4.1.
func subproof(m int, d []merkle.Hash, whole bool) []merkle.Hash {
	if m == len(d) {
		if whole {
			return nil
		}
		return []merkle.Hash{reference(d)}
	}
	k := 1
	for k*2 < len(d) {
		k *= 2
	}
	if m <= k {
		return append(subproof(m, d[:k], whole), reference(d[k:]))
	}
	return append(subproof(m-k, d[k:], false), reference(d[:k]))
}

func TestConsistencyAgainstTheDefinition(t *testing.T) {
	for n := 1; n <= 40; n++ {
		d := leaves(n)
		tree := merkle.New(d)
		for m := 1; m <= n; m++ {
			old, ok := tree.RootAt(uint64(m))
			if !ok || old != reference(d[:m]) {
				t.Fatalf("root of the first %d of %d", m, n)
			}
			proof, ok := tree.Consistency(uint64(m))
			if !ok || !slices.Equal(proof, subproof(m, d, true)) {
				t.Fatalf("proof of %d in %d", m, n)
			}
			if !merkle.Consistent(uint64(m), old, uint64(n), tree.Root(), proof) {
				t.Fatalf("%d in %d is not consistent", m, n)
			}
			// Any other root, size or proof is not.
			other := old
			other[0] ^= 1
			bad := merkle.Consistent(uint64(m), other, uint64(n), tree.Root(), proof) ||
				merkle.Consistent(uint64(m), old, uint64(n), other, proof) ||
				merkle.Consistent(uint64(m), old, uint64(n), tree.Root(), append(slices.Clone(proof), old))
			for i := range proof {
				wrong := slices.Clone(proof)
				wrong[i][3] ^= 4
				bad = bad || merkle.Consistent(uint64(m), old, uint64(n), tree.Root(), wrong) ||
					merkle.Consistent(uint64(m), old, uint64(n), tree.Root(), proof[:i])
			}
			if bad {
				t.Fatalf("%d in %d: a wrong proof is accepted", m, n)
			}
		}
		if _, ok := tree.RootAt(uint64(n + 1)); ok {
			t.Fatal("root of more than there are")
		}
		if _, ok := tree.Consistency(0); ok {
			t.Fatal("a proof of nothing")
		}
		if _, ok := tree.RootAt(0); ok {
			t.Fatal("root of nothing")
		}
		if _, ok := tree.Consistency(uint64(n + 1)); ok {
			t.Fatal("a proof of more than there are")
		}
	}
	if merkle.Consistent(0, merkle.Hash{}, 1, merkle.Hash{}, nil) || merkle.Consistent(2, merkle.Hash{}, 1, merkle.Hash{}, nil) {
		t.Fatal("sizes that cannot be")
	}
}
