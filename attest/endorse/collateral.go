package endorse

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// document is what the cache and the choice among files need of TCB info or a QE identity (PCS API v4, appendices A and B).
// It is read before anyone has verified a signature, so it decides nothing but which document is handed on.
type document struct {
	ID         string    `json:"id"`
	FMSPC      string    `json:"fmspc"`
	NextUpdate time.Time `json:"nextUpdate"`
}

func readDocument(e attest.Endorsement) (document, error) {
	var body struct {
		TCBInfo         *document `json:"tcbInfo"`
		EnclaveIdentity *document `json:"enclaveIdentity"`
	}
	if err := json.Unmarshal(e.Raw, &body); err != nil {
		return document{}, err
	}
	d := body.TCBInfo
	if e.Kind == attest.KindQEIdentity {
		d = body.EnclaveIdentity
	}
	if d == nil {
		return document{}, errors.New("another document")
	}
	return *d, nil
}

// collateral is the form in which verification libraries exchange all that a quote is verified with: the signed documents
// as text beside their signatures in hex, chains in PEM, revocation lists in hex or PEM.
type collateral struct {
	TCBInfo             string `json:"tcb_info"`
	TCBInfoSignature    string `json:"tcb_info_signature"`
	TCBInfoChain        string `json:"tcb_info_issuer_chain"`
	QEIdentity          string `json:"qe_identity"`
	QEIdentitySignature string `json:"qe_identity_signature"`
	QEIdentityChain     string `json:"qe_identity_issuer_chain"`
	PCKCRL              string `json:"pck_crl"`
	PCKCRLChain         string `json:"pck_crl_issuer_chain"`
	RootCRL             string `json:"root_ca_crl"`
}

func parseCollateral(raw []byte) ([]attest.Endorsement, error) {
	var c collateral
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	var list []attest.Endorsement
	for _, part := range []struct {
		kind                         attest.Kind
		key, text, signature, member string
	}{
		{attest.KindTCBInfo, "tcb_info", c.TCBInfo, c.TCBInfoSignature, "tcbInfo"},
		{attest.KindQEIdentity, "qe_identity", c.QEIdentity, c.QEIdentitySignature, "enclaveIdentity"},
		{attest.KindCRL, "root_ca_crl", c.RootCRL, "", ""},
		{attest.KindCRL, "pck_crl", c.PCKCRL, "", ""},
		{attest.KindCertificate, "tcb_info_issuer_chain", c.TCBInfoChain, "", ""},
		{attest.KindCertificate, "qe_identity_issuer_chain", c.QEIdentityChain, "", ""},
		{attest.KindCertificate, "pck_crl_issuer_chain", c.PCKCRLChain, "", ""},
	} {
		if part.text == "" {
			continue
		}
		var got []attest.Endorsement
		var err error
		if part.member == "" {
			got, err = parsePart([]byte(part.text), part.kind)
		} else {
			got, err = rebuild(part.kind, part.member, part.text, part.signature)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.key, err)
		}
		list = append(list, got...)
	}
	return unique(list), nil
}

func parsePart(body []byte, kind attest.Kind) ([]attest.Endorsement, error) {
	list, err := parseBinary(body)
	if err != nil {
		return nil, err
	}
	return list, all(list, kind)
}

// rebuild makes the body that Intel's service answered: the signature is over exactly the bytes of text.
func rebuild(kind attest.Kind, member, text, signature string) ([]attest.Endorsement, error) {
	if !json.Valid([]byte(text)) { // two values would be two members of the body
		return nil, errors.New("not one JSON value")
	}
	if _, err := hex.DecodeString(signature); err != nil || signature == "" {
		return nil, errors.New("no signature in hex")
	}
	return parseDocument(fmt.Appendf(nil, `{"%s":%s,"signature":"%s"}`, member, text, signature), kind)
}

// all checks that a list has nothing of another kind.
func all(list []attest.Endorsement, kind attest.Kind) error {
	for _, e := range list {
		if e.Kind != kind {
			return fmt.Errorf("a %s where a %s belongs", string(e.Kind), string(kind))
		}
	}
	return nil
}

// unique leaves out what occurs a second time.
func unique(list []attest.Endorsement) (out []attest.Endorsement) {
	for _, e := range list {
		if !slices.ContainsFunc(out, func(o attest.Endorsement) bool { return string(o.Raw) == string(e.Raw) }) {
			out = append(out, e)
		}
	}
	return out
}
