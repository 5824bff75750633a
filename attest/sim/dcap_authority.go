package sim

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"
)

// dcapAuthority is what Intel is to real hardware, and the secret of one platform. All keys are derived from the seed; of
// the certificates only the root is kept, for its digest is what policies name.
type dcapAuthority struct {
	tee  string
	root *x509.Certificate
	seed seed
}

// mark tells the root of one TEE from that of the other, which Intel has in one.
func mark(tee string) string { return "SIMULATED " + strings.ToUpper(tee) }

const dcapRootName = "Intel SGX Root CA"

// Roles of keys, each with the common name of its certificate.
const (
	keyRoot      = "root"
	keySigner    = "signer"
	keyPCK       = "pck"
	keyQuote     = "attestation key"
	nameSigner   = "Intel SGX TCB Signing"
	namePCK      = "Intel SGX PCK Certificate"
	urlRootCRL   = "https://certificates.sim.invalid" + pathRootDER
	urlPCKCRL    = "https://api.sim.invalid" + pathPCKCRL + "?encoding=der&ca="
	longValidity = 25 // years
)

func nameCA(ca string) string {
	return map[string]string{caPlatform: "Intel SGX PCK Platform CA", caProcessor: "Intel SGX PCK Processor CA"}[ca]
}

func openDCAPAuthority(dir, tee string, now time.Time) (*dcapAuthority, error) {
	a := &dcapAuthority{tee: tee}
	err := open(dir, "sim-"+tee+".pem", func() ([]byte, error) { return newDCAPAuthority(tee, now) }, a.decode)
	return a, err
}

// newDCAPAuthority makes an authority as it is kept.
func newDCAPAuthority(tee string, now time.Time) ([]byte, error) {
	a := &dcapAuthority{tee: tee, seed: make(seed, seedSize)}
	_, _ = rand.Read(a.seed)
	template := authorityTemplate(dcapRootName, 1, now)
	template.Subject.OrganizationalUnit = []string{mark(tee)}
	template.NotAfter = now.AddDate(longValidity, 0, 0)
	root, err := a.certify(template, nil, keyRoot, keyRoot, urlRootCRL)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pemChain(root.Raw), pem.EncodeToMemory(&pem.Block{Type: blockSeed, Bytes: a.seed})), nil
}

func (a *dcapAuthority) decode(raw []byte) error {
	var err error
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case blockCertificate:
			if a.root, err = x509.ParseCertificate(block.Bytes); err != nil {
				return err
			}
		case blockSeed:
			a.seed = block.Bytes
		}
	}
	if a.root == nil || len(a.seed) != seedSize {
		return errors.New("not a simulated root, or not a complete one")
	}
	key, err := a.key(keyRoot)
	if err == nil && !key.PublicKey.Equal(a.root.PublicKey) {
		err = errors.New("a key that does not belong to the certificate")
	}
	return err
}

// key is the key of a role.
func (a *dcapAuthority) key(role string) (*ecdsa.PrivateKey, error) {
	return a.seed.key(elliptic.P256(), role)
}

func dcapName(cn string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: []string{"Intel Corporation"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"}, Country: []string{"US"}}
}

func authorityTemplate(name string, pathLen int, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: dcapName(name), NotBefore: now.Add(-backdate), NotAfter: now.AddDate(15, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
	}
}

func leafTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: dcapName(name), NotBefore: now.Add(-backdate), NotAfter: now.AddDate(7, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment, BasicConstraintsValid: true,
	}
}

// certify issues a certificate for the key of role by that of issuer; parent is nil for the root.
func (a *dcapAuthority) certify(template, parent *x509.Certificate, role, issuer, crl string) (*x509.Certificate, error) {
	key, err := a.key(role)
	if err != nil {
		return nil, err
	}
	by, err := a.key(issuer)
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	// The serial number is the key identifier, as in Intel's certificates.
	id := sha256.Sum256(public)
	id[0] = id[0]&0x3f | 0x40
	template.SubjectKeyId, template.SerialNumber = id[:20], new(big.Int).SetBytes(id[:20])
	template.SignatureAlgorithm, template.CRLDistributionPoints = x509.ECDSAWithSHA256, []string{crl}
	if parent == nil {
		parent = template
		template.AuthorityKeyId = template.SubjectKeyId
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// revocations makes the list of an issuer.
func (a *dcapAuthority) revocations(issuer *x509.Certificate, role string, from, until time.Time, revoked ...*x509.Certificate) ([]byte, error) {
	key, err := a.key(role)
	if err != nil {
		return nil, err
	}
	list := &x509.RevocationList{Number: big.NewInt(from.Unix()), ThisUpdate: from, NextUpdate: until, SignatureAlgorithm: x509.ECDSAWithSHA256}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: from, ReasonCode: 1})
	}
	return x509.CreateRevocationList(rand.Reader, list, issuer, key)
}

// sign signs as Intel's enclaves and services do: R and S, 32 bytes each.
func (a *dcapAuthority) sign(role string, message []byte) ([]byte, error) {
	key, err := a.key(role)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(message)
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	r, s, err := signatureParts(der)
	if err != nil {
		return nil, err
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
}

// pckField is one field of the SGX extension of a PCK certificate (Intel SGX PCK Certificate and CRL Profile, 1.5).
type pckField struct {
	ID    asn1.ObjectIdentifier
	Value any
}

func sgxOID(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, arcs...)
}

// fields writes a SEQUENCE of fields.
func fields(list ...pckField) asn1.RawValue {
	var out bytes.Buffer
	for _, f := range list {
		out.Write(mustMarshal(f, ""))
	}
	return asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: out.Bytes()}
}

// pckExtension says what platform a PCK certificate is of.
func (a *dcapAuthority) pckExtension(c *dcapConfig) pkix.Extension {
	var tcb []pckField
	for i, svn := range c.tcb.sgx {
		tcb = append(tcb, pckField{sgxOID(2, i+1), int(svn)})
	}
	tcb = append(tcb, pckField{sgxOID(2, 17), int(c.tcb.pce)}, pckField{sgxOID(2, 18), c.tcb.sgx[:]})
	list := []pckField{
		{sgxOID(1), a.seed.derive("ppid", 16)},
		{sgxOID(2), fields(tcb...)},
		{sgxOID(3), []byte{0, 0}}, // PCEID
		{sgxOID(4), c.fmspc[:]},
	}
	if c.ca == caPlatform {
		list = append(list,
			pckField{sgxOID(5), asn1.Enumerated(1)}, // scalable
			pckField{sgxOID(6), a.seed.derive("platform instance", 16)},
			pckField{sgxOID(7), fields(pckField{sgxOID(7, 1), false}, pckField{sgxOID(7, 2), true}, pckField{sgxOID(7, 3), true})}) // dynamic, cached keys, SMT
	} else {
		list = append(list, pckField{sgxOID(5), asn1.Enumerated(0)}) // standard
	}
	return pkix.Extension{Id: sgxOID(), Value: mustMarshal(fields(list...), "")}
}
