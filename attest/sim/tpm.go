package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// tpmRootName is that of the authority of simulated TPMs; no other TEE's has it.
const tpmRootName = "SIMULATED TPM root"

func tpmKind() kind {
	return kind{
		name:   string(tpm.Format),
		syntax: "tpm with pcr0=HEX to pcr23=HEX, revoked=on|off",
		open:   openTPM,
		root:   tpmRoot,
		verifier: func(root []byte) (attest.Verifier, error) {
			roots, err := tpm.NewRoots(root)
			if err != nil {
				return nil, err
			}
			return tpm.NewVerifier(roots), nil
		},
	}
}

// tpmRoot finds the one root of simulated TPMs among the endorsements.
func tpmRoot(ev *attest.Evidence) ([]byte, error) {
	root, err := rootCertificate(ev, func(c *x509.Certificate) bool { return c.Subject.CommonName == tpmRootName }, "a certificate of "+tpmRootName+" among the endorsements")
	if err != nil {
		return nil, err
	}
	return root.Raw, nil
}

// tpmKeys are what is kept of a simulated TPM: its authority and its attestation key.
type tpmKeys struct {
	root   *x509.Certificate
	issuer *ecdsa.PrivateKey
	ak     *ecdsa.PrivateKey
}

func newTPMKeys(now time.Time) ([]byte, error) {
	var out bytes.Buffer
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		keys[i] = key
		_ = pem.Encode(&out, &pem.Block{Type: blockKey, Bytes: der})
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tpmRootName}, NotBefore: now.Add(-backdate), NotAfter: now.AddDate(25, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &keys[0].PublicKey, keys[0])
	_ = pem.Encode(&out, &pem.Block{Type: blockCertificate, Bytes: der})
	return out.Bytes(), err
}

func (k *tpmKeys) decode(raw []byte) error {
	var keys []*ecdsa.PrivateKey
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		var err error
		switch block.Type {
		case blockCertificate:
			k.root, err = x509.ParseCertificate(block.Bytes)
		case blockKey:
			var key any
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
			if key, ok := key.(*ecdsa.PrivateKey); ok {
				keys = append(keys, key)
			}
		}
		if err != nil {
			return err
		}
	}
	if len(keys) != 2 || k.root == nil || !keys[0].PublicKey.Equal(k.root.PublicKey) {
		return errors.New("not a simulated TPM, or not a complete one")
	}
	k.issuer, k.ak = keys[0], keys[1]
	return nil
}

// leaf certifies the attestation key.
func (k *tpmKeys) leaf(now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "SIMULATED TPM"}, NotBefore: now.Add(-backdate), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}, // tcg-kp-AIKCertificate
	}
	return x509.CreateCertificate(rand.Reader, template, k.root, &k.ak.PublicKey, k.issuer)
}

func (k *tpmKeys) list(revoked bool, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.AddDate(0, 1, 0)}
	if revoked {
		list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(2), RevocationTime: now.Add(-time.Hour)}}
	}
	return x509.CreateRevocationList(rand.Reader, list, k.root, k.issuer)
}

// tpmMachine is a simulated machine with a TPM and no TEE.
type tpmMachine struct {
	*tpmKeys
	soft    *softTPM
	area    []byte // TPMT_PUBLIC
	ak      []byte // certificate
	revoked bool
	pace    *pace
	now     func() time.Time
}

func openTPM(s *Spec) (Machine, error) {
	if s.Product != "" {
		return nil, usage("product "+attest.Quote(s.Product), "none: sim:tpm")
	}
	host := s.Host
	if err := host.complete(); err != nil {
		return nil, err
	}
	m := &tpmMachine{tpmKeys: new(tpmKeys), pace: newPace(&host), now: host.Now}
	m.soft = newSoftTPM(nil, m.now())
	for _, o := range s.options {
		if err := m.set(o); err != nil {
			return nil, err
		}
	}
	err := open(host.Dir, "sim-tpm.pem", func() ([]byte, error) { return newTPMKeys(m.now()) }, m.decode)
	if err != nil {
		return nil, err
	}
	m.soft.key = m.tpmKeys.ak
	if m.area, err = publicArea(&m.tpmKeys.ak.PublicKey); err != nil {
		return nil, err
	}
	m.ak, err = m.leaf(m.now())
	return m, err
}

func (m *tpmMachine) set(o option) (err error) {
	if mine, err := m.soft.set(o); mine {
		return err
	}
	if o.key != "revoked" {
		return usage("unknown key "+attest.Quote(o.key), "sim:"+tpmKind().syntax)
	}
	if m.revoked, err = onOff(o.value); err != nil {
		return usage(attest.Quote(o.key+"="+o.value), "on or off")
	}
	return nil
}

// Attest implements attest.Attester. The certificates and the revocation list are stapled.
func (m *tpmMachine) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return m.pace.attest(ctx, data, func() (*attest.Evidence, error) {
		parts, err := m.soft.quote(data, m.now())
		if err != nil {
			return nil, err
		}
		list, err := m.list(m.revoked, m.now())
		if err != nil {
			return nil, err
		}
		parts[tpm.PartPublic] = m.area
		return &attest.Evidence{Format: simulated + tpm.Format, Raw: tpm.EncodeParts(parts), Endorsements: []attest.Endorsement{
			{Kind: attest.KindCertificate, Raw: m.ak}, {Kind: attest.KindCertificate, Raw: m.root.Raw}, {Kind: attest.KindCRL, Raw: list},
		}}, nil
	})
}

// Root implements Machine.
func (m *tpmMachine) Root() string { return attest.Fingerprint(m.root.Raw) }

// Endorser implements Machine.
func (m *tpmMachine) Endorser() attest.Endorser { return endorser{m.endorse, []string{tpm.Service}} }

// Service implements Machine.
func (m *tpmMachine) Service() http.Handler { return vendor(m.endorse) }

func (m *tpmMachine) endorse(u *url.URL) (*answer, error) {
	issuer := sha256.Sum256(m.root.RawSubjectPublicKeyInfo)
	if u.Path != "/crl" || u.Query().Get("issuer") != hex.EncodeToString(issuer[:]) {
		return nil, nil
	}
	list, err := m.list(m.revoked, m.now())
	return single(attest.KindCRL, list), err
}

func (m *tpmMachine) String() string { return "SIMULATED TPM, root " + m.Root() }
