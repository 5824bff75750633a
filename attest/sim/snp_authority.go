package sim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// authority is what AMD is to real hardware: the keys of one generation's root, and the secret of one chip, from which
// the key of every TCB level is derived.
type authority struct {
	model         *model
	arkKey        *rsa.PrivateKey
	askKey        *rsa.PrivateKey
	ark, ask, asv *x509.Certificate // asv is the ASVK, with the ASK's key
	seed          seed
}

// blocks of the file that keeps an authority, in this order.
const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
	blockSeed        = "JURAT SIMULATED CHIP"
)

// backdate lets certificates verify where the relying party's clock is behind.
const backdate = 24 * time.Hour

const arkPrefix = "ARK-"

// openAuthority reads the authority kept in dir, or makes one.
func openAuthority(dir string, m *model, now time.Time) (*authority, error) {
	a := &authority{model: m}
	err := open(dir, "sim-snp-"+m.generation+".pem", func() ([]byte, error) {
		fresh, err := newAuthority(m, now)
		if err != nil {
			return nil, err
		}
		return fresh.encode()
	}, a.decode)
	return a, err
}

func newAuthority(m *model, now time.Time) (*authority, error) {
	a := &authority{model: m, seed: make([]byte, seedSize)}
	_, _ = rand.Read(a.seed)
	var err error
	if a.arkKey, err = rsa.GenerateKey(rand.Reader, 4096); err != nil {
		return nil, err
	}
	if a.askKey, err = rsa.GenerateKey(rand.Reader, 4096); err != nil {
		return nil, err
	}
	sign := func(name string, serial int64, key *rsa.PrivateKey, parent *x509.Certificate) (*x509.Certificate, error) {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: subject(name), SignatureAlgorithm: x509.SHA384WithRSAPSS,
			NotBefore: now.Add(-backdate), NotAfter: now.AddDate(25, 0, 0), KeyUsage: x509.KeyUsageCertSign,
			IsCA: true, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent = template
			template.KeyUsage |= x509.KeyUsageCRLSign
		} else {
			template.MaxPathLenZero = true
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.arkKey)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	if a.ark, err = sign(arkPrefix+m.line, 0x10000, a.arkKey, nil); err != nil {
		return nil, err
	}
	if a.ask, err = sign("SEV-"+m.line, 0x10001, a.askKey, a.ark); err != nil {
		return nil, err
	}
	a.asv, err = sign("SEV-VLEK-"+m.line, 0x10002, a.askKey, a.ark)
	return a, err
}

func subject(name string) pkix.Name {
	return pkix.Name{
		OrganizationalUnit: []string{"Engineering"}, Country: []string{"US"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"},
		Organization: []string{"Advanced Micro Devices"}, CommonName: name,
	}
}

func (a *authority) encode() ([]byte, error) {
	var out bytes.Buffer
	for _, c := range []*x509.Certificate{a.ark, a.ask, a.asv} {
		_ = pem.Encode(&out, &pem.Block{Type: blockCertificate, Bytes: c.Raw})
	}
	for _, k := range []*rsa.PrivateKey{a.arkKey, a.askKey} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		_ = pem.Encode(&out, &pem.Block{Type: blockKey, Bytes: der})
	}
	_ = pem.Encode(&out, &pem.Block{Type: blockSeed, Bytes: a.seed})
	return out.Bytes(), nil
}

func (a *authority) decode(raw []byte) error {
	var certs []*x509.Certificate
	var keys []*rsa.PrivateKey
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case blockCertificate:
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			certs = append(certs, c)
		case blockKey:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return err
			}
			key, ok := k.(*rsa.PrivateKey)
			if !ok {
				return errors.New("a key that is not RSA")
			}
			keys = append(keys, key)
		case blockSeed:
			a.seed = block.Bytes
		}
	}
	if len(certs) != 3 || len(keys) != 2 || len(a.seed) != seedSize {
		return errors.New("not a simulated root, or not a complete one")
	}
	a.ark, a.ask, a.asv, a.arkKey, a.askKey = certs[0], certs[1], certs[2], keys[0], keys[1]
	if !a.arkKey.PublicKey.Equal(a.ark.PublicKey) || !a.askKey.PublicKey.Equal(a.ask.PublicKey) || !a.askKey.PublicKey.Equal(a.asv.PublicKey) {
		return errors.New("keys that do not belong to the certificates")
	}
	return nil
}

func (a *authority) chipID() []byte { return a.seed.derive("chip id "+a.model.line, a.model.hwid) }

// signingKey is the VCEK, or the VLEK of csp, at one TCB level: as in hardware, another level has another key.
func (a *authority) signingKey(tcb [8]byte, csp string) (*ecdsa.PrivateKey, error) {
	return a.seed.key(elliptic.P384(), fmt.Sprintf("signing key %x %q", tcb, csp))
}

// leaf certifies the signing key of one TCB level.
func (a *authority) leaf(tcb [8]byte, csp string, now time.Time) ([]byte, error) {
	key, err := a.signingKey(tcb, csp)
	if err != nil {
		return nil, err
	}
	var extensions []pkix.Extension
	add := func(value []byte, arcs ...int) {
		id := append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, arcs...)
		extensions = append(extensions, pkix.Extension{Id: id, Value: value})
	}
	integer := func(v int) []byte { return mustMarshal(v, "") }
	productName := a.model.productName
	if csp != "" {
		productName = a.model.line
	}
	add(integer(a.model.structVersion), 1)
	add(mustMarshal(productName, "ia5"), 2)
	for _, s := range a.model.spl {
		add(integer(int(tcb[s.offset])), 3, s.arc)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int), Subject: subject("SEV-VCEK"), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore: now.Add(-backdate), NotAfter: now.AddDate(7, 0, 0),
	}
	parent := a.ask
	if csp == "" {
		add(a.chipID(), 4)
	} else {
		add(mustMarshal(csp, "ia5"), 5)
		template.Subject, template.NotAfter, parent = subject("SEV-VLEK"), now.AddDate(1, 0, 0), a.asv
	}
	template.ExtraExtensions = extensions
	// An issuer without a key identifier leaves it out of the leaf, as AMD's certificates do.
	issuer := *parent
	issuer.SubjectKeyId = nil
	return x509.CreateCertificate(rand.Reader, template, &issuer, &key.PublicKey, crypto.Signer(a.askKey))
}

func mustMarshal(v any, params string) []byte {
	der, err := asn1.MarshalWithParams(v, params)
	if err != nil {
		panic(err) // integers and checked text only
	}
	return der
}

// crl lists the ASK and ASVK when they are revoked.
func (a *authority) crl(revoked bool, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{
		Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.AddDate(0, 1, 0), SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	if revoked {
		for _, c := range []*x509.Certificate{a.ask, a.asv} {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-time.Hour)})
		}
	}
	return x509.CreateRevocationList(rand.Reader, list, a.ark, a.arkKey)
}
