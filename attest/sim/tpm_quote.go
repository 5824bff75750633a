package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

const pcrCount = 24

// softTPM makes quotes in the TPM's format over PCRs that never change.
type softTPM struct {
	key   crypto.Signer // ECDSA on P-256, or RSA
	pcrs  [pcrCount][sha256.Size]byte
	start time.Time
}

// TPM's constants (TPM 2.0 Library, part 2).
const (
	tpmGenerated  = 0xff544347
	tpmQuote      = 0x8018
	tpmSHA256     = 0x000b
	tpmNull       = 0x0010
	tpmRSASSA     = 0x0014
	tpmECDSA      = 0x0018
	tpmECC        = 0x0023
	tpmP256       = 0x0003
	tpmAttributes = 0x00050072 // fixed, made here, restricted, signs
	tpmFirmware   = 0x2020031200120003
)

// newSoftTPM gives the PCRs that firmware extends values of their own, and the others zeros.
func newSoftTPM(key crypto.Signer, start time.Time) *softTPM {
	t := &softTPM{key: key, start: start}
	for n := range 8 {
		t.pcrs[n] = sha256.Sum256(fmt.Appendf(nil, "jurat simulated pcr%d", n))
	}
	return t
}

// set takes one key of a spec, such as pcr7=HEX; mine is false when the key is another's.
func (t *softTPM) set(o option) (mine bool, err error) {
	number, ok := strings.CutPrefix(o.key, "pcr")
	if !ok {
		return false, nil
	}
	n, err := strconv.ParseUint(number, 10, 8)
	raw, bad := hex.DecodeString(o.value)
	if err != nil || bad != nil || n >= pcrCount || len(raw) != sha256.Size {
		return true, usage(attest.Quote(o.key+"="+o.value), "pcr0 to pcr23, 64 hex digits")
	}
	copy(t.pcrs[n][:], raw)
	return true, nil
}

// quote makes a TPMS_ATTEST over the fold of data and all PCRs, and signs it.
func (t *softTPM) quote(data attest.ReportData, now time.Time) (map[tpm.Part][]byte, error) {
	var values []byte
	for _, v := range t.pcrs {
		values = append(values, v[:]...)
	}
	digest, folded := sha256.Sum256(values), data.Fold()
	var b cryptobyte.Builder
	b.AddUint32(tpmGenerated)
	b.AddUint16(tpmQuote)
	sized(&b, append([]byte{0, tpmSHA256}, make([]byte, sha256.Size)...)) // qualified name of the key
	sized(&b, folded[:sha256.Size])
	b.AddUint64(uint64(now.Sub(t.start).Milliseconds()))
	b.AddUint32(1) // resets
	b.AddUint32(0) // restarts
	b.AddUint8(1)  // safe
	b.AddUint64(tpmFirmware)
	b.AddUint32(1)
	b.AddUint16(tpmSHA256)
	b.AddBytes([]byte{3, 0xff, 0xff, 0xff})
	sized(&b, digest[:])
	message := b.BytesOrPanic()
	signature, err := t.sign(message)
	if err != nil {
		return nil, err
	}
	return map[tpm.Part][]byte{tpm.PartQuote: message, tpm.PartSignature: signature, tpm.PartPCRs: values}, nil
}

// sign makes a TPMT_SIGNATURE.
func (t *softTPM) sign(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	raw, err := t.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	if _, ok := t.key.Public().(*rsa.PublicKey); ok {
		return tpm.RSASSA(raw), nil
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(raw, &rs); err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint16(tpmECDSA)
	b.AddUint16(tpmSHA256)
	sized(&b, rs.R.FillBytes(make([]byte, 32)))
	sized(&b, rs.S.FillBytes(make([]byte, 32)))
	return b.Bytes()
}

// publicArea writes the TPMT_PUBLIC of an ECDSA key.
func publicArea(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint16(tpmECC)
	b.AddUint16(tpmSHA256)
	b.AddUint32(tpmAttributes)
	sized(&b, nil) // no policy
	for _, v := range []uint16{tpmNull, tpmECDSA, tpmSHA256, tpmP256, tpmNull} {
		b.AddUint16(v)
	}
	sized(&b, point[1:33])
	sized(&b, point[33:])
	return b.Bytes()
}

func sized(b *cryptobyte.Builder, v []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
}
