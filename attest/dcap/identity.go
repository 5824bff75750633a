package dcap

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// qeIdentity is what Intel's quoting enclave for one TEE is like (PCS, "Get Quoting Enclave Identity V4", version 2 of
// the document).
type qeIdentity struct {
	document
	tee            TEE
	miscSelect     [4]byte
	miscMask       [4]byte
	attributes     [16]byte
	attributesMask [16]byte
	mrSigner       [32]byte
	prodID         uint16
	levels         []isvLevel // highest first
}

type qeIdentityJSON struct {
	head
	MiscSelect     string      `json:"miscselect"`
	MiscMask       string      `json:"miscselectMask"`
	Attributes     string      `json:"attributes"`
	AttributesMask string      `json:"attributesMask"`
	MRSigner       string      `json:"mrsigner"`
	ProdID         *uint16     `json:"isvprodid"`
	Levels         []levelJSON `json:"tcbLevels"`
}

// parseQEIdentity verifies and decodes the body of a QE identity.
func parseQEIdentity(body []byte, signer *x509.Certificate) (*qeIdentity, error) {
	value, err := signedValue(body, "enclaveIdentity", signer)
	if err != nil {
		return nil, err
	}
	return decodeQEIdentity(value, signer)
}

func decodeQEIdentity(value []byte, signer *x509.Certificate) (*qeIdentity, error) {
	var in qeIdentityJSON
	if err := decode(value, &in); err != nil {
		return nil, err
	}
	id := new(qeIdentity)
	var err error
	if id.document, err = in.document("QE identity", 2, signer); err != nil {
		return nil, err
	}
	switch in.ID {
	case "QE":
		id.tee = SGX
	case "TD_QE":
		id.tee = TDX
	default:
		return nil, attest.Refuse(attest.CodeUnknownField, checkCollateral, "identity of "+attest.Quote(in.ID), "QE or TD_QE")
	}
	for _, f := range []struct {
		name, text string
		into       []byte
	}{
		{"miscselect", in.MiscSelect, id.miscSelect[:]},
		{"miscselectMask", in.MiscMask, id.miscMask[:]},
		{"attributes", in.Attributes, id.attributes[:]},
		{"attributesMask", in.AttributesMask, id.attributesMask[:]},
		{"mrsigner", in.MRSigner, id.mrSigner[:]},
	} {
		if err := hexField(f.name, f.text, f.into); err != nil {
			return nil, err
		}
	}
	if in.ProdID == nil {
		return nil, badDocument("QE identity without isvprodid")
	}
	id.prodID = *in.ProdID
	id.levels, err = isvLevels(in.Levels)
	return id, err
}

// check compares the report of the quoting enclave with the identity (QVL 4.1.2.9.5 to 8).
func (id *qeIdentity) check(c *certification) error {
	differ := func(what, got, want string) error {
		return attest.Refuse(attest.CodeQuotingEnclave, checkQE, what+" "+got+" of the quoting enclave", want)
	}
	masked := func(value, mask []byte) []byte {
		out := make([]byte, len(value))
		for i := range out {
			out[i] = value[i] & mask[i]
		}
		return out
	}
	if got := masked(c.qeMiscSelect(), id.miscMask[:]); !bytes.Equal(got, id.miscSelect[:]) {
		return differ("MISCSELECT", hex.EncodeToString(got), hex.EncodeToString(id.miscSelect[:]))
	}
	if got := masked(c.qeAttributes(), id.attributesMask[:]); !bytes.Equal(got, id.attributes[:]) {
		return differ("ATTRIBUTES", hex.EncodeToString(got), hex.EncodeToString(id.attributes[:]))
	}
	if got := c.qeMRSigner(); !bytes.Equal(got, id.mrSigner[:]) {
		return differ("MRSIGNER", hex.EncodeToString(got), hex.EncodeToString(id.mrSigner[:]))
	}
	if got := c.qeProdID(); got != id.prodID {
		return differ("ISVPRODID", fmt.Sprint(got), fmt.Sprint(id.prodID))
	}
	return nil
}
