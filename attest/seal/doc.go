// Package seal keeps bytes on a disk that somebody else owns: encrypted and authenticated under a key that only this
// software on this machine can have.
//
//	s, err := seal.New("snp", snp.KeySource{})
//	sealed, err := s.Seal("xds/accepted", plain)
//	plain, err = s.Open("xds/accepted", sealed)
//
// # What is sealed with
//
// A Source, which each TEE that can has in its own package, gives a root secret and a hint, which is public and gets the
// same root again later. The hint is kept in front of what is sealed with its root, so that a restart needs nothing beside it.
// From the root, 32 random bytes and the context, HKDF-SHA256 (RFC 5869) makes a key that seals once, with AES-256-GCM and a
// random nonce. All that stands in front, and the context, are authenticated with it.
//
// What is sealed is
//
//	"jurat sealed 1\n"  the format
//	1+n bytes           the platform, behind its length
//	2+n bytes           the hint, behind its length (big endian)
//	32 bytes            random
//	16 bytes            made of the root, to tell another machine or other software
//	16 bytes            made of the root and the context, to tell another name
//	12 bytes            nonce
//	n+16 bytes          ciphertext and tag
//
// The two values of 16 bytes only tell why something can't be opened, and commit to the key; a flipped bit in them is a
// refusal like any other.
//
// # What it does not do
//
// Nothing tells that what is opened is the latest: who owns the disk can put back what was sealed before under the same
// context, or take it away. How much is sealed, when, and under which file name is not hidden. A key of the platform is not
// erased by erasing what was sealed with it.
package seal
