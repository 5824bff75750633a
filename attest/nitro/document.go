package nitro

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Format of the Evidence: Raw is one attestation document as the Nitro Security Module wrote it, a COSE_Sign1 message.
const Format attest.Format = "nitro"

// MaxDocument bounds a document in bytes. The module's answers are at most 12 KiB.
const MaxDocument = 16 << 10

// Bounds of the fields (NSM §2.2, §3.2.2.2).
const (
	maxModule      = 256
	maxPCRs        = 32
	maxCertificate = 1024
	maxBundle      = 8
	maxPublicKey   = 1024
	maxData        = 512
)

// Document is a decoded attestation document. Nothing in it has been verified.
type Document struct {
	ModuleID    string                  `json:"module_id"`
	Timestamp   time.Time               `json:"timestamp"`
	Digest      string                  `json:"digest"`
	PCRs        map[int]attest.HexBytes `json:"pcrs"`
	Certificate attest.HexBytes         `json:"certificate"`          // DER
	CABundle    []attest.HexBytes       `json:"cabundle"`             // DER, root first
	PublicKey   attest.HexBytes         `json:"public_key,omitempty"` // nil where the enclave gave none
	UserData    attest.HexBytes         `json:"user_data,omitempty"`
	Nonce       attest.HexBytes         `json:"nonce,omitempty"`

	message *cose.Sign1
}

// Parse decodes a document. It refuses whatever NSM does not define.
func Parse(raw []byte) (*Document, error) {
	if len(raw) > MaxDocument {
		return nil, attest.Refuse(attest.CodeOversized, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("at most %d", MaxDocument))
	}
	message, err := cose.Parse(slices.Clone(raw))
	if err != nil {
		return nil, err
	}
	if message.UnprotectedKeyID != nil {
		return nil, attest.Refuse(attest.CodeUnknownField, checkFormat, "an unsigned header parameter", "none")
	}
	// All of the payload is signed, so that its serialization may vary; the module writes a map without a length in front.
	fields, err := strictcbor.Parse(message.Payload, strictcbor.Limits{Depth: 3, Items: 128, AnyLength: true, OpenMaps: true})
	if err != nil {
		return nil, malformed("payload", err)
	}
	return parseFields(message, fields)
}

func parseFields(message *cose.Sign1, fields strictcbor.Value) (*Document, error) {
	known := []string{"module_id", "timestamp", "digest", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce"}
	for i := range fields.Len() {
		key, _ := fields.Entry(i)
		if name, _ := key.Text(); !slices.Contains(known, name) {
			return nil, attest.Refuse(attest.CodeUnknownField, checkFormat, key.String(), "")
		}
	}
	d := &Document{message: message}
	var ok bool
	if d.ModuleID, _ = fields.Field("module_id").Text(); d.ModuleID == "" || len(d.ModuleID) > maxModule {
		return nil, malformed("module_id", nil)
	}
	if d.Digest, ok = fields.Field("digest").Text(); !ok {
		return nil, malformed("digest", nil)
	}
	if d.Digest != "SHA384" {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkFormat, "digest "+attest.Quote(d.Digest), "SHA384")
	}
	stamp, _ := fields.Field("timestamp").Uint()
	if stamp == 0 || stamp > math.MaxInt64/uint64(time.Millisecond) {
		return nil, malformed("timestamp", nil)
	}
	d.Timestamp = time.UnixMilli(int64(stamp)).UTC()
	if d.Certificate, ok = sized(fields.Field("certificate"), 1, maxCertificate); !ok {
		return nil, malformed("certificate", nil)
	}
	bundle, _ := fields.Field("cabundle").Array()
	if len(bundle) == 0 || len(bundle) > maxBundle {
		return nil, malformed(fmt.Sprintf("cabundle of %d", len(bundle)), nil)
	}
	for _, entry := range bundle {
		der, ok := sized(entry, 1, maxCertificate)
		if !ok {
			return nil, malformed("certificate of cabundle", nil)
		}
		d.CABundle = append(d.CABundle, der)
	}
	for _, optional := range []struct {
		name        string
		to          *attest.HexBytes
		least, most int
	}{{"public_key", &d.PublicKey, 1, maxPublicKey}, {"user_data", &d.UserData, 0, maxData}, {"nonce", &d.Nonce, 0, maxData}} {
		// NSM has no null, but the module writes it for what it was not given.
		v := fields.Field(optional.name)
		if !v.Present() || v.IsNull() {
			continue
		}
		if *optional.to, ok = sized(v, optional.least, optional.most); !ok {
			return nil, malformed(optional.name, nil)
		}
	}
	return d, d.parsePCRs(fields.Field("pcrs"))
}

func (d *Document) parsePCRs(pcrs strictcbor.Value) error {
	d.PCRs = map[int]attest.HexBytes{}
	for i := range pcrs.Len() {
		key, value := pcrs.Entry(i)
		index, ok := key.Uint()
		if !ok || index >= maxPCRs {
			return malformed("PCR "+key.String(), nil)
		}
		register, _ := value.Bytes()
		if n := len(register); n != 32 && n != 48 && n != 64 {
			return malformed(fmt.Sprintf("PCR %d of %d bytes", index, n), nil)
		}
		d.PCRs[int(index)] = register
	}
	for _, needed := range identity {
		if d.PCRs[needed] == nil {
			return malformed(fmt.Sprintf("no PCR %d", needed), nil)
		}
	}
	return nil
}

// identity are the registers that measure the enclave image: all of it, kernel and boot ramdisk, applications.
var identity = []int{0, 1, 2}

// debug tells whether the enclave was started in debug mode: the hypervisor then gives out its console and leaves the
// registers of the image zero. A single zero register is no measurement of an image either.
func (d *Document) debug() bool {
	return slices.ContainsFunc(identity, func(i int) bool { return attest.AllZero(d.PCRs[i]) })
}

// measured are the registers that measure something, and digests of what the enclave had signed.
func (d *Document) measured() map[string]attest.HexBytes {
	out := map[string]attest.HexBytes{"launch": d.PCRs[0]}
	for _, i := range slices.Sorted(maps.Keys(d.PCRs)) {
		if !attest.AllZero(d.PCRs[i]) {
			out[fmt.Sprintf("pcr%d", i)] = d.PCRs[i]
		}
	}
	for name, value := range map[string][]byte{"public_key_sha256": d.PublicKey, "nonce_sha256": d.Nonce, "user_data_sha256": d.UserData} {
		if len(value) > 0 {
			out[name] = digest(value)
		}
	}
	return out
}

// reportData is user data of the one length that report data has; zero, which matches nothing, for any other.
func (d *Document) reportData() (data attest.ReportData) {
	if len(d.UserData) == len(data) {
		copy(data[:], d.UserData)
	}
	return data
}

func sized(v strictcbor.Value, least, most int) ([]byte, bool) {
	b, ok := v.Bytes()
	return b, ok && len(b) >= least && len(b) <= most
}

func malformed(got string, err error) *attest.Error {
	code := attest.CodeMalformed
	if errors.Is(err, strictcbor.ErrDuplicate) {
		code = attest.CodeDuplicateField
	}
	return &attest.Error{Code: code, Check: checkFormat, Got: got, Err: err}
}
