package cca

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Verifier verifies Evidence of format "cca" under explicit platform keys. It is safe for concurrent use.
type Verifier struct {
	keys  *Keys
	known platforms
}

var _ attest.Verifier = (*Verifier)(nil)

// NewVerifier makes a Verifier that trusts keys alone. With nil keys nothing can be decided.
func NewVerifier(keys *Keys) *Verifier { return &Verifier{keys: keys} }

// Verify implements attest.Verifier. The endorser is not asked: what answers may be anybody's file, and the answer would
// be the anchor of all trust.
func (v *Verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if ev == nil || len(ev.Raw) == 0 {
		return nil, attest.Refuse(attest.CodeNoEvidence, checkFormat, "", "")
	}
	if ev.Format != Format {
		return nil, attest.ErrNotMine
	}
	if err := v.checkStapled(ev.Endorsements); err != nil {
		return nil, err
	}
	t, err := Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	key, err := v.verifyPlatform(t)
	if err != nil {
		return nil, err
	}
	// The platform vouches for the key that signs realm tokens, and for no other.
	hash, err := t.Realm.hashOfKey()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(hash, t.Platform.Challenge) {
		return nil, attest.Refuse(attest.CodeLink, checkLink, fmt.Sprintf("a realm key with hash %.8x", hash), fmt.Sprintf("%.8x as the platform token says", []byte(t.Platform.Challenge)))
	}
	if err := t.realm.Verify(t.Realm.key); err != nil {
		return nil, err
	}
	debug, err := t.Platform.checkLifecycle()
	if err != nil {
		return nil, err
	}
	return t.claims(key, debug), nil
}

// checkStapled lets pass keys that are trusted anyway. One that a peer sends with its own evidence proves nothing.
func (v *Verifier) checkStapled(list []attest.Endorsement) error {
	if len(list) > attest.MaxEndorsements {
		return attest.Refuse(attest.CodeOversized, checkPlatform, fmt.Sprintf("%d endorsements", len(list)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
	}
	for _, e := range list {
		if e.Kind != attest.KindPublicKey {
			return attest.Refuse(attest.CodeMalformedEndorsement, checkPlatform, "endorsement of kind "+attest.Quote(string(e.Kind)), "none")
		}
		if !v.keys.has(e.Raw) {
			return &attest.Error{
				Code: attest.CodeUntrustedRoot, Check: checkPlatform, Got: "a platform key that came with the evidence, " + attest.Fingerprint(e.Raw), Want: "one that the relying party names",
				Hint: "get the platform's key from its vendor and supply it with --endorsement",
			}
		}
	}
	return nil
}

// verifyPlatform finds the trusted key that signed the platform token.
func (v *Verifier) verifyPlatform(t *Token) (*anchor, error) {
	id := digest(t.platformRaw)
	if known := v.known.get(id); known != nil {
		return known, nil
	}
	candidates := v.keys.candidates(&t.Platform)
	if len(candidates) == 0 {
		return nil, &attest.Error{
			Code: attest.CodeEndorsementMissing, Check: checkPlatform, Got: "no trusted key of this platform",
			Want: fmt.Sprintf("the key of implementation %x, instance %x", []byte(t.Platform.ImplementationID), []byte(t.Platform.InstanceID)),
			Hint: "get the platform's key (CPAK) from its vendor and supply it with --endorsement",
		}
	}
	var err error
	for _, a := range candidates {
		if err = t.platform.Verify(a.public); err == nil {
			v.known.add(id, a)
			return a, nil
		}
	}
	return nil, err
}

// platforms remembers which platform tokens verified: a platform makes one each time it starts. Whether one does depends
// on nothing but its bytes and the Verifier's keys.
type platforms struct {
	mu   sync.Mutex
	good map[[32]byte]*anchor
}

// maxPlatforms bounds the memory.
const maxPlatforms = 4096

func (p *platforms) get(id [32]byte) *anchor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.good[id]
}

func (p *platforms) add(id [32]byte, a *anchor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.good == nil || len(p.good) >= maxPlatforms {
		p.good = map[[32]byte]*anchor{}
	}
	p.good[id] = a
}

func (t *Token) claims(key *anchor, debug attest.Flag) *attest.Claims {
	p, r := &t.Platform, &t.Realm
	version := 1
	if p.Profile == profilePlatform2024 {
		version = 2
	}
	out := &attest.Claims{
		Vendor:     "arm",
		TEE:        "cca",
		Product:    "Arm CCA",
		Generation: "cca", // Arm names no generations; the implementation id tells platforms apart
		Root:       attest.Fingerprint(key.SPKI),
		Version:    version,
		Debug:      debug,
		Migratable: attest.Off, // none of the profiles has migration
		Provenance: attest.Provenance{ChipID: p.InstanceID},
		Numbers:    map[string]uint64{"lifecycle": uint64(p.Lifecycle)},
		ReportData: attest.ReportData(r.Challenge),
		Measured: map[string]attest.HexBytes{
			"launch": r.Initial, "personalization": r.Personalization,
			"implementation_id": p.ImplementationID, "platform_config": p.Config,
		},
		Revocation: attest.Revocation{Problem: &attest.Error{
			Code: attest.CodeEndorsementMissing, Check: checkRevocation, Got: "a bare platform key, which no list can withdraw",
			Hint: "say revocation: unchecked in the policy; to withdraw a platform's key, stop supplying it",
		}},
	}
	for i, rem := range r.Extensible {
		out.Measured[fmt.Sprintf("rem%d", i)] = rem
	}
	for i, c := range p.Components {
		out.Measured[fmt.Sprintf("component%d", i)] = c.Measurement
	}
	pass := func(id, text, got string, source attest.Source) {
		out.Checks = append(out.Checks, attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source})
	}
	pass(checkFormat, "token is well-formed", p.Profile, attest.SourceHardware)
	pass(checkPlatform, "the platform token is signed by a trusted key", out.Root, attest.SourceVendor)
	pass(checkLink, "the platform vouches for the realm's key", r.KeyHashAlgorithm, attest.SourceHardware)
	pass(checkSignature, "the realm token is signed by that key", t.realm.Algorithm.String(), attest.SourceHardware)
	pass(checkLifecycle, "the platform's lifecycle state", fmt.Sprintf("%#04x", p.Lifecycle), attest.SourceHardware)
	out.NotChecked = []string{
		"revocation: " + out.Revocation.Problem.Error(),
		fmt.Sprintf("platform firmware: %d measured components, compared with nothing", len(p.Components)),
	}
	if ignored := append(p.ignored[:len(p.ignored):len(p.ignored)], r.ignored...); len(ignored) > 0 {
		out.NotChecked = append(out.NotChecked, "claims of the token that this build does not know: "+strings.Join(ignored, ", "))
	}
	return out
}
