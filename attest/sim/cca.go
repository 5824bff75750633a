package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

const ccaSyntax = "cca[:2023|2024] (the profile) with debug=on|off, lifecycle=0x3000, measurement=HEX, rem0=HEX to rem3, staple=on|off"

func ccaKind() kind {
	return kind{
		name:   string(cca.Format),
		syntax: ccaSyntax,
		open:   openCCA,
		root:   ccaRoot,
		verifier: func(root []byte) (attest.Verifier, error) {
			keys, err := cca.NewKeys(cca.Key{SPKI: root})
			if err != nil {
				return nil, err
			}
			return cca.NewVerifier(keys), nil
		},
	}
}

// ccaRoot finds the platform's key among the endorsements. It is what the policy names, by its digest, that makes it an
// anchor.
func ccaRoot(ev *attest.Evidence) (root []byte, err error) {
	for _, e := range ev.Endorsements {
		switch {
		case e.Kind != attest.KindPublicKey:
			return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "authenticity.platform", Got: "endorsement of kind " + attest.Quote(string(e.Kind)), Want: string(attest.KindPublicKey)}
		case root != nil:
			return nil, &attest.Error{Code: attest.CodeChain, Check: "authenticity.platform", Got: "several platform keys", Want: "one"}
		}
		root = e.Raw
	}
	if root == nil {
		return nil, &attest.Error{Code: attest.CodeEndorsementMissing, Check: "authenticity.platform", Got: "simulated evidence without its platform's key", Want: "the key among the endorsements"}
	}
	return root, nil
}

// CCA is a simulated Arm machine with one realm. It is safe for concurrent use.
type CCA struct {
	spki     []byte
	cpak     *ecdsa.PrivateKey
	rak      *ecdsa.PrivateKey
	public   []byte // RAK as a COSE_Key
	platform []byte // its token, of which a platform makes one each time it starts
	pace     *pace
	config   ccaConfig
}

var _ Machine = (*CCA)(nil)

type ccaConfig struct {
	profile   string // "2023" or "2024"
	lifecycle uint64
	initial   []byte
	rem       [4][]byte
	bare      bool // nothing is stapled
}

