package dcap

import (
	"encoding/hex"

	"github.com/jurat-tls/jurat/attest"
)

// Service names Intel's Provisioning Certification Service, or a cache of it, in an attest.Ref. Paths are those of version
// 4 of its API. It answers a request for TCB info or QE identity with the JSON body and the certificates of its issuer
// chain, and a request for a revocation list with the list, and its issuer chain where it has one.
const Service = "intel-pcs"

const pathRootCRL = "/sgx/certification/v4/rootcacrl"

func tcbInfoRef(tee TEE, pck *PCK) attest.Ref {
	return attest.Ref{Service: Service, Path: "/" + string(tee) + "/certification/v4/tcb?fmspc=" + hex.EncodeToString(pck.FMSPC[:]), Kind: attest.KindTCBInfo}
}

func identityRef(tee TEE) attest.Ref {
	return attest.Ref{Service: Service, Path: "/" + string(tee) + "/certification/v4/qe/identity", Kind: attest.KindQEIdentity}
}

func rootCRLRef() attest.Ref {
	return attest.Ref{Service: Service, Path: pathRootCRL, Kind: attest.KindCRL}
}

func (c *pckChain) crlRef() attest.Ref {
	return attest.Ref{Service: Service, Path: "/sgx/certification/v4/pckcrl?ca=" + c.service + "&encoding=der", Kind: attest.KindCRL}
}
