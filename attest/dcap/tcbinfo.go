package dcap

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// tcbInfo is by which Intel judges the platforms of one FMSPC (PCS, "Get TCB Info V4", version 3 of the document).
type tcbInfo struct {
	document
	tee     TEE
	fmspc   [6]byte
	pceID   [2]byte
	levels  []tcbLevel // highest first
	module  module     // the TDX module of version 0
	modules map[byte]moduleIdentity
}

// tcbLevel is one level of the platform.
type tcbLevel struct {
	sgx, tdx [16]byte
	pceSVN   uint16
	judgement
}

// module says what a TDX module is like.
type module struct {
	mrSigner   [48]byte
	attributes [8]byte
}

// moduleIdentity is a TDX module of a version above 0, with the levels of it.
type moduleIdentity struct {
	module
	levels []isvLevel // highest first
}

type moduleJSON struct {
	ID         string      `json:"id"`
	MRSigner   string      `json:"mrsigner"`
	Attributes string      `json:"attributes"`
	Levels     []levelJSON `json:"tcbLevels"`
}

type tcbInfoJSON struct {
	head
	FMSPC   string       `json:"fmspc"`
	PCEID   string       `json:"pceId"`
	Type    *int         `json:"tcbType"`
	Levels  []levelJSON  `json:"tcbLevels"`
	Module  *moduleJSON  `json:"tdxModule"`
	Modules []moduleJSON `json:"tdxModuleIdentities"`
}

// parseTCBInfo verifies and decodes the body of a TCB info.
func parseTCBInfo(body []byte, signer *x509.Certificate) (*tcbInfo, error) {
	value, err := signedValue(body, "tcbInfo", signer)
	if err != nil {
		return nil, err
	}
	return decodeTCBInfo(value, signer)
}

func decodeTCBInfo(value []byte, signer *x509.Certificate) (*tcbInfo, error) {
	var in tcbInfoJSON
	if err := decode(value, &in); err != nil {
		return nil, err
	}
	t := new(tcbInfo)
	var err error
	if t.document, err = in.document("TCB info", 3, signer); err != nil {
		return nil, err
	}
	switch in.ID {
	case "SGX":
		t.tee = SGX
	case "TDX":
		t.tee = TDX
	default:
		return nil, attest.Refuse(attest.CodeUnknownField, checkCollateral, "TCB info of "+attest.Quote(in.ID), "SGX or TDX")
	}
	// Type 0 is how levels are compared component by component; what another would mean is not known.
	if in.Type == nil || *in.Type != 0 {
		return nil, attest.Refuse(attest.CodeUnknownField, checkCollateral, "TCB info of another type", "tcbType 0")
	}
	if err := hexField("fmspc", in.FMSPC, t.fmspc[:]); err != nil {
		return nil, err
	}
	if err := hexField("pceId", in.PCEID, t.pceID[:]); err != nil {
		return nil, err
	}
	if err := t.parseLevels(in.Levels); err != nil {
		return nil, err
	}
	if t.tee == TDX {
		err = t.parseModules(in.Module, in.Modules)
	}
	return t, err
}

func (t *tcbInfo) parseLevels(list []levelJSON) error {
	if len(list) == 0 || len(list) > maxLevels {
		return badDocument("%d TCB levels", len(list))
	}
	for i := range list {
		in := &list[i]
		l := tcbLevel{}
		var err error
		if in.TCB.PCESVN == nil {
			return badDocument("a TCB level without pcesvn")
		}
		l.pceSVN = *in.TCB.PCESVN
		if l.sgx, err = components(in.TCB.SGX); err != nil {
			return err
		}
		if t.tee == TDX {
			if l.tdx, err = components(in.TCB.TDX); err != nil {
				return err
			}
		}
		if l.judgement, err = in.judgement(platformStatuses...); err != nil {
			return err
		}
		t.levels = append(t.levels, l)
	}
	return descending(t.levels, func(a, b *tcbLevel) int {
		return cmp.Or(bytes.Compare(a.sgx[:], b.sgx[:]), cmp.Compare(a.pceSVN, b.pceSVN), bytes.Compare(a.tdx[:], b.tdx[:]))
	})
}

// descending sorts levels, highest first, as the QVL does whatever their order in the document. Two for the same TCB
// could judge it in two ways.
func descending[T any](levels []T, compare func(a, b *T) int) error {
	slices.SortStableFunc(levels, func(a, b T) int { return compare(&b, &a) })
	for i := 1; i < len(levels); i++ {
		if compare(&levels[i-1], &levels[i]) == 0 {
			return attest.Refuse(attest.CodeDuplicateField, checkCollateral, "two TCB levels for the same TCB", "one")
		}
	}
	return nil
}

func (t *tcbInfo) parseModules(base *moduleJSON, list []moduleJSON) (err error) {
	if base == nil {
		return badDocument("TCB info of TDX without tdxModule")
	}
	if t.module, err = base.parse(); err != nil {
		return err
	}
	if len(list) > maxModules {
		return attest.Refuse(attest.CodeOversized, checkCollateral, fmt.Sprintf("%d TDX modules", len(list)), fmt.Sprintf("at most %d", maxModules))
	}
	t.modules = map[byte]moduleIdentity{}
	for i := range list {
		var version [1]byte
		id, ok := strings.CutPrefix(list[i].ID, "TDX_")
		if !ok {
			return badDocument("TDX module of id %s", attest.Quote(list[i].ID))
		}
		if err := hexField("id of a TDX module", id, version[:]); err != nil {
			return err
		}
		if _, twice := t.modules[version[0]]; twice {
			return attest.Refuse(attest.CodeDuplicateField, checkCollateral, "TDX module "+attest.Quote(list[i].ID)+" twice", "once")
		}
		var m moduleIdentity
		if m.module, err = list[i].parse(); err != nil {
			return err
		}
		if m.levels, err = isvLevels(list[i].Levels); err != nil {
			return err
		}
		t.modules[version[0]] = m
	}
	return nil
}

func (m *moduleJSON) parse() (out module, err error) {
	if err = hexField("mrsigner of a TDX module", m.MRSigner, out.mrSigner[:]); err == nil {
		err = hexField("attributes of a TDX module", m.Attributes, out.attributes[:])
	}
	return out, err
}
