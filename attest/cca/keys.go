package cca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Key is a platform key that a caller trusts explicitly. It stands for one platform where the identifiers say which.
type Key struct {
	SPKI             []byte // DER
	ImplementationID []byte // nil: any
	InstanceID       []byte // nil: any
}

// Keys are the trust anchors. The zero value and nil trust nothing.
type Keys struct{ all []*anchor }

type anchor struct {
	Key
	public *ecdsa.PublicKey
}

// NewKeys makes Keys of exactly the given ones.
func NewKeys(keys ...Key) (*Keys, error) {
	out := new(Keys)
	for _, k := range keys {
		parsed, err := x509.ParsePKIXPublicKey(k.SPKI)
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkPlatform, Err: err}
		}
		public, ok := parsed.(*ecdsa.PublicKey)
		if !ok {
			return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkPlatform, fmt.Sprintf("a platform key of type %T", parsed), "ECDSA")
		}
		out.all = append(out.all, &anchor{k, public})
	}
	return out, nil
}

// candidates are the keys that p may be signed with.
func (k *Keys) candidates(p *Platform) (list []*anchor) {
	if k == nil {
		return nil
	}
	for _, a := range k.all {
		if (a.ImplementationID == nil || bytes.Equal(a.ImplementationID, p.ImplementationID)) && (a.InstanceID == nil || bytes.Equal(a.InstanceID, p.InstanceID)) {
			list = append(list, a)
		}
	}
	return list
}

func (k *Keys) has(spki []byte) bool {
	if k == nil {
		return false
	}
	for _, a := range k.all {
		if bytes.Equal(a.SPKI, spki) {
			return true
		}
	}
	return false
}

func digest(b []byte) [32]byte { return sha256.Sum256(b) }
