package cca

import (
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Format of the Evidence: Raw is one token as the realm management monitor handed it to the realm.
const Format attest.Format = "cca"

// MaxToken bounds a token in bytes; those known have under 4 KiB.
const MaxToken = 16 << 10

// Token is a decoded token. Nothing in it has been verified.
type Token struct {
	Platform Platform `json:"platform"`
	Realm    Realm    `json:"realm"`

	platform, realm *cose.Sign1
	platformRaw     []byte
}

// Tags and labels of the collection. Under the one tag stand the tokens themselves (RMM 1.0; draft-00, -01), under the
// other CMW records of them (RMM 2.0; draft-02 and later).
const (
	tagCollection    = 399
	tagCMW           = 907
	labelPlatform    = 44234
	labelRealm       = 44241
	contentFormatEAT = 263 // CoAP content format of application/eat+cwt
)

// Parse decodes a token. It refuses whatever its profile does not define, but for claims that the profile lets a reader
// ignore.
func Parse(raw []byte) (*Token, error) {
	if len(raw) > MaxToken {
		return nil, attest.Refuse(attest.CodeOversized, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("at most %d", MaxToken))
	}
	v, err := strictcbor.Parse(slices.Clone(raw), strictcbor.Limits{Depth: 4, Items: 10})
	if err != nil {
		return nil, malformed("collection", err)
	}
	tag, collection, _ := v.Tag()
	if tag != tagCollection && tag != tagCMW {
		return nil, attest.Refuse(attest.CodeUnknownVersion, checkFormat, "a collection under tag "+fmt.Sprint(tag), "tag 399 or 907")
	}
	for i := range collection.Len() {
		key, _ := collection.Entry(i)
		if label, _ := key.Int(); label != labelPlatform && label != labelRealm {
			return nil, attest.Refuse(attest.CodeUnknownField, checkFormat, "token "+key.String(), "platform and realm")
		}
	}
	t := new(Token)
	if t.platformRaw, t.platform, err = part(tag, collection.Get(labelPlatform)); err != nil {
		return nil, err
	}
	if _, t.realm, err = part(tag, collection.Get(labelRealm)); err != nil {
		return nil, err
	}
	if err := t.Platform.parse(t.platform.Payload); err != nil {
		return nil, err
	}
	if err := t.Realm.parse(t.realm.Payload); err != nil {
		return nil, err
	}
	return t, t.checkProfiles()
}

// part takes one token out of the collection: a tagged COSE_Sign1 message.
func part(tag uint64, v strictcbor.Value) ([]byte, *cose.Sign1, error) {
	if tag == tagCMW {
		record, _ := v.Array()
		if len(record) != 2 {
			return nil, nil, malformed("a CMW record without type and value", nil)
		}
		if format, _ := record[0].Uint(); format != contentFormatEAT {
			return nil, nil, attest.Refuse(attest.CodeUnknownFormat, checkFormat, "a CMW record of type "+record[0].String(), fmt.Sprint(contentFormatEAT))
		}
		v = record[1]
	}
	raw, _ := v.Bytes() // a missing token is an empty message
	message, err := cose.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	if !message.Tagged {
		return nil, nil, malformed("an untagged COSE_Sign1", nil)
	}
	return raw, message, nil
}

// Profiles, exactly as they are written.
const (
	profileLegacy       = "http://arm.com/CCA-SSD/1.0.0" // for both tokens; the realm's then names none
	profilePlatform2023 = "tag:arm.com,2023:cca_platform#1.0.0"
	profileRealm2023    = "tag:arm.com,2023:realm#1.0.0"
	profilePlatform2024 = "tag:arm.com,2024:cca_platform#2.0.0"
	profileRealm2024    = "tag:arm.com,2024:realm#2.0.0"
)

// profiles pairs the platform's profile with the realm's.
var profiles = map[string]string{
	profileLegacy:       "",
	profilePlatform2023: profileRealm2023,
	profilePlatform2024: profileRealm2024,
}

func (t *Token) checkProfiles() error {
	realm, known := profiles[t.Platform.Profile]
	if !known {
		return attest.Refuse(attest.CodeUnknownVersion, checkFormat, "platform profile "+attest.Quote(t.Platform.Profile), "one of 2023 or 2024")
	}
	if t.Realm.Profile != realm {
		return attest.Refuse(attest.CodeUnknownVersion, checkFormat, "realm profile "+attest.Quote(t.Realm.Profile), attest.Quote(realm)+" beside "+attest.Quote(t.Platform.Profile))
	}
	return nil
}

// claims are the decoded claims of one payload.
type claims struct{ strictcbor.Value }

// parseClaims decodes a payload: all of it is signed, so that its serialization may vary (draft, token encoding).
func parseClaims(payload []byte, what string) (claims, error) {
	v, err := strictcbor.Parse(payload, strictcbor.Limits{Depth: 8, Items: 1024, AnyLength: true})
	if err != nil {
		return claims{}, malformed(what, err)
	}
	return claims{v}, nil
}

// bytes reads a claim of one of the sizes.
func (c claims) bytes(label int64, name string, sizes ...int) (attest.HexBytes, error) {
	b, _ := c.Get(label).Bytes()
	if !slices.Contains(sizes, len(b)) {
		return nil, malformed(fmt.Sprintf("%s of %d bytes", name, len(b)), nil)
	}
	return b, nil
}

const maxText = 256

func (c claims) text(label int64, name string) (string, error) {
	s, _ := c.Get(label).Text()
	if s == "" || len(s) > maxText {
		return "", malformed(name, nil)
	}
	return s, nil
}

// unknown lists the labels that are not among known. By the rules of EAT a reader ignores them, and says so.
func (c claims) unknown(known ...int64) (labels []string) {
	for i := range c.Len() {
		key, _ := c.Entry(i)
		if label, _ := key.Int(); !slices.Contains(known, label) {
			labels = append(labels, key.String())
		}
	}
	return labels
}

// profile reads EAT's profile claim; empty where there is none.
func (c claims) profile() (string, error) {
	if !c.Get(labelProfile).Present() {
		return "", nil
	}
	return c.text(labelProfile, "profile")
}

// Labels of claims that EAT defines for both tokens.
const (
	labelChallenge = 10
	labelUEID      = 256
	labelProfile   = 265
)
