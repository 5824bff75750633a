package dcap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// A list that was verified under one issuer says nothing under another one of the same name.
func TestListOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	authority := func(name string) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: now.Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	one, key := authority("a root")
	twin, _ := authority("a root")
	other, _ := authority("another")
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, one, key)
	if err != nil {
		t.Fatal(err)
	}
	v := &Verifier{lists: memo[*revocationList]{max: 2}}
	for range 2 { // decoded, and remembered
		if l, err := v.list(der, other, one); err != nil || l == nil || l.issuer != one {
			t.Fatalf("%+v, %v", l, err)
		}
		if l, err := v.list(der, twin); attest.CodeOf(err) != attest.CodeChain || l != nil {
			t.Errorf("under a twin: %+v, %v", l, err)
		}
		if l, err := v.list(der, other); err != nil || l != nil {
			t.Errorf("under another: %+v, %v", l, err)
		}
	}
}
