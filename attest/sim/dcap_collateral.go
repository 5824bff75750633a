package sim

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// dcapCollateral is all that the vendor says at one time.
type dcapCollateral struct {
	made                time.Time
	pck, signer         *x509.Certificate
	cas                 map[string]*x509.Certificate
	tcbInfo, qeIdentity []byte // JSON bodies, as the PCS answers them
	rootCRL             []byte
	pckCRL              map[string][]byte
}

// How often the vendor says it anew, and how long it is valid.
const (
	renewal  = 24 * time.Hour
	validity = 30 * 24 * time.Hour
)

// collateral is what the vendor says now.
func (m *DCAP) collateral() (*dcapCollateral, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if have := m.said; have != nil && now.Sub(have.made) < renewal && !now.Before(have.made) {
		return have, nil
	}
	said, err := m.say(now)
	if err != nil {
		return nil, err
	}
	m.said = said
	return said, nil
}

// say makes collateral of the stage that is set.
func (m *DCAP) say(now time.Time) (*dcapCollateral, error) {
	a, s := m.authority, &m.stage
	out := &dcapCollateral{made: now, cas: map[string]*x509.Certificate{}, pckCRL: map[string][]byte{}}
	expire := func(what string, template *x509.Certificate) *x509.Certificate {
		if s.expired == what {
			template.NotBefore, template.NotAfter = now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0)
		}
		return template
	}
	during := func(what string, valid time.Duration) (from, until time.Time) {
		from = now.Add(-time.Hour)
		if s.expired == what {
			from = from.Add(-valid - renewal)
		}
		return from, from.Add(valid)
	}
	var err error
	for _, ca := range []string{caPlatform, caProcessor} {
		if out.cas[ca], err = a.certify(expire("ca", authorityTemplate(nameCA(ca), 0, now)), a.root, ca, keyRoot, urlRootCRL); err != nil {
			return nil, err
		}
	}
	pck := expire("pck", leafTemplate(namePCK, now))
	pck.ExtraExtensions = append(pck.ExtraExtensions, a.pckExtension(m.config))
	if out.pck, err = a.certify(pck, out.cas[m.config.ca], m.pck, m.config.ca, urlPCKCRL+m.config.ca); err != nil {
		return nil, err
	}
	if out.signer, err = a.certify(expire("signer", leafTemplate(nameSigner, now)), a.root, keySigner, keyRoot, urlRootCRL); err != nil {
		return nil, err
	}

	named := map[string]*x509.Certificate{"pck": out.pck, "ca": out.cas[m.config.ca], "signer": out.signer}[s.revoked]
	withdrawn := func(issuer *x509.Certificate) []*x509.Certificate {
		if named != nil && bytes.Equal(named.RawIssuer, issuer.RawSubject) {
			return []*x509.Certificate{named}
		}
		return nil
	}
	from, until := during("root-crl", 365*24*time.Hour)
	if out.rootCRL, err = a.revocations(a.root, keyRoot, from, until, withdrawn(a.root)...); err != nil {
		return nil, err
	}
	from, until = during("pck-crl", validity)
	for ca, cert := range out.cas {
		if out.pckCRL[ca], err = a.revocations(cert, ca, from, until, withdrawn(cert)...); err != nil {
			return nil, err
		}
	}

	from, until = during("tcb-info", validity)
	if out.tcbInfo, err = m.document("tcbInfo", m.tcbInfo(from, until)); err != nil {
		return nil, err
	}
	from, until = during("qe-identity", validity)
	out.qeIdentity, err = m.document("enclaveIdentity", m.qeIdentity(from, until))
	return out, err
}

// stapled is what comes with evidence.
func (c *dcapCollateral) stapled(m *DCAP) []attest.Endorsement {
	root := attest.Endorsement{Kind: attest.KindCertificate, Raw: bytes.Clone(m.authority.root.Raw)}
	if m.config.bare {
		return []attest.Endorsement{root}
	}
	return []attest.Endorsement{
		{Kind: attest.KindTCBInfo, Raw: bytes.Clone(c.tcbInfo)},
		{Kind: attest.KindQEIdentity, Raw: bytes.Clone(c.qeIdentity)},
		{Kind: attest.KindCertificate, Raw: bytes.Clone(c.signer.Raw)},
		root,
		{Kind: attest.KindCRL, Raw: bytes.Clone(c.rootCRL)},
		{Kind: attest.KindCRL, Raw: bytes.Clone(c.pckCRL[m.config.ca])},
	}
}

// document signs what the PCS answers: the signature is over the value exactly as it stands in the body.
func (m *DCAP) document(name string, value any) ([]byte, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	signature, err := m.authority.sign(keySigner, raw)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, name, raw, signature), nil
}

