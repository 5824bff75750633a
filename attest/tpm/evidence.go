package tpm

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Format of the Evidence. Raw is either what EncodeParts makes of PartQuote, PartSignature, PartPCRs and PartPublic, or
// JSON as other collectors write it: {"ak_public", "tpm_quote": {"message", "signature", "pcrs"}}, where the key is a
// SubjectPublicKeyInfo in base64, and the PCRs are in hex.
const Format attest.Format = "tpm"

// Decoded is decoded raw evidence. Nothing in it has been verified.
type Decoded struct {
	*Quoted
	Key crypto.PublicKey // which the evidence says is the attestation key
	// Name is the TPM's own name of the key; empty in JSON, which does not tell.
	Name attest.HexBytes

	spki []byte
}

// Parse decodes raw evidence in either form.
func Parse(raw []byte) (*Decoded, error) {
	parse := parseParts
	if len(raw) > 0 && raw[0] == '{' {
		parse = parseJSON
	}
	d, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if d.Values == nil {
		return nil, attest.Refuse(attest.CodeSelection, checkRegisters, "a quote without the PCR values", "them")
	}
	d.spki, err = encodeKey(d.Key)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func parseParts(raw []byte) (*Decoded, error) {
	parts, err := DecodeParts(raw, PartQuote, PartSignature, PartPCRs, PartPublic)
	if err != nil {
		return nil, err
	}
	q, err := ParseQuoted(parts[PartQuote], parts[PartSignature], parts[PartPCRs])
	if err != nil {
		return nil, err
	}
	public, err := ParsePublic(parts[PartPublic])
	if err != nil {
		return nil, err
	}
	if q.Signature.scheme != public.scheme || q.Signature.hash != public.hash {
		return nil, attest.Refuse(attest.CodeSignerMismatch, checkSigner, "a signature of "+q.Signature.String(), "one with the scheme of the attestation key")
	}
	return &Decoded{Quoted: q, Key: public.Key, Name: public.Name}, nil
}

// document is the other form of raw evidence.
type document struct {
	Key   string `json:"ak_public"`
	Quote struct {
		Message   string   `json:"message"`
		Signature string   `json:"signature"`
		PCRs      []string `json:"pcrs"`
	} `json:"tpm_quote"`
}

func decodeDocument(raw []byte) (*document, error) {
	unknown := ""
	err := strictjson.Check(raw, strictjson.Limits{Size: attest.MaxRaw, Depth: 3, Key: func(key string) bool {
		known := slices.Contains([]string{"ak_public", "tpm_quote", "message", "signature", "pcrs"}, key)
		if !known {
			unknown = key
		}
		return known
	}})
	code := attest.CodeMalformed
	switch {
	case errors.Is(err, strictjson.ErrDuplicate):
		code = attest.CodeDuplicateField
	case unknown != "":
		code = attest.CodeUnknownField
	case len(raw) > attest.MaxRaw:
		code = attest.CodeOversized
	}
	doc := new(document)
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields() // a known one in another place
		err = dec.Decode(doc)
	}
	if err != nil {
		return nil, &attest.Error{Code: code, Check: checkFormat, Err: err}
	}
	return doc, nil
}

func parseJSON(raw []byte) (*Decoded, error) {
	doc, err := decodeDocument(raw)
	if err != nil {
		return nil, err
	}
	decode := func(name, text string) []byte {
		raw, bad := base64.StdEncoding.Strict().DecodeString(text)
		if bad != nil {
			err = &attest.Error{Code: attest.CodeMalformed, Check: checkFormat, Got: name, Err: bad}
		}
		return raw
	}
	spki, message, signature := decode("ak_public", doc.Key), decode("message", doc.Quote.Message), decode("signature", doc.Quote.Signature)
	if err != nil {
		return nil, err
	}
	var pcrs []byte
	for _, text := range doc.Quote.PCRs {
		value, err := hex.DecodeString(text)
		if err != nil {
			return nil, malformed("a PCR that is not in hex")
		}
		pcrs = append(pcrs, value...)
	}
	q, err := ParseQuoted(message, signature, pcrs)
	if err != nil {
		return nil, err
	}
	if got, want := len(doc.Quote.PCRs), len(q.Quote.PCRs); got != want {
		return nil, attest.Refuse(attest.CodeSelection, checkRegisters, fmt.Sprintf("%d PCR values", got), fmt.Sprintf("the %d that the quote selects", want))
	}
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: checkFormat, Err: err}
	}
	return &Decoded{Quoted: q, Key: key}, nil
}

// Service is what attestation keys and their revocation lists are asked of.
const Service = "tpm"

// keyRef names the attestation key in a request: by the TPM's name for it, which commits to what the key may do, or,
// where the evidence does not tell that, by the SHA-256 of its SubjectPublicKeyInfo.
func (d *Decoded) keyRef() attest.Ref {
	path := "/ak?name=" + d.Name.String()
	if len(d.Name) == 0 {
		sum := sha256.Sum256(d.spki)
		path = "/ak?key=" + hex.EncodeToString(sum[:])
	}
	return attest.Ref{Service: Service, Path: path, Kind: attest.KindPublicKey}
}

// shown is how decoded evidence shows to people.
type shown struct {
	Quote     *Quote                     `json:"quote"`
	Signature string                     `json:"signature"`
	PCRs      map[string]attest.HexBytes `json:"pcrs,omitempty"`
	Key       attest.HexBytes            `json:"ak,omitempty"`
	Name      attest.HexBytes            `json:"ak_name,omitempty"`
}

func (q *Quoted) show() shown {
	pcrs := map[string]attest.HexBytes{}
	for n, v := range q.Values {
		pcrs[registerName(n)] = v
	}
	return shown{Quote: q.Quote, Signature: q.Signature.String(), PCRs: pcrs}
}

// MarshalJSON shows a decoded quote to people.
func (q *Quoted) MarshalJSON() ([]byte, error) { return json.Marshal(q.show()) }

// MarshalJSON shows decoded evidence to people.
func (d *Decoded) MarshalJSON() ([]byte, error) {
	s := d.show()
	s.Key, s.Name = d.spki, d.Name
	return json.Marshal(s)
}

func registerName(n int) string { return fmt.Sprintf("pcr%d", n) }
