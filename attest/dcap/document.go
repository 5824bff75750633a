package dcap

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Bounds on collateral.
const (
	maxDocument   = 256 << 10 // bytes
	maxDepth      = 8
	maxLevels     = 512
	maxModules    = 64
	maxAdvisories = 256
)

// document is what TCB info and QE identity have in common.
type document struct {
	signer     *x509.Certificate // TCB signing certificate, verified but for dates and revocation
	issued     time.Time
	expires    time.Time
	evaluation uint64 // tcbEvaluationDataNumber
}

// names are all fields that are decoded. One that differs from them in case only is refused: encoding/json would take it.
var names = func() map[string]string {
	all := map[string]string{}
	for name := range strings.FieldsSeq(`tcbInfo enclaveIdentity signature id version issueDate nextUpdate fmspc pceId tcbType
		tcbEvaluationDataNumber tcbLevels tcb tcbDate tcbStatus advisoryIDs sgxtcbcomponents tdxtcbcomponents pcesvn svn isvsvn
		tdxModule tdxModuleIdentities mrsigner attributes attributesMask miscselect miscselectMask isvprodid`) {
		all[strings.ToLower(name)] = name
	}
	return all
}()

func spelling(key string) bool {
	known, ok := names[strings.ToLower(key)]
	return !ok || known == key
}

func badDocument(format string, args ...any) *attest.Error {
	return attest.Refuse(attest.CodeMalformedEndorsement, checkCollateral, fmt.Sprintf(format, args...), "")
}

// signedValue verifies a body {name: value, "signature": hex} as the PCS answers it, and gives exactly those bytes of the
// value that were signed.
func signedValue(body []byte, name string, signer *x509.Certificate) ([]byte, error) {
	if err := strictjson.Check(body, strictjson.Limits{Size: maxDocument, Depth: maxDepth, Key: spelling}); err != nil {
		code := attest.CodeMalformedEndorsement
		if errors.Is(err, strictjson.ErrDuplicate) {
			code = attest.CodeDuplicateField
		}
		return nil, &attest.Error{Code: code, Check: checkCollateral, Err: err}
	}
	var parts map[string]json.RawMessage
	_ = json.Unmarshal(body, &parts) // what is no object has no signature
	for key := range parts {
		if key != name && key != "signature" {
			return nil, attest.Refuse(attest.CodeUnknownField, checkCollateral, "field "+attest.Quote(key)+" beside what is signed", name+" and signature")
		}
	}
	var text string
	var signature [signatureSize]byte
	_ = json.Unmarshal(parts["signature"], &text) // what is no text is not 64 bytes in hex
	if err := hexField("signature", text, signature[:]); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(parts[name])
	if !ecdsa.VerifyASN1(signer.PublicKey.(*ecdsa.PublicKey), digest[:], derSignature(signature[:])) {
		return nil, attest.Refuse(attest.CodeChain, checkCollateral, name+" whose signature does not verify", "one by "+attest.Quote(signer.Subject.CommonName))
	}
	return parts[name], nil
}

// head are the fields that TCB info and QE identity share. A pointer tells a field that is missing from a zero.
type head struct {
	ID         string    `json:"id"`
	Version    int       `json:"version"`
	Issued     time.Time `json:"issueDate"`
	Expires    time.Time `json:"nextUpdate"`
	Evaluation *uint64   `json:"tcbEvaluationDataNumber"`
}

func (h *head) document(name string, version int, signer *x509.Certificate) (document, error) {
	if h.Version != version {
		return document{}, attest.Refuse(attest.CodeUnknownVersion, checkCollateral, fmt.Sprintf("%s of version %d", name, h.Version), fmt.Sprint(version))
	}
	if h.Issued.IsZero() || h.Expires.IsZero() || h.Evaluation == nil {
		return document{}, badDocument("%s without issueDate, nextUpdate or tcbEvaluationDataNumber", name)
	}
	return document{signer, h.Issued, h.Expires, *h.Evaluation}, nil
}

// levelJSON is a TCB level of any of the documents; which fields of tcb are there depends on the document.
type levelJSON struct {
	TCB struct {
		SGX    []componentJSON `json:"sgxtcbcomponents"`
		TDX    []componentJSON `json:"tdxtcbcomponents"`
		PCESVN *uint16         `json:"pcesvn"`
		ISVSVN *uint16         `json:"isvsvn"`
	} `json:"tcb"`
	Date       time.Time `json:"tcbDate"`
	Status     string    `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs"`
}

type componentJSON struct {
	SVN *uint8 `json:"svn"`
}

// judgement is what Intel says of a TCB level.
type judgement struct {
	status     Status
	date       time.Time
	advisories []string
}

func (l *levelJSON) judgement(known ...Status) (j judgement, err error) {
	if l.Date.IsZero() {
		return j, badDocument("a TCB level without tcbDate")
	}
	if len(l.Advisories) > maxAdvisories {
		return j, attest.Refuse(attest.CodeOversized, checkCollateral, fmt.Sprintf("%d advisories", len(l.Advisories)), fmt.Sprintf("at most %d", maxAdvisories))
	}
	for _, s := range known {
		if string(s) == l.Status {
			return judgement{s, l.Date, l.Advisories}, nil
		}
	}
	return j, attest.Refuse(attest.CodeUnknownField, checkCollateral, "TCB status "+attest.Quote(l.Status), "one that is known")
}

func components(list []componentJSON) (svns [16]byte, err error) {
	if len(list) != len(svns) {
		return svns, badDocument("%d TCB components", len(list))
	}
	for i, c := range list {
		if c.SVN == nil {
			return svns, badDocument("a TCB component without svn")
		}
		svns[i] = *c.SVN
	}
	return svns, nil
}

func hexField(name, text string, into []byte) error {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(into) {
		return badDocument("%s is not %d bytes in hex", name, len(into))
	}
	copy(into, raw)
	return nil
}

// isvLevel is a TCB level of an enclave or module: a security version number.
type isvLevel struct {
	svn uint16
	judgement
}

// isvLevels decodes the levels of an enclave or module, highest first.
func isvLevels(list []levelJSON) ([]isvLevel, error) {
	if len(list) == 0 || len(list) > maxLevels {
		return nil, badDocument("%d TCB levels", len(list))
	}
	levels := make([]isvLevel, 0, len(list))
	for i := range list {
		if list[i].TCB.ISVSVN == nil {
			return nil, badDocument("a TCB level without isvsvn")
		}
		j, err := list[i].judgement(UpToDate, OutOfDate, Revoked)
		if err != nil {
			return nil, err
		}
		levels = append(levels, isvLevel{*list[i].TCB.ISVSVN, j})
	}
	return levels, descending(levels, func(a, b *isvLevel) int { return int(a.svn) - int(b.svn) })
}

// decode reads what was signed.
func decode(value []byte, into any) error {
	if err := json.Unmarshal(value, into); err != nil {
		return &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkCollateral, Err: err}
	}
	return nil
}
