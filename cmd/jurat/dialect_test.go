package main

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

// A certificate in DER may hold others in PEM, as endorsements are. It is judged itself, and not one within it.
func TestCertificateWithinACertificate(t *testing.T) {
	f := &dialectforge.Forge{T: t, Key: dialectforge.NewKey(t), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	inner := f.Certificate()
	within := slices.Concat([]byte("\n"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: inner.Raw}))
	outer := f.Certificate(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: within})
	leaf, _, err := parseCertificate(outer.Raw)
	if err != nil || !bytes.Equal(leaf.Raw, outer.Raw) {
		t.Errorf("%v, or the certificate within", err)
	}
	leaf, _, err = parseCertificate(slices.Concat([]byte("Certificate:\n"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: outer.Raw})))
	if err != nil || !bytes.Equal(leaf.Raw, outer.Raw) {
		t.Error(err)
	}
	if _, _, err := parseCertificate(append(outer.Raw, within...)); attest.CodeOf(err) != attest.CodeMalformedCertificate {
		t.Errorf("bytes after a certificate: %v", err)
	}
}
