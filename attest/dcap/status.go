package dcap

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Status is Intel's judgement of a TCB.
type Status string

// Statuses as Intel spells them.
const (
	UpToDate                             Status = "UpToDate"
	SWHardeningNeeded                    Status = "SWHardeningNeeded"
	ConfigurationNeeded                  Status = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded    Status = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                            Status = "OutOfDate"
	OutOfDateConfigurationNeeded         Status = "OutOfDateConfigurationNeeded"
	Revoked                              Status = "Revoked"
	TDRelaunchAdvised                    Status = "TDRelaunchAdvised"
	TDRelaunchAdvisedConfigurationNeeded Status = "TDRelaunchAdvisedConfigurationNeeded"
)

// platformStatuses are those that a level of a platform can have; modules and enclaves have fewer.
var platformStatuses = []Status{
	UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked,
}

func (s Status) configuration() bool {
	return s == ConfigurationNeeded || s == ConfigurationAndSWHardeningNeeded || s == OutOfDateConfigurationNeeded
}

func (s Status) outOfDate() bool { return s == OutOfDate || s == OutOfDateConfigurationNeeded }

// with converges the status of a platform with that of a component which has only UpToDate and OutOfDate (QVL,
// convergeTcbStatusWithTdxModuleStatus and convergeTcbStatusWithQeTcbStatus; a component that is Revoked never gets here).
func (s Status) with(component Status) Status {
	if component != OutOfDate {
		return s
	}
	switch s {
	case UpToDate, SWHardeningNeeded:
		return OutOfDate
	case ConfigurationNeeded, ConfigurationAndSWHardeningNeeded:
		return OutOfDateConfigurationNeeded
	}
	return s
}

// notBelow reports whether every number is at least that of the level.
func notBelow(svns, level []byte) bool {
	for i, v := range level {
		if svns[i] < v {
			return false
		}
	}
	return true
}

func unlisted(what string) *attest.Error {
	return attest.Refuse(attest.CodeTCBUnknown, checkTCB, what, "a TCB level that the vendor lists")
}

// match finds the levels of the platform: the highest that its SGX components and PCE reach, and the highest that its TDX
// components reach too (QVL 4.1.2.4.17.1 to 3, matchTcbLevels). For SGX both are the same.
func (t *tcbInfo) match(pck *PCK, q *Quote) (sgx, tdx *tcbLevel, err error) {
	var svn [16]byte
	from := 0
	if t.tee == TDX {
		svn = q.teeTCBSVN()
		if svn[1] > 0 {
			from = 2 // the first two are the module's, which has an identity of its own
		}
	}
	for i := range t.levels {
		l := &t.levels[i]
		if pck.PCESVN < l.pceSVN || !notBelow(pck.Components[:], l.sgx[:]) {
			continue
		}
		if sgx == nil {
			sgx = l
		}
		if notBelow(svn[from:], l.tdx[from:]) {
			return sgx, l, nil
		}
	}
	return nil, nil, unlisted("a platform below all levels")
}

// levelOf finds the level that a security version number reaches.
func levelOf(levels []isvLevel, svn uint16, what string) (*isvLevel, error) {
	for i := range levels {
		if svn >= levels[i].svn {
			return &levels[i], nil
		}
	}
	return nil, unlisted(fmt.Sprintf("%s with security version %d, below all levels", what, svn))
}

