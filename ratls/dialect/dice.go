package dialect

import (
	"bytes"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/ratls/cmw"
)

func oidTaggedEvidence() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 5, 4, 9} }
func oidEndorsements() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{2, 23, 133, 5, 4, 2} }

// Tags of evidence: those of interoperable RA-TLS, and the private ones of rats-rs and TNG.
const (
	tagQuote     = 60000
	tagReport    = 60001 // of a TEE, for others on the same machine
	tagSGXReport = 60002
	tagSNP       = 0x1a7504
)

// Hash algorithms of IANA's named information registry.
const (
	namedSHA256 = 1
	namedSHA384 = 7
	namedSHA512 = 8
)

// readDICE reads TCG DICE tagged evidence: a tagged array of the quote and a claims buffer, raw in the extension. The hardware
// signs the SHA-256 of the buffer, and the buffer holds a hash of the key; a nonce in it counts where it is the relying party's.
func readDICE(s Shown, c Context) (*Found, error) {
	ext, err := s.extension(oidTaggedEvidence())
	if err != nil {
		return nil, err
	}
	if ext == nil {
		return nil, ErrAbsent
	}
	v, err := strictcbor.Parse(ext.Value, strictcbor.Limits{Depth: 3, Items: 4})
	if err != nil {
		return nil, malformed("tagged evidence", err)
	}
	tag, content, _ := v.Tag()
	pair, _ := content.Array()
	if len(pair) != 2 {
		return nil, malformed("tagged evidence that is no tagged pair", nil)
	}
	raw, ok := pair[0].Bytes()
	buffer, _ := pair[1].Bytes() // no bytes are no claims
	if !ok {
		return nil, malformed("tagged evidence that is no byte string", nil)
	}
	f := &Found{Preimage: "SHA-256(claims)", Level: attest.LevelKey, from: []asn1.ObjectIdentifier{ext.Id}}
	switch tag {
	case tagQuote:
		f.Evidence, err = quote(raw)
	case tagSNP:
		f.Evidence, err = report(raw)
	case tagReport, tagSGXReport:
		err = refuse(attest.CodeUnknownFormat, fmt.Sprintf("tag %d: a report for the same machine, which proves nothing to others", tag), "a quote")
	default:
		err = refuse(attest.CodeUnknownFormat, fmt.Sprintf("evidence of tag %#x", tag), "60000 or 0x1a7504")
	}
	if err != nil {
		return nil, err
	}
	f.ReportData = []attest.ReportData{whole(sha256Of(buffer))}
	if err := f.claims(buffer, s, &c); err != nil {
		return nil, err
	}
	return f, f.endorsements(tag, s)
}

// claims reads the claims buffer, all of which is signed.
func (f *Found) claims(buffer []byte, s Shown, c *Context) error {
	claims, err := strictcbor.Parse(buffer, strictcbor.Limits{Depth: 8, Items: 256, AnyLength: true})
	if err != nil {
		return malformed("claims buffer", err)
	}
	encoded, ok := claims.Field("pubkey-hash").Bytes()
	if !ok {
		return malformed("a claims buffer without pubkey-hash", nil)
	}
	// Constellation has hardware sign a hash of its key and a nonce of whoever asks. A hash that begins as a map, and a nonce that ends it,
	// are claims about any key; few hashes begin as a map with numbers, and far fewer as one with names.
	for i := range claims.Len() {
		if key, _ := claims.Entry(i); !isText(key) {
			return malformed("a claim without a name", nil)
		}
	}
	if err := checkNamedHash(encoded, s.spki()); err != nil {
		return err
	}
	if profile, _ := claims.Field("profile").Text(); strings.HasPrefix(profile, "jurat-") {
		return f.own(claims, buffer, s)
	}
	f.Unsigned = append(f.Unsigned, unsignedLeaf)
	given := claims.Field("nonce")
	if !given.Present() {
		return nil
	}
	got, ok := given.Bytes()
	if !ok {
		return malformed("a nonce that is no byte string", nil)
	}
	if nonce := c.nonce(); nonce != nil && bytes.Equal(got, nonce) {
		f.Level, f.Made = attest.LevelNonce, c.Asked
	}
	return nil
}

func isText(v strictcbor.Value) bool { _, ok := v.Text(); return ok }

// unsignedLeaf is what most dialects leave open.
const unsignedLeaf = "names and validity of the certificate: whoever has its key can choose them"

