package sds

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Secret is one that is served. The zero value is none.
type Secret struct {
	name    string
	peers   bool
	version string
	body    []byte // the serialized message
}

// Name is what Envoy asks for.
func (s Secret) Name() string { return s.name }

// Version is the digest of everything in it but a private key, so that it is the same after a restart and safe to show.
func (s Secret) Version() string { return s.version }

// Certificate makes a secret of a certificate with its private key. The error says what is wrong with the name, or that there is no
// certificate or key.
func Certificate(name string, chain [][]byte, pkcs8 []byte) (Secret, error) {
	if len(chain) == 0 || len(pkcs8) == 0 {
		return Secret{}, &attest.Error{Code: attest.CodeInternal, Check: "sds", Subject: name, Got: "no certificate, or no key"}
	}
	var certs []byte
	for _, der := range chain {
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return secret(name, false, certs, &tls.Secret{Name: name, Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
		CertificateChain: inline(certs), PrivateKey: inline(key),
	}}})
}

// nobody is in the list of keys where no peer is taken. It is no public key, for it is no DER: there is nothing that a peer could
// show whose digest this is.
func nobody() [sha256.Size]byte { return sha256.Sum256([]byte("jurat: no peer is affirmed")) }

// Peers makes a secret of the keys that peers may have: SHA-256 of each public key (SubjectPublicKeyInfo, DER). No keys are nobody.
func Peers(name string, keys [][sha256.Size]byte) (Secret, error) {
	if len(keys) == 0 {
		keys = [][sha256.Size]byte{nobody()}
	}
	v := new(tls.CertificateValidationContext)
	var all []byte
	for _, k := range keys {
		v.VerifyCertificateSpki = append(v.VerifyCertificateSpki, base64.StdEncoding.EncodeToString(k[:]))
		all = append(all, k[:]...)
	}
	return secret(name, true, all, &tls.Secret{Name: name, Type: &tls.Secret_ValidationContext{ValidationContext: v}})
}

func inline(b []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: b}}
}

func secret(name string, peers bool, shown []byte, m *tls.Secret) (Secret, error) {
	if err := CheckName(name); err != nil {
		return Secret{}, err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Secret{}, &attest.Error{Code: attest.CodeInternal, Check: "sds", Subject: name, Err: err}
	}
	sum := sha256.Sum256(shown)
	return Secret{name: name, peers: peers, version: hex.EncodeToString(sum[:16]), body: body}, nil
}

// CheckName reports what is wrong with the name of a secret: an *attest.Error with CodeConfigValue.
func CheckName(name string) error {
	err := resource.ValidName(name)
	if err == nil && name == resource.Wildcard {
		err = fmt.Errorf("%q stands for all secrets", name)
	}
	if err != nil {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "sds", Err: err}
	}
	return nil
}
