package dialect

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

func oidDstack(last int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 62397, 1, last}
}

// Extensions of dstack that hold evidence.
const (
	dstackQuote       = 1
	dstackAttestation = 8
)

// dstackTag separates what dstack has signed for a TLS key.
const dstackTag = "ratls-cert:"

// readDstack reads dstack's certificates, and the documents of its guest agent. In certificates of Flashbots the same extensions hold
// something else, which begins as JSON.
func readDstack(s Shown, _ Context) (*Found, error) {
	f := &Found{Preimage: `SHA-512("ratls-cert:", SPKI)`, Level: attest.LevelKey}
	var err error
	switch {
	case s.Document != nil:
		f.Evidence, err = dstackDocument(s.Document)
		f.Level, f.Unsigned = attest.LevelPinned, []string{"event log and configuration"}
	default:
		var held [][]byte
		if held, f.from, err = dstackHeld(s); err != nil {
			return nil, err
		}
		if len(held) == 0 || isJSON(held[0]) {
			return nil, ErrAbsent
		}
		for _, raw := range held {
			ev, err := dstackEvidence(raw)
			if err != nil {
				return nil, err
			}
			if f.Evidence != nil && !bytes.Equal(f.Evidence.Raw, ev.Raw) {
				return nil, refuse(attest.CodeDialects, "two quotes", "the same in both extensions")
			}
			f.Evidence = ev
		}
		f.Unsigned = []string{unsignedLeaf, "event log, app id and configuration"}
	}
	if err != nil {
		return nil, err
	}
	spki := s.spki()
	if spki == nil {
		return nil, nothingExpected("the certificate that the document is for")
	}
	f.ReportData = []attest.ReportData{whole(sha512Of([]byte(dstackTag), spki))}
	return f, nil
}

// dstackHeld answers the contents of the extensions that hold evidence: all of them are JSON, or none.
func dstackHeld(s Shown) (held [][]byte, from []asn1.ObjectIdentifier, err error) {
	for _, last := range []int{dstackAttestation, dstackQuote} {
		ext, err := s.extension(oidDstack(last))
		if err != nil {
			return nil, nil, err
		}
		if ext == nil {
			continue
		}
		var content []byte
		if rest, err := asn1.Unmarshal(ext.Value, &content); err != nil || len(rest) != 0 {
			return nil, nil, malformed("extension "+ext.Id.String()+" that is no DER octet string", err)
		}
		if last == dstackAttestation && isScale(content) {
			if content, err = scaleAttestation(content); err != nil {
				return nil, nil, err
			}
		}
		// What is half of one dialect and half of another, each would leave to the other.
		if len(held) > 0 && isJSON(content) != isJSON(held[0]) {
			return nil, nil, refuse(attest.CodeDialects, "a message and a quote", "the same in both extensions")
		}
		held, from = append(held, content), append(from, ext.Id)
	}
	return held, from, nil
}

func isJSON(raw []byte) bool { return len(raw) > 0 && raw[0] == '{' }

// isScale tells version 0 of an attestation, which is SCALE, from version 1, which is MessagePack and begins with a map.
func isScale(raw []byte) bool { return bytes.HasPrefix(raw, []byte{0}) }

// dstackEvidence makes Evidence of a quote, of a Nitro document, or of what holds one of them.
func dstackEvidence(raw []byte) (*attest.Evidence, error) {
	switch {
	case isCOSE(raw):
		return &attest.Evidence{Format: formatNitro, Raw: raw}, nil
	case len(raw) > 0 && raw[0]&0xf0 == msgpackMap:
		return dstackMessage(raw)
	}
	return only(formatTDX, raw)
}

// scaleAttestation takes the quote out of an attestation of version 0: SCALE of the version, the kind of platform, and a quote, after
// which comes what nobody signed.
func scaleAttestation(raw []byte) ([]byte, error) {
	const tdx, nitro = 0, 2
	if len(raw) < 2 || raw[1] != tdx && raw[1] != nitro {
		return nil, refuse(attest.CodeUnknownFormat, "an attestation of another platform", "TDX or Nitro")
	}
	content := scaleBytes(raw[2:])
	if len(content) == 0 {
		return nil, malformed("a truncated attestation", nil)
	}
	return content, nil
}

// scaleBytes is the byte string that raw begins with, empty where it is truncated: its length takes one, two or four bytes, which its
// two lowest bits say.
func scaleBytes(raw []byte) []byte {
	if len(raw) == 0 {
		return nil
	}
	size := 1 << (raw[0] & 3)
	if size == 8 || len(raw) < size {
		return nil
	}
	var wide [4]byte
	copy(wide[:], raw[:size])
	n := int(binary.LittleEndian.Uint32(wide[:]) >> 2) // 30 bits, which any int holds
	if n > len(raw)-size {
		return nil
	}
	return raw[size : size+n]
}

// dstackMessage takes the evidence out of an attestation of version 1: MessagePack of version, platform and stack.
func dstackMessage(raw []byte) (*attest.Evidence, error) {
	m, err := msgpack(raw)
	if err != nil {
		return nil, err
	}
	if v, _ := m.field("version").(uint64); v != 1 {
		return nil, refuse(attest.CodeUnknownVersion, "an attestation of another version", "1")
	}
	platform, _ := m.field("platform").(msgMap)
	data, _ := platform.field("data").(msgMap)
	kind, _ := platform.field("kind").(string)
	switch kind {
	case "tdx":
		return only(formatTDX, octetsOf(data.field("quote")))
	case "nitro-enclave":
		raw := octetsOf(data.field("nsm_quote"))
		if !isCOSE(raw) {
			return nil, malformed("a Nitro document", nil)
		}
		return &attest.Evidence{Format: formatNitro, Raw: raw}, nil
	case "sev-snp":
		ev, err := report(octetsOf(data.field("report")))
		if err != nil {
			return nil, err
		}
		chain, _ := data.field("cert_chain").([]any)
		if len(chain) > attest.MaxEndorsements {
			return nil, refuse(attest.CodeOversized, fmt.Sprintf("%d certificates", len(chain)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
		}
		for _, c := range chain {
			ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: octetsOf(c)})
		}
		return ev, nil
	}
	return nil, refuse(attest.CodeUnknownFormat, "an attestation of platform "+attest.Quote(kind), "tdx, nitro-enclave or sev-snp")
}

// dstackDocument takes the quote out of what the guest agent answers.
func dstackDocument(raw []byte) (*attest.Evidence, error) {
	if !bytes.Contains(raw, []byte(`"quote"`)) {
		return nil, ErrAbsent
	}
	var doc struct {
		Quote string `json:"quote"`
	}
	if err := object(raw, &doc, "quote"); err != nil {
		return nil, err
	}
	quote, err := hex.DecodeString(doc.Quote)
	if err != nil {
		return nil, malformed("a quote that is not in hex", err)
	}
	return only(formatTDX, quote)
}
