// Package fakepcs is a stand-in for Intel's Provisioning Certification Service that gets everything right but the
// signatures of its documents: for tests of what fetches, keeps and hands on endorsements, and verifies none.
package fakepcs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// FMSPC is the one that the service knows, under SGX and TDX.
const FMSPC = "00806f050000"

// PCS is the service. Everything that it issues is valid from an hour before its time.
type PCS struct {
	Root, Signing, Platform, Processor []byte // certificates, in DER
	RootCRL, PlatformCRL, ProcessorCRL []byte
	bodies                             map[string]string
}

// New makes one whose documents and revocation lists are valid for validity after now.
func New(now time.Time, validity time.Duration) (*PCS, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &PCS{bodies: map[string]string{}}
	serial := int64(0)
	named := func(cn string, ca bool) *x509.Certificate {
		serial++
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "Test " + cn}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0),
			BasicConstraintsValid: true, IsCA: ca, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, SubjectKeyId: []byte{byte(serial)},
		}
	}
	root := named("SGX Root CA", true)
	for _, c := range []struct {
		cert *x509.Certificate
		out  *[]byte
		crl  *[]byte
	}{
		{root, &p.Root, &p.RootCRL},
		{named("SGX TCB Signing", false), &p.Signing, nil},
		{named("SGX PCK Platform CA", true), &p.Platform, &p.PlatformCRL},
		{named("SGX PCK Processor CA", true), &p.Processor, &p.ProcessorCRL},
	} {
		if *c.out, err = x509.CreateCertificate(rand.Reader, c.cert, root, &key.PublicKey, key); err != nil {
			return nil, err
		}
		if c.crl == nil {
			continue
		}
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(validity)}
		if *c.crl, err = x509.CreateRevocationList(rand.Reader, list, c.cert, key); err != nil {
			return nil, err
		}
	}
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
	document := func(member, id, more string) string {
		return fmt.Sprintf(`{"%s":{"id":"%s","version":3,"issueDate":"%s","nextUpdate":"%s"%s},"signature":"%s"}`,
			member, id, stamp(now.Add(-time.Hour)), stamp(now.Add(validity)), more, strings.Repeat("00", 64))
	}
	platform := `,"fmspc":"` + strings.ToUpper(FMSPC) + `"`
	p.bodies["/sgx/certification/v4/tcb?fmspc="+FMSPC] = document("tcbInfo", "SGX", platform)
	p.bodies["/tdx/certification/v4/tcb?fmspc="+FMSPC] = document("tcbInfo", "TDX", platform)
	p.bodies["/sgx/certification/v4/qe/identity"] = document("enclaveIdentity", "QE", "")
	p.bodies["/tdx/certification/v4/qe/identity"] = document("enclaveIdentity", "TD_QE", "")
	return p, nil
}

// Body is the document at a path; empty where there is none.
func (p *PCS) Body(path string) string { return p.bodies[path] }

// Header is certificates as the service puts them into a header.
func Header(certs ...[]byte) string {
	var text strings.Builder
	for _, der := range certs {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return strings.ReplaceAll(url.QueryEscape(text.String()), "+", "%20")
}

// ServeHTTP answers as a PCCS does, which has the root's list in hex.
func (p *PCS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.RequestURI()
	switch path {
	case "/sgx/certification/v4/rootcacrl":
		_, _ = w.Write([]byte(hex.EncodeToString(p.RootCRL)))
	case "/IntelSGXRootCA.der":
		_, _ = w.Write(p.RootCRL)
	case "/sgx/certification/v4/pckcrl?ca=platform&encoding=der":
		w.Header().Set("SGX-PCK-CRL-Issuer-Chain", Header(p.Platform, p.Root))
		_, _ = w.Write(p.PlatformCRL)
	case "/sgx/certification/v4/pckcrl?ca=processor&encoding=der":
		w.Header().Set("SGX-PCK-CRL-Issuer-Chain", Header(p.Processor, p.Root))
		_, _ = w.Write(p.ProcessorCRL)
	default:
		body := p.Body(path)
		if body == "" {
			http.NotFound(w, r)
			return
		}
		name := "SGX-Enclave-Identity-Issuer-Chain"
		if strings.Contains(path, "/tcb?") {
			name = "TCB-Info-Issuer-Chain"
		}
		w.Header().Set(name, Header(p.Signing, p.Root))
		_, _ = w.Write([]byte(body))
	}
}