// checkNamedHash checks [algorithm, hash] of a key.
func checkNamedHash(encoded, spki []byte) error {
	v, err := strictcbor.Parse(encoded, strictcbor.Limits{Depth: 2, Items: 3, AnyLength: true})
	if err != nil {
		return malformed("pubkey-hash", err)
	}
	pair, _ := v.Array()
	if len(pair) != 2 {
		return malformed("a pubkey-hash that is no pair", nil)
	}
	algorithm, ok1 := pair[0].Uint()
	got, ok2 := pair[1].Bytes()
	if !ok1 || !ok2 {
		return malformed("a pubkey-hash of other types", nil)
	}
	var want []byte
	switch algorithm {
	case namedSHA256:
		want = sha256Of(spki)
	case namedSHA384:
		sum := sha512.Sum384(spki)
		want = sum[:]
	case namedSHA512:
		want = sha512Of(spki)
	default:
		return refuse(attest.CodeUnknownAlgorithm, fmt.Sprintf("pubkey-hash by algorithm %d", algorithm), "1, 7 or 8")
	}
	if !bytes.Equal(got, want) {
		return otherKey("pubkey-hash", got, want)
	}
	return nil
}

// own checks a claims buffer of this program, which commits to all of the leaf. A thief of its key could otherwise put the evidence
// into a certificate of this dialect, and so take names and validity out of it.
func (f *Found) own(claims strictcbor.Value, buffer []byte, s Shown) error {
	leaf := s.Leaf
	if leaf == nil {
		return nothingExpected("the certificate that these claims are for")
	}
	config, _ := claims.Field("config").Bytes()
	b := cmw.Binding{SPKI: leaf.RawSubjectPublicKeyInfo, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, DNSNames: leaf.DNSNames}
	if len(config) != len(b.Config) {
		return malformed("a configuration digest of another length", nil)
	}
	copy(b.Config[:], config)
	for _, ip := range leaf.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		b.IPs = append(b.IPs, addr)
	}
	want, err := b.Claims()
	if err != nil {
		return malformed("claims", err)
	}
	if !bytes.Equal(buffer, want) || len(leaf.EmailAddresses) > 0 || len(leaf.URIs) > 0 {
		return otherKey("claims", sha256Of(buffer), sha256Of(want))
	}
	f.Names, f.Made, f.Config = true, leaf.NotBefore, b.Config
	return nil
}

// endorsements reads the extension with what the vendor says: a tagged array of a version, and of documents, chains and lists. They
// are signed by the vendor, and what is wrong with them shows when they are verified.
func (f *Found) endorsements(tag uint64, s Shown) error {
	ext, err := s.extension(oidEndorsements())
	if ext == nil { // there is none, or two
		return err
	}
	v, err := strictcbor.Parse(ext.Value, strictcbor.Limits{Depth: 3, Items: 3 + 16})
	if err != nil {
		return malformed("endorsements", err)
	}
	same, content, _ := v.Tag()
	list, _ := content.Array()
	if same != tag || len(list) < 2 {
		return malformed("endorsements for other evidence", nil)
	}
	f.from = append(f.from, ext.Id)
	for _, item := range list[1:] {
		raw, ok := item.Bytes()
		if !ok {
			return malformed("an endorsement that is no byte string", nil)
		}
		f.endorse(raw)
	}
	if len(f.Evidence.Endorsements) > attest.MaxEndorsements {
		return refuse(attest.CodeOversized, fmt.Sprintf("%d endorsements", len(f.Evidence.Endorsements)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
	}
	return nil
}

// endorse takes one of the documents, chains and lists of Open Enclave's endorsements, which end with a zero where they are text.
func (f *Found) endorse(raw []byte) {
	add := func(kind attest.Kind, raw []byte) {
		if !slices.ContainsFunc(f.Evidence.Endorsements, func(e attest.Endorsement) bool { return bytes.Equal(e.Raw, raw) }) {
			f.Evidence.Endorsements = append(f.Evidence.Endorsements, attest.Endorsement{Kind: kind, Raw: raw})
		}
	}
	text := bytes.TrimRight(raw, "\x00")
	if der, err := hex.DecodeString(string(text)); err == nil {
		raw, text = der, der
	}
	switch {
	case bytes.HasPrefix(text, []byte(`{"tcbInfo"`)):
		add(attest.KindTCBInfo, text)
	case bytes.HasPrefix(text, []byte(`{"enclaveIdentity"`)):
		add(attest.KindQEIdentity, text)
	case bytes.HasPrefix(raw, []byte{0x30}):
		// The last byte of a list can be a zero as well, which its length tells from one after it.
		after, _ := asn1.Unmarshal(raw, new(asn1.RawValue))
		add(attest.KindCRL, raw[:len(raw)-len(after)+len(bytes.TrimRight(after, "\x00"))])
	default:
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			switch block.Type {
			case "CERTIFICATE":
				add(attest.KindCertificate, block.Bytes)
			case "X509 CRL":
				add(attest.KindCRL, block.Bytes)
			}
		}
	}
}