// Fields of TCB info (version 3) and QE identity (version 2), in the order and spelling of the PCS, version 4.
type (
	tcbInfo struct {
		ID         string           `json:"id"`
		Version    int              `json:"version"`
		Issued     string           `json:"issueDate"`
		Next       string           `json:"nextUpdate"`
		FMSPC      string           `json:"fmspc"`
		PCEID      string           `json:"pceId"`
		Type       int              `json:"tcbType"`
		Evaluation uint64           `json:"tcbEvaluationDataNumber"`
		Module     *moduleIdentity  `json:"tdxModule,omitempty"`
		Modules    []moduleIdentity `json:"tdxModuleIdentities,omitempty"`
		Levels     []tcbLevel       `json:"tcbLevels"`
	}
	moduleIdentity struct {
		ID         string     `json:"id,omitempty"`
		MRSigner   string     `json:"mrsigner"`
		Attributes string     `json:"attributes"`
		Mask       string     `json:"attributesMask"`
		Levels     []tcbLevel `json:"tcbLevels,omitempty"`
	}
	tcbLevel struct {
		TCB        any      `json:"tcb"`
		Date       string   `json:"tcbDate"`
		Status     string   `json:"tcbStatus"`
		Advisories []string `json:"advisoryIDs,omitempty"`
	}
	platformTCB struct {
		SGX []tcbComponent `json:"sgxtcbcomponents"`
		PCE uint16         `json:"pcesvn"`
		TDX []tcbComponent `json:"tdxtcbcomponents,omitempty"`
	}
	tcbComponent struct {
		SVN      byte   `json:"svn"`
		Category string `json:"category,omitempty"`
		Type     string `json:"type,omitempty"`
	}
	isvTCB struct {
		SVN uint16 `json:"isvsvn"`
	}
	qeIdentity struct {
		ID             string     `json:"id"`
		Version        int        `json:"version"`
		Issued         string     `json:"issueDate"`
		Next           string     `json:"nextUpdate"`
		Evaluation     uint64     `json:"tcbEvaluationDataNumber"`
		MiscSelect     string     `json:"miscselect"`
		MiscMask       string     `json:"miscselectMask"`
		Attributes     string     `json:"attributes"`
		AttributesMask string     `json:"attributesMask"`
		MRSigner       string     `json:"mrsigner"`
		ProdID         uint16     `json:"isvprodid"`
		Levels         []tcbLevel `json:"tcbLevels"`
	}
)

// What the components of a platform are.
var (
	sgxComponents = [16]tcbComponent{
		{Category: "BIOS", Type: "Early Microcode Update"},
		{Category: "OS/VMM", Type: "SGX Late Microcode Update"},
		{Category: "OS/VMM", Type: "TXT SINIT"},
		{Category: "BIOS"},
		{Category: "BIOS"},
		{Category: "BIOS"},
		7: {Category: "OS/VMM", Type: "SEAMLDR ACM"},
	}
	tdxComponents = [16]tcbComponent{
		{Category: "OS/VMM", Type: "TDX Module"},
		{Category: "OS/VMM", Type: "TDX Module"},
		{Category: "OS/VMM", Type: "TDX Late Microcode Update"},
	}
)

func components(kinds [16]tcbComponent, svns [16]byte) []tcbComponent {
	for i, svn := range svns {
		kinds[i].SVN = svn
	}
	return kinds[:]
}

// levels are those that the vendor lists: where it has found fault with the current one there is a newer one to go to.
func levels(status string, level func(*dcapTCB) any) []tcbLevel {
	next := tcbLevel{level(&dcapNext), "2026-08-12T00:00:00Z", upToDate, nil}
	current := tcbLevel{level(&dcapCurrent), "2026-02-11T00:00:00Z", status, nil}
	previous := tcbLevel{level(&dcapPrevious), "2024-03-13T00:00:00Z", "OutOfDate", []string{"INTEL-SA-00001", "INTEL-SA-00002"}}
	if status == upToDate {
		return []tcbLevel{current, previous}
	}
	current.Advisories = previous.Advisories[1:]
	return []tcbLevel{next, current, previous}
}

func pcsTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (m *DCAP) tcbInfo(from, until time.Time) *tcbInfo {
	t := &tcbInfo{
		ID: strings.ToUpper(m.config.tee), Version: 3, Issued: pcsTime(from), Next: pcsTime(until),
		FMSPC: strings.ToUpper(hex.EncodeToString(m.config.fmspc[:])), PCEID: "0000", Evaluation: m.stage.evaluation,
		Levels: levels(m.stage.status, func(l *dcapTCB) any {
			p := platformTCB{SGX: components(sgxComponents, l.sgx), PCE: l.pce}
			if m.config.tee == teeTDX {
				p.TDX = components(tdxComponents, l.tdx)
			}
			return p
		}),
	}
	if m.config.tee == teeTDX {
		identity := moduleIdentity{MRSigner: strings.Repeat("00", 48), Attributes: strings.Repeat("00", 8), Mask: strings.Repeat("FF", 8)}
		t.Module = &moduleIdentity{MRSigner: identity.MRSigner, Attributes: identity.Attributes, Mask: identity.Mask}
		identity.Levels = levels(m.stage.moduleStatus, func(l *dcapTCB) any { return isvTCB{uint16(l.tdx[0])} })
		for _, version := range []string{"TDX_03", "TDX_01"} {
			identity.ID = version
			t.Modules = append(t.Modules, identity)
		}
	}
	return t
}

func (m *DCAP) qeIdentity(from, until time.Time) *qeIdentity {
	e := quotingEnclave(m.config.tee)
	return &qeIdentity{
		ID: e.id, Version: 2, Issued: pcsTime(from), Next: pcsTime(until), Evaluation: m.stage.evaluation,
		MiscSelect: "00000000", MiscMask: "FFFFFFFF",
		Attributes: "11000000000000000000000000000000", AttributesMask: "FBFFFFFFFFFFFFFF0000000000000000",
		MRSigner: strings.ToUpper(hex.EncodeToString(e.signer)), ProdID: e.prodID,
		Levels: levels(m.stage.qeStatus, func(l *dcapTCB) any { return isvTCB{l.qe} }),
	}
}
