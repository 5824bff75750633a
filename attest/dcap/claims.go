package dcap

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// Names of TCB components: sgx1 to sgx16 and tdx1 to tdx16, as Intel counts them.
var sgxNames, tdxNames = numbered("sgx"), numbered("tdx")

func numbered(prefix string) (names [16]string) {
	for i := range names {
		names[i] = prefix + strconv.Itoa(i+1)
	}
	return names
}

// Claims are those that do not depend on what the body of the quote means. What the body says is for the caller to add.
func (v *Verified) Claims() *attest.Claims {
	q, pck := v.Quote, v.PCK
	out := &attest.Claims{
		Vendor:     "intel",
		TEE:        string(q.TEE),
		Product:    v.Product,
		Generation: v.Generation,
		Root:       v.Root,
		TCB:        make(attest.TCB, 2+16+16),
		TCBStatus:  string(v.Status),
		TCBDate:    v.Date,
		TCBJudged:  v.Judged,
		Evaluation: &v.Evaluation,
		Advisories: v.Advisories,
		FMSPC:      slices.Clone(pck.FMSPC[:]),
		Version:    int(q.Version),
		Provenance: attest.Provenance{PPID: slices.Clone(pck.PPID[:])},
		Platform:   make(map[string]attest.Flag, 12),
		Measured:   make(map[string]attest.HexBytes, 12),
		Numbers:    map[string]uint64{"sgx_type": uint64(pck.Type)},
		Revocation: v.Revocation,
	}
	out.TCB["pce"], out.TCB["qe"] = uint64(pck.PCESVN), uint64(v.QESVN)
	for i, svn := range pck.Components {
		out.TCB[sgxNames[i]] = uint64(svn)
	}
	if q.TEE == TDX {
		for i, svn := range q.teeTCBSVN() {
			out.TCB[tdxNames[i]] = uint64(svn)
		}
	}
	for name, flag := range map[string]attest.Flag{"smt": pck.SMT, "dynamic_platform": pck.DynamicPlatform, "cached_keys": pck.CachedKeys} {
		if flag != attest.Absent {
			out.Platform[name] = flag
		}
	}
	out.Checks = v.transcript()
	out.NotChecked = []string{"security version of the enclave that issued the PCK certificate, user data of the quote: signed, but no claim"}
	if p := v.Revocation.Problem; p != nil {
		out.NotChecked = append(out.NotChecked, "revocation: "+p.Error())
	}
	return out
}

func (v *Verified) transcript() []attest.Check {
	q := v.Quote
	pass := func(id, text, got string, source attest.Source) attest.Check {
		return attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source}
	}
	status := string(v.Status) + " since " + attest.Day(v.Date)
	if len(v.Advisories) > 0 {
		status += " (" + strings.Join(v.Advisories, ", ") + ")"
	}
	checks := make([]attest.Check, 0, 12)
	checks = append(checks,
		pass(checkFormat, "quote is well-formed", "version "+strconv.Itoa(int(q.Version)), attest.SourceHardware),
		pass(checkChain, "PCK chain to a trusted root", v.Root, attest.SourceVendor),
		pass(checkQE, "the quoting enclave is Intel's and names the attestation key", "ISVSVN "+strconv.Itoa(int(v.QESVN)), attest.SourceHardware),
		pass(checkSignature, "the hardware's signature verifies", "ECDSA P-256", attest.SourceHardware),
		pass(checkProduct, "the platform is of a known product", v.Product+", FMSPC "+hex.EncodeToString(v.PCK.FMSPC[:]), attest.SourceVendor),
		pass(checkCollateral, "TCB info and QE identity are Intel's and current", "evaluation "+strconv.FormatUint(v.Evaluation, 10), attest.SourceVendor),
	)
	if q.TEE == TDX {
		checks = append(checks, pass(checkModule, "the TDX module is Intel's", hex.EncodeToString(q.Body[:3]), attest.SourceHardware))
	}
	checks = append(checks, pass(checkTCB, "the vendor judges the TCB, and has not revoked it", status, attest.SourceVendor))
	if v.Revocation.Problem == nil {
		checks = append(checks, pass(checkRevocation, "no key of the chains is revoked", "lists of "+attest.Day(v.Revocation.Issued), attest.SourceVendor))
	}
	return checks
}
