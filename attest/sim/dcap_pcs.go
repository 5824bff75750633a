package sim

import (
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
)

// PCSService names the simulated Provisioning Certification Service in an attest.Ref.
const PCSService = simulated + dcap.Service

// Paths of the service, version 4, of a cache of it, and of the list that Intel serves as a file.
const (
	pathPCS     = "/certification/v4/"
	pathPCKCRL  = "/sgx" + pathPCS + "pckcrl"
	pathRootCRL = "/sgx" + pathPCS + "rootcacrl"
	pathRootDER = "/IntelSGXRootCA.der"
)

// Service serves the machine's endorsements under the paths of Intel's service.
func (m *DCAP) Service() http.Handler { return vendor(m.answer) }

// Endorser implements Machine.
func (m *DCAP) Endorser() attest.Endorser { return endorser{m.answer, []string{dcap.Service}} }

// answer finds what the path names; it answers nil when there is no such thing.
func (m *DCAP) answer(u *url.URL) (*answer, error) {
	c, err := m.collateral()
	if err != nil {
		return nil, err
	}
	root := m.authority.root.Raw
	switch q := u.Query(); u.Path {
	case "/" + m.config.tee + pathPCS + "tcb":
		if !strings.EqualFold(q.Get("fmspc"), hex.EncodeToString(m.config.fmspc[:])) {
			return nil, nil
		}
		return issued("TCB-Info-Issuer-Chain", attest.KindTCBInfo, "application/json", c.tcbInfo, c.signer.Raw, root), nil
	case "/" + m.config.tee + pathPCS + "qe/identity":
		return issued("SGX-Enclave-Identity-Issuer-Chain", attest.KindQEIdentity, "application/json", c.qeIdentity, c.signer.Raw, root), nil
	case pathPCKCRL:
		list := c.pckCRL[q.Get("ca")]
		if list == nil {
			return nil, nil
		}
		a := issued("SGX-PCK-CRL-Issuer-Chain", attest.KindCRL, "application/pkix-crl", list, c.cas[q.Get("ca")].Raw, root)
		if q.Get("encoding") != "der" {
			a.contentType, a.body = "application/x-pem-file", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
		}
		return a, nil
	case pathRootCRL: // a cache's way to give it, in hex
		a := single(attest.KindCRL, c.rootCRL)
		a.contentType, a.body = "text/plain", []byte(hex.EncodeToString(c.rootCRL))
		return a, nil
	case pathRootDER:
		return single(attest.KindCRL, c.rootCRL), nil
	}
	return nil, nil
}

// issued answers an endorsement with the chain of its issuer in a header, in PEM and percent-encoded.
func issued(header string, kind attest.Kind, contentType string, raw []byte, ders ...[]byte) *answer {
	a := chain(contentType, ders...)
	a.header = [2]string{header, strings.ReplaceAll(url.QueryEscape(string(a.body)), "+", "%20")}
	a.body, a.endorsements = raw, append([]attest.Endorsement{{Kind: kind, Raw: raw}}, a.endorsements...)
	return a
}
