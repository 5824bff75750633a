package azure

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Layout of an HCL report (IgvmAttestRequestBase).
const (
	headerSize   = 32   // IgvmAttestRequestHeader
	hardwareSize = 1184 // room for the longest hardware report, that of SEV-SNP
	requestAt    = headerSize + hardwareSize
	requestSize  = 20 // IgvmAttestRequestData
	claimsAt     = requestAt + requestSize
	extendedSize = 4 // IgvmAttestRequestDataExt, from version 2

	maxRuntime = 16 << 10 // bytes of runtime claims

	requestCertificate = 2   // AK_CERT_REQUEST: the claims hold the keys of the vTPM
	hashSHA256         = 1   // SHA_256
	capabilities       = 0x7 // the bits of IgvmCapabilityBitMap that are defined
)

// Report types (IgvmAttestReportType).
const (
	reportSNP = 2
	reportTDX = 4
)

// HCL is a decoded HCL report. Nothing in it has been verified.
type HCL struct {
	Hardware []byte // the room of the hardware report, whole
	Runtime  []byte // runtime claims, JSON: what the hardware signed the hash of

	kind uint32
}

// ParseHCL decodes an HCL report without padding behind it.
func ParseHCL(raw []byte) (*HCL, error) {
	if len(raw) < claimsAt {
		return nil, malformed(fmt.Sprintf("an HCL report of %d bytes", len(raw)), fmt.Sprintf("at least %d", claimsAt))
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(raw[at:]) }
	if string(raw[:4]) != "HCLA" {
		return nil, malformed("no HCL report: it begins with "+attest.Abbreviate(raw[:4]), `"HCLA"`)
	}
	if v := u32(4); v != 1 && v != 2 {
		return nil, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("HCL version %d", v), "1 or 2")
	}
	if got := u32(12); got != requestCertificate {
		return nil, malformed(fmt.Sprintf("an HCL report for request %d", got), fmt.Sprint(requestCertificate))
	}
	if !attest.AllZero(raw[16:headerSize]) {
		return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, "status or reserved bytes of an HCL report set", "zero")
	}
	h := &HCL{Hardware: slices.Clone(raw[headerSize:requestAt]), kind: u32(requestAt + 8)}
	start := claimsAt
	switch version := u32(requestAt + 4); version {
	case 1:
	case 2:
		start += extendedSize
		if len(raw) < start {
			return nil, malformed("an HCL report that is cut off", "")
		}
		if bits := u32(claimsAt); bits&^capabilities != 0 {
			return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, fmt.Sprintf("capabilities %#x", bits), "none that is not defined")
		}
	default:
		return nil, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("request version %d", version), "1 or 2")
	}
	if hash := u32(requestAt + 12); hash != hashSHA256 {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkFormat, fmt.Sprintf("hash %d over the runtime claims", hash), "1, SHA-256")
	}
	h.Runtime = slices.Clone(raw[start:])
	size := uint64(len(h.Runtime))
	if uint64(u32(requestAt+16)) != size || uint64(u32(requestAt)) != uint64(start-requestAt)+size || uint64(u32(8)) != uint64(len(raw)) {
		return nil, malformed("an HCL report whose lengths contradict each other", "")
	}
	return h, nil
}

// trim cuts off the zeros with which the TPM's index is filled up.
func trim(raw []byte) []byte {
	if len(raw) < headerSize {
		return raw
	}
	if size := uint64(binary.LittleEndian.Uint32(raw[8:])); size <= uint64(len(raw)) && attest.AllZero(raw[size:]) {
		return raw[:size]
	}
	return raw
}

// Runtime is what is used of the runtime claims.
type Runtime struct {
	AK *rsa.PublicKey // HCLAkPub, the vTPM's attestation key
	VM string         // vmUniqueId
}

// jwk is an RSA key (RFC 7517, RFC 7518 §6.3).
type jwk struct {
	ID       string   `json:"kid"`
	Use      []string `json:"key_ops"`
	Type     string   `json:"kty"`
	Exponent string   `json:"e"`
	Modulus  string   `json:"n"`
}

// runtimeClaims are the fields that OpenHCL writes.
type runtimeClaims struct {
	Keys     []jwk          `json:"keys"`
	Config   map[string]any `json:"vm-configuration"`
	UserData string         `json:"user-data"`
}

// runtimeKeys are their names, as spelt; those in the configuration may be others too.
var runtimeKeys = []string{"keys", "vm-configuration", "user-data", "kid", "key_ops", "kty", "e", "n", "vmUniqueId"}

// ParseRuntime decodes runtime claims. The caller has checked that the hardware signed them.
func ParseRuntime(raw []byte) (*Runtime, error) {
	err := strictjson.Check(raw, strictjson.Limits{Size: maxRuntime, Depth: 4, Key: func(key string) bool {
		return slices.Contains(runtimeKeys, key) || !slices.ContainsFunc(runtimeKeys, func(k string) bool { return strings.EqualFold(k, key) })
	}})
	if errors.Is(err, strictjson.ErrDuplicate) {
		return nil, &attest.Error{Code: attest.CodeDuplicateField, Check: checkFormat, Err: err}
	}
	var doc runtimeClaims
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		err = dec.Decode(&doc)
	}
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: checkFormat, Err: err}
	}
	out := new(Runtime)
	out.VM, _ = doc.Config["vmUniqueId"].(string)
	for _, k := range doc.Keys {
		if k.ID != "HCLAkPub" {
			continue
		}
		if out.AK != nil {
			return nil, attest.Refuse(attest.CodeDuplicateField, checkFormat, "several keys HCLAkPub", "one")
		}
		if out.AK, err = k.decode(); err != nil {
			return nil, err
		}
	}
	if out.AK == nil || out.VM == "" {
		return nil, malformed("runtime claims without the key HCLAkPub or without vmUniqueId", "both")
	}
	return out, nil
}

func (k *jwk) decode() (*rsa.PublicKey, error) {
	if !slices.Equal(k.Use, []string{"sign"}) {
		return nil, attest.Refuse(attest.CodeSignerMismatch, checkFormat, "HCLAkPub for "+attest.Quote(strings.Join(k.Use, " ")), "sign")
	}
	modulus, err := base64.RawURLEncoding.Strict().DecodeString(k.Modulus)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: checkFormat, Got: "a modulus that is not in base64url", Err: err}
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	if k.Type != "RSA" || k.Exponent != "AQAB" || key.N.BitLen() != 2048 {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkFormat, fmt.Sprintf("HCLAkPub of type %s with %d bits", attest.Quote(k.Type), key.N.BitLen()), "RSA with 2048 bits and exponent 65537")
	}
	return key, nil
}
