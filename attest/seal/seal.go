package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jurat-tls/jurat/attest"
)

// Limits, in bytes.
const (
	MaxPlain    = 64 << 20 // what can be sealed at once
	MaxContext  = 8192
	MaxPlatform = 32
	MaxHint     = 4096
	MinRoot     = 16 // the least of a root: processors of SGX give no more
)

const (
	header   = "jurat sealed 1\n"
	family   = "jurat sealed " // of any version
	saltSize = 32
	tagSize  = 16
	keySize  = 32
	overhead = 12 + 16 // nonce, tag

	check = "seal"
)

// maxRoots is how many roots are remembered. Somebody who writes many hints to a disk is not to fill the memory.
const maxRoots = 8

// A Source has the platform give secrets, each of MinRoot bytes or more.
type Source interface {
	// Root gives the secret that a hint stands for, and for the nil hint one to seal with from now on, beside its hint: at most
	// MaxHint bytes, which are public. Hints come from whoever owns the disk: an error says that there is no such secret for this
	// software here, with CodeSealForeign where that is what is wrong. It need not be safe for concurrent use.
	Root(hint []byte) (root, hintOfRoot []byte, err error)
}

// A Sealer seals under the secrets of one platform. Only New makes one that works; it is safe for concurrent use.
type Sealer struct {
	platform string
	source   Source
	current  root // to seal with

	mu    sync.Mutex
	known []root // to open with, the latest last
}

type root struct{ secret, hint []byte }

// New makes a Sealer that seals under a secret that the Source gives now. platform names the kind of Source, in at most
// MaxPlatform bytes of visible ASCII: what was sealed under another name is refused.
func New(platform string, source Source) (*Sealer, error) {
	if platform == "" || len(platform) > MaxPlatform || strings.ContainsFunc(platform, func(r rune) bool { return r <= ' ' || r > '~' }) || source == nil {
		return nil, attest.Refuse(attest.CodeNoExpectation, check, fmt.Sprintf("platform %.40q", platform), "the name of a platform, and a source of keys")
	}
	s := &Sealer{platform: platform, source: source}
	var err error
	if s.current, err = s.ask(nil); err != nil {
		return nil, err
	}
	s.known = []root{s.current}
	return s, nil
}

// ask has the platform give a root that can be used.
func (s *Sealer) ask(hint []byte) (root, error) {
	secret, again, err := s.source.Root(hint)
	if err != nil {
		return root{}, err
	}
	if len(secret) < MinRoot || attest.AllZero(secret) || len(again) > MaxHint || hint != nil && !bytes.Equal(hint, again) {
		return root{}, attest.Refuse(attest.CodeAttesterFailed, check, fmt.Sprintf("a secret of %d bytes with a hint of %d", len(secret), len(again)),
			fmt.Sprintf("%d that are not zero, and at most %d", MinRoot, MaxHint))
	}
	return root{slices.Clone(secret), slices.Clone(again)}, nil
}

// root is the one that a hint stands for.
func (s *Sealer) root(hint []byte) (root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.known {
		if bytes.Equal(r.hint, hint) {
			return r, nil
		}
	}
	r, err := s.ask(hint)
	if err != nil {
		return root{}, err
	}
	if len(s.known) == maxRoots {
		s.known = slices.Delete(s.known, 1, 2) // never the first, which is the current one
	}
	s.known = append(s.known, r)
	return r, nil
}

// Platform is what New was told.
func (s *Sealer) Platform() string { return s.platform }

// Seal encrypts and authenticates plain, at most MaxPlain bytes. context says what it is, in 1 to MaxContext bytes: it is
// opened under the same context alone.
func (s *Sealer) Seal(context string, plain []byte) ([]byte, error) {
	if err := s.usable(context); err != nil {
		return nil, err
	}
	if len(plain) > MaxPlain {
		return nil, attest.Refuse(attest.CodeOversized, check, fmt.Sprintf("%d bytes to seal", len(plain)), fmt.Sprintf("at most %d", MaxPlain))
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // does not fail
	d := derive(s.current.secret, salt, context)

	hint := s.current.hint
	out := make([]byte, 0, len(header)+1+len(s.platform)+2+len(hint)+saltSize+2*tagSize+overhead+len(plain))
	out = append(out, header...)
	out = append(out, byte(len(s.platform)))
	out = append(out, s.platform...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(hint)))
	out = append(out, hint...)
	out = append(out, salt...)
	out = append(out, d.ofRoot...)
	out = append(out, d.ofContext...)
	return d.aead.Seal(out, nil, plain, bound(out, context)), nil
}