// moduleLevel checks the TDX module of q against the identity of its version (QVL 4.1.2.4.11 and 4.1.2.4.17.4.1). The
// module of version 0 has no levels of its own: the answer is nil then.
func (t *tcbInfo) moduleLevel(q *Quote) (*isvLevel, error) {
	svn := q.teeTCBSVN()
	want := moduleIdentity{module: t.module}
	if svn[1] > 0 {
		var err error
		if want, err = t.identity(svn[1]); err != nil {
			return nil, err
		}
	}
	if got := q.mrSignerSeam(); !bytes.Equal(got, want.mrSigner[:]) {
		return nil, attest.Refuse(attest.CodeTDXModule, checkModule, "MRSIGNERSEAM "+hex.EncodeToString(got), hex.EncodeToString(want.mrSigner[:]))
	}
	if got := q.seamAttributes(); !bytes.Equal(got, want.attributes[:]) {
		return nil, attest.Refuse(attest.CodeTDXModule, checkModule, "SEAMATTRIBUTES "+hex.EncodeToString(got), hex.EncodeToString(want.attributes[:]))
	}
	if svn[1] == 0 {
		return nil, nil
	}
	return levelOf(want.levels, uint16(svn[0]), "a TDX module")
}

func (t *tcbInfo) identity(version byte) (moduleIdentity, error) {
	m, ok := t.modules[version]
	if !ok {
		return m, unlisted(fmt.Sprintf("TDX module of version %d", version))
	}
	return m, nil
}

// relaunch tells whether only the launch of the guest was under an outdated TDX module: the one that runs now is at the
// latest level (QVL 4.1.2.4.17.4.3, checkForRelaunch).
func (t *tcbInfo) relaunch(running [16]byte) (bool, error) {
	latest := &t.levels[0]
	if running[1] == 0 {
		return running[0] >= latest.tdx[0] && running[2] >= latest.tdx[2], nil
	}
	m, err := t.identity(running[1])
	if err != nil {
		return false, err
	}
	return uint16(running[0]) >= m.levels[0].svn && running[2] >= latest.tdx[2], nil
}

// judge converges the statuses of platform, TDX module and quoting enclave, as the QVL's checkTcbLevel does.
func judge(t *tcbInfo, id *qeIdentity, pck *PCK, q *Quote) (j judgement, err error) {
	sgx, tdx, err := t.match(pck, q)
	if err != nil {
		return j, err
	}
	qe, err := levelOf(id.levels, q.qeSVN(), "a quoting enclave")
	if err != nil {
		return j, err
	}
	type part struct {
		name string
		*judgement
	}
	parts := []part{{"platform", &sgx.judgement}, {"platform", &tdx.judgement}, {"quoting enclave", &qe.judgement}}
	var m *isvLevel
	if t.tee == TDX {
		if m, err = t.moduleLevel(q); err != nil {
			return j, err
		}
	}
	if m != nil {
		parts = append(parts, part{"TDX module", &m.judgement})
	}
	// A level that is withdrawn anywhere withdraws the whole, even where the QVL looks on for a lower level that is not.
	for _, p := range parts {
		if p.status == Revoked {
			return j, attest.Refuse(attest.CodeTCBRevoked, checkTCB, p.name+" of a TCB level that is Revoked", "one that is not")
		}
	}
	status := tdx.status
	if m != nil {
		status = status.with(m.status)
		if running, ok := q.teeTCBSVN2(); ok && m.status == OutOfDate && qe.status == UpToDate && !sgx.status.outOfDate() {
			if status, err = relaunched(t, running, sgx.status, status); err != nil {
				return j, err
			}
		}
	}
	j = judgement{status: status.with(qe.status), date: tdx.date}
	for _, p := range parts[1:] { // the SGX level only says whether the platform is outdated beyond its TDX components
		j.date = earlier(j.date, p.date)
		for _, a := range p.advisories {
			if !slices.Contains(j.advisories, a) {
				j.advisories = append(j.advisories, a)
			}
		}
	}
	return j, nil
}

func relaunched(t *tcbInfo, running [16]byte, sgx, tdx Status) (Status, error) {
	advised, err := t.relaunch(running)
	switch {
	case !advised: // nor where that could not be told
		return tdx, err
	case sgx.configuration() || tdx.configuration():
		return TDRelaunchAdvisedConfigurationNeeded, nil
	default:
		return TDRelaunchAdvised, nil
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