func openCCA(s *Spec) (Machine, error) {
	c := ccaConfig{profile: "2023", lifecycle: 0x3000, initial: sum256("jurat simulated workload")}
	for i := range c.rem {
		c.rem[i] = make([]byte, sha256.Size)
	}
	if s.Product != "" {
		c.profile = s.Product
	}
	if c.profile != "2023" && c.profile != "2024" {
		return nil, usage("profile "+attest.Quote(s.Product), "sim:"+ccaSyntax)
	}
	for _, o := range s.options {
		if err := c.set(o.key, o.value); err != nil {
			return nil, err
		}
	}
	m := &CCA{pace: newPace(&s.Host), config: c}
	var secret seed
	err := open(s.Dir, "sim-cca.pem", func() ([]byte, error) {
		fresh := make([]byte, seedSize)
		_, _ = rand.Read(fresh)
		return pem.EncodeToMemory(&pem.Block{Type: blockSeed, Bytes: fresh}), nil
	}, func(raw []byte) error {
		block, _ := pem.Decode(raw)
		if block == nil || block.Type != blockSeed || len(block.Bytes) != seedSize {
			return errors.New("not a simulated platform")
		}
		secret = block.Bytes
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, m.start(secret)
}

func (c *ccaConfig) set(key, value string) (err error) {
	want := "on or off"
	register, isREM := strings.CutPrefix(key, "rem")
	var to *[]byte
	switch {
	case key == "debug":
		var debug bool
		if debug, err = onOff(value); debug {
			c.lifecycle = 0x4000
		}
	case key == "lifecycle":
		want = "a number such as 0x3000"
		c.lifecycle, err = strconv.ParseUint(value, 0, 16)
	case key == "staple":
		var staple bool
		staple, err = onOff(value)
		c.bare = !staple
	case key == "measurement":
		to = &c.initial
	case isREM && slices.Contains([]string{"0", "1", "2", "3"}, register):
		to = &c.rem[register[0]-'0']
	default:
		return usage("key "+attest.Quote(key), "sim:"+ccaSyntax)
	}
	if to != nil {
		want = "64 hex digits"
		if *to, err = hex.DecodeString(value); err == nil && len(*to) != sha256.Size {
			err = errors.New("another length")
		}
	}
	if err != nil {
		return usage(attest.Quote(key+"="+value), want)
	}
	return nil
}

// start makes the platform's token, as a platform does when it starts.
func (m *CCA) start(secret seed) (err error) {
	if m.cpak, err = secret.key(elliptic.P384(), "cca cpak"); err != nil {
		return err
	}
	if m.rak, err = secret.key(elliptic.P384(), "cca rak"); err != nil {
		return err
	}
	if m.spki, err = x509.MarshalPKIXPublicKey(&m.cpak.PublicKey); err != nil {
		return err
	}
	if m.public, err = cose.MarshalKey(&m.rak.PublicKey); err != nil {
		return err
	}
	challenge := sha256.Sum256(m.public)
	claims := map[int64]any{
		265: "tag:arm.com,2023:cca_platform#1.0.0", 10: challenge[:],
		256: append([]byte{1}, secret.derive("cca instance", 32)...), 2396: sum256("jurat simulated implementation"),
		2401: []byte{0}, 2395: m.config.lifecycle, 2402: "sha-256",
		2399: []any{
			map[int64]any{1: "RMM", 2: sum256("jurat simulated monitor"), 4: "1.0", 5: sum256("jurat simulated signer"), 6: "sha-256"},
			map[int64]any{1: "BL31", 2: sum256("jurat simulated firmware"), 4: "1.0", 5: sum256("jurat simulated signer"), 6: "sha-256"},
		},
	}
	if m.config.profile == "2024" {
		claims[265], claims[2394] = "tag:arm.com,2024:cca_platform#2.0.0", 1
	}
	m.platform, err = signClaims(m.cpak, claims)
	return err
}

func signClaims(key *ecdsa.PrivateKey, claims map[int64]any) ([]byte, error) {
	payload, err := strictcbor.Marshal(claims)
	if err != nil {
		return nil, err
	}
	message, err := cose.Sign(key, payload)
	return cose.Tag(message), err
}

// Root implements Machine.
func (m *CCA) Root() string { return attest.Fingerprint(m.spki) }

// SPKI is the platform's key in DER.
func (m *CCA) SPKI() []byte { return slices.Clone(m.spki) }

// Attest implements attest.Attester. The platform's key is stapled, so that a Verifier can find it among those it trusts.
func (m *CCA) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return m.pace.attest(ctx, data, func() (*attest.Evidence, error) {
		raw, err := m.token(data)
		ev := &attest.Evidence{Format: simulated + cca.Format, Raw: raw}
		if !m.config.bare {
			ev.Endorsements = []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: m.SPKI()}}
		}
		return ev, err
	})
}

func (m *CCA) token(data attest.ReportData) ([]byte, error) {
	c := &m.config
	personalization := make([]byte, 64)
	copy(personalization, "jurat simulated realm")
	realm, err := signClaims(m.rak, map[int64]any{
		265: "tag:arm.com," + c.profile + ":realm#" + map[string]string{"2023": "1", "2024": "2"}[c.profile] + ".0.0",
		10:  data[:], 44235: personalization, 44236: "sha-256", 44237: m.public, 44238: c.initial, 44239: c.rem[:], 44240: "sha-256",
	})
	if err != nil {
		return nil, err
	}
	tag, collection := []byte{0xd9, 0x01, 0x8f}, map[int64]any{44234: m.platform, 44241: realm}
	if c.profile == "2024" { // CMW records, of type application/eat+cwt
		tag, collection = []byte{0xd9, 0x03, 0x8b}, map[int64]any{44234: []any{263, m.platform}, 44241: []any{263, realm}}
	}
	raw, err := strictcbor.Marshal(collection)
	return append(tag, raw...), err
}

// Service implements Machine. Arm has no service that hands out platform keys.
func (m *CCA) Service() http.Handler { return vendor(m.answer) }

// Endorser implements Machine.
func (m *CCA) Endorser() attest.Endorser { return endorser{m.answer, nil} }

func (m *CCA) answer(*url.URL) (*answer, error) { return nil, nil }

// String describes the machine for a log line.
func (m *CCA) String() string {
	return fmt.Sprintf("SIMULATED CCA, profile of %s, root %s", m.config.profile, m.Root())
}