// Open gives back what was sealed under a context. What cannot be opened is refused with CodeUnknownVersion, CodeSealBroken
// (it was changed, or never sealed), CodeSealForeign (by another platform, machine or software) or CodeSealContext (it is something
// else); what the Source itself says keeps its own code.
func (s *Sealer) Open(context string, sealed []byte) ([]byte, error) {
	if err := s.usable(context); err != nil {
		return nil, err
	}
	p, err := parse(sealed)
	if err != nil {
		return nil, err
	}
	if p.platform != s.platform {
		return nil, attest.Refuse(attest.CodeSealForeign, check, "what was sealed by "+attest.Quote(p.platform), s.platform)
	}
	r, err := s.root(p.hint)
	if err != nil {
		return nil, err
	}
	d := derive(r.secret, p.salt, context)
	if subtle.ConstantTimeCompare(d.ofRoot, p.ofRoot) != 1 {
		return nil, attest.Refuse(attest.CodeSealForeign, check, "", "what this software sealed on this machine")
	}
	if subtle.ConstantTimeCompare(d.ofContext, p.ofContext) != 1 {
		return nil, attest.Refuse(attest.CodeSealContext, check, "", attest.Quote(context))
	}
	plain, err := d.aead.Open(nil, nil, p.ciphertext, bound(p.front, context))
	if err != nil {
		return nil, attest.Refuse(attest.CodeSealBroken, check, "other bytes", "those that were sealed")
	}
	return plain, nil
}

func (s *Sealer) usable(context string) error {
	if s == nil || s.current.secret == nil {
		return attest.Refuse(attest.CodeNoSealing, check, "a sealer without a key", "one that was made with New")
	}
	if context == "" || len(context) > MaxContext {
		return attest.Refuse(attest.CodeNoExpectation, check, fmt.Sprintf("a context of %d bytes", len(context)), fmt.Sprintf("1 to %d", MaxContext))
	}
	return nil
}

// bound is what is authenticated beside the plaintext. Only the last of its parts has a length of its own that is not said.
func bound(front []byte, context string) []byte {
	return append(slices.Clip(front), context...)
}

type derived struct {
	ofRoot, ofContext []byte
	aead              cipher.AEAD
}

// derive makes what seals one plaintext. Labels differ in their first bytes from one another and from those of other users of the root.
func derive(secret, salt []byte, context string) derived {
	prk, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		panic(err) // a secret has MinRoot bytes
	}
	expand := func(label string, n int) []byte {
		out, err := hkdf.Expand(sha256.New, prk, label, n)
		if err != nil {
			panic(err) // n is a small constant
		}
		return out
	}
	block, err := aes.NewCipher(expand("jurat seal 1 key\x00"+context, keySize))
	if err != nil {
		panic(err) // the size of the key is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // so is that of the block
	}
	return derived{expand("jurat seal 1 root\x00", tagSize), expand("jurat seal 1 context\x00"+context, tagSize), aead}
}

type parsed struct {
	platform                string
	hint                    []byte
	salt, ofRoot, ofContext []byte
	front                   []byte // all before the nonce
	ciphertext              []byte // with the nonce
}

// parse takes apart what Seal made. All it gives are parts of sealed.
func parse(sealed []byte) (p parsed, err error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(header))
	if !ok {
		if line, _, _ := bytes.Cut(sealed[:min(len(sealed), 40)], []byte("\n")); bytes.HasPrefix(line, []byte(family)) {
			return p, attest.Refuse(attest.CodeUnknownVersion, check, attest.Quote(string(line)), strings.TrimSpace(header))
		}
		return p, attest.Refuse(attest.CodeSealBroken, check, "what was never sealed", strings.TrimSpace(header))
	}
	next := func(n int) (part []byte) {
		if ok = ok && n <= len(rest); ok {
			part, rest = rest[:n], rest[n:]
		}
		return part
	}
	length := func(size int) (n int) {
		for _, b := range next(size) {
			n = n<<8 | int(b)
		}
		return n
	}
	p.platform = string(next(length(1)))
	p.hint = next(length(2))
	p.salt, p.ofRoot, p.ofContext = next(saltSize), next(tagSize), next(tagSize)
	p.front, p.ciphertext = sealed[:len(sealed)-len(rest)], rest
	if !ok || len(p.platform) > MaxPlatform || len(p.hint) > MaxHint || len(rest) < overhead || len(rest)-overhead > MaxPlain {
		return p, attest.Refuse(attest.CodeSealBroken, check, fmt.Sprintf("%d bytes that do not add up", len(sealed)), "what was sealed, whole")
	}
	return p, nil
}
