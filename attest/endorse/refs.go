package endorse

import (
	"encoding/hex"

	"github.com/jurat-tls/jurat/attest"
)

// AMDRefs are what a whole product line has in common, as AMD's service names it ("Milan", "Genoa", "Turin"): the
// authorities and the revocation list. The certificate of a single chip needs a report of that chip.
func AMDRefs(line string) []attest.Ref {
	var refs []attest.Ref
	for _, key := range []string{"vcek", "vlek"} {
		path := "/" + key + "/v1/" + line
		refs = append(refs,
			attest.Ref{Service: amdService, Path: path + "/cert_chain", Kind: attest.KindCertificate},
			attest.Ref{Service: amdService, Path: path + "/crl", Kind: attest.KindCRL})
	}
	return refs
}

// IntelRefs are what quotes of all Intel platforms are verified with, under SGX and TDX.
func IntelRefs() []attest.Ref {
	refs := []attest.Ref{
		{Service: intelService, Path: intelRootCRL, Kind: attest.KindCRL},
		{Service: intelService, Path: "/sgx/certification/v4/pckcrl?ca=platform&encoding=der", Kind: attest.KindCRL},
		{Service: intelService, Path: "/sgx/certification/v4/pckcrl?ca=processor&encoding=der", Kind: attest.KindCRL},
	}
	for _, tee := range []string{"sgx", "tdx"} {
		refs = append(refs, attest.Ref{Service: intelService, Path: "/" + tee + "/certification/v4/qe/identity", Kind: attest.KindQEIdentity})
	}
	return refs
}

// IntelTCBRefs are the judgements of TCB levels of platforms of one FMSPC.
func IntelTCBRefs(fmspc [6]byte) []attest.Ref {
	var refs []attest.Ref
	for _, tee := range []string{"sgx", "tdx"} {
		refs = append(refs, attest.Ref{Service: intelService, Path: "/" + tee + "/certification/v4/tcb?fmspc=" + hex.EncodeToString(fmspc[:]), Kind: attest.KindTCBInfo})
	}
	return refs
}
