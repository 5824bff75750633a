package dialect

import (
	"bytes"
	"crypto/tls"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// readCocos reads what Cocos puts into an exported authenticator (RFC 9261): a document with a binder, and evidence in a token. The
// hardware signs the SHA-512 of the binder, which is a hash of the key and of a value of this connection. The binder that came along
// is compared and satisfies nothing, and the token's own signature is by a key that nobody vouches for: it is not looked at.
func readCocos(s Shown, c Context) (*Found, error) {
	if !bytes.Contains(s.Document, []byte(`"aik_pub_hash"`)) {
		return nil, ErrAbsent
	}
	var doc struct {
		Version  int    `json:"version"`
		Evidence []byte `json:"evidence"`
		Binder   struct {
			Label   string `json:"exporter_label"`
			Key     []byte `json:"aik_pub_hash"`
			Binding []byte `json:"binding"`
		} `json:"binder"`
	}
	if err := object(s.Document, &doc, "evidence", "binder"); err != nil {
		return nil, err
	}
	if doc.Version != 1 {
		return nil, refuse(attest.CodeUnknownVersion, "a document of another version", "1")
	}
	const label = "Attestation"
	if doc.Binder.Label != "" && doc.Binder.Label != label {
		return nil, refuse(attest.CodeUnknownAlgorithm, "exporter "+attest.Quote(doc.Binder.Label), label)
	}
	raw, err := cocosReport(doc.Evidence)
	if err != nil {
		return nil, err
	}
	ev, err := reportOrQuote(raw)
	if err != nil {
		return nil, err
	}
	spki := s.spki()
	if spki == nil || c.Exporter == nil || len(c.Request) == 0 {
		return nil, nothingExpected("the connection that the authenticator is of")
	}
	exported, err := c.Exporter(label, c.Request, 32)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeNoExpectation, Check: "binding.report_data", Err: err}
	}
	hash := sha256Of
	if c.Suite == tls.TLS_AES_256_GCM_SHA384 {
		hash = sha384Of
	}
	binding := hash(spki, exported)
	if key := hash(spki); !bytes.Equal(doc.Binder.Key, key) {
		return nil, otherKey("aik_pub_hash", doc.Binder.Key, key)
	}
	if !bytes.Equal(doc.Binder.Binding, binding) {
		return nil, otherKey("binding", doc.Binder.Binding, binding)
	}
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(sha512Of(binding))}, Preimage: "SHA-512(binding), of SPKI and TLS exporter",
		Level: attest.LevelSession, Made: c.Asked, Unsigned: []string{"media type, and all of the token but the report in it"},
	}, nil
}

// cocosReport takes the report out of a token: a map, or a COSE_Sign1 message of one.
func cocosReport(token []byte) ([]byte, error) {
	limits := strictcbor.Limits{Depth: 8, Items: 512, AnyLength: true}
	v, err := strictcbor.Parse(token, limits)
	if err != nil {
		return nil, malformed("a token", err)
	}
	if _, inner, ok := v.Tag(); ok {
		v = inner
	}
	if parts, _ := v.Array(); len(parts) == 4 {
		payload, _ := parts[2].Bytes()
		if v, err = strictcbor.Parse(payload, limits); err != nil {
			return nil, malformed("a token", err)
		}
	}
	raw, ok := v.Field("raw_report").Bytes()
	if !ok {
		return nil, malformed("a token without raw_report", nil)
	}
	return raw, nil
}
