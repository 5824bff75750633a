package dialect

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Formats of Evidence, as their verifiers call them.
const (
	formatSNP   attest.Format = "snp"
	formatTDX   attest.Format = "tdx"
	formatSGX   attest.Format = "sgx"
	formatNitro attest.Format = "nitro"
)

// reportSize is that of an SEV-SNP attestation report.
const reportSize = 0x4a0

// Fields of the header of Intel's quotes: version, kind of the attestation key, TEE.
const (
	quoteHeader = 48
	ecdsaP256   = 2
	teeSGX      = 0
	teeTDX      = 0x81
)

// quote makes Evidence of one of Intel's quotes: its header says which TEE it is of.
func quote(raw []byte) (*attest.Evidence, error) {
	le := binary.LittleEndian
	if len(raw) >= quoteHeader && le.Uint16(raw) >= 3 && le.Uint16(raw) <= 5 && le.Uint16(raw[2:]) == ecdsaP256 {
		switch le.Uint32(raw[4:]) {
		case teeSGX:
			return &attest.Evidence{Format: formatSGX, Raw: raw}, nil
		case teeTDX:
			return &attest.Evidence{Format: formatTDX, Raw: raw}, nil
		}
	}
	return nil, refuse(attest.CodeUnknownFormat, "evidence that does not begin as a quote", "a quote of SGX or TDX")
}

// only is quote for a dialect of one TEE.
func only(format attest.Format, raw []byte) (*attest.Evidence, error) {
	ev, err := quote(raw)
	if err == nil && ev.Format != format {
		return nil, refuse(attest.CodeUnknownFormat, "a quote of "+string(ev.Format), "one of "+string(format))
	}
	return ev, err
}

// report makes Evidence of an SEV-SNP report.
func report(raw []byte) (*attest.Evidence, error) {
	if len(raw) != reportSize {
		return nil, refuse(attest.CodeMalformed, fmt.Sprintf("an SEV-SNP report of %d bytes", len(raw)), fmt.Sprint(reportSize))
	}
	return &attest.Evidence{Format: formatSNP, Raw: raw}, nil
}

// reportOrQuote makes Evidence of either.
func reportOrQuote(raw []byte) (*attest.Evidence, error) {
	if len(raw) == reportSize {
		return report(raw)
	}
	return quote(raw)
}

// whole is report data that begins with a hash and is zero after it.
func whole(hash []byte) (data attest.ReportData) {
	copy(data[:], hash)
	return data
}

func sha256Of(parts ...[]byte) []byte {
	sum := sha256.Sum256(slices.Concat(parts...))
	return sum[:]
}

func sha384Of(parts ...[]byte) []byte {
	sum := sha512.Sum384(slices.Concat(parts...))
	return sum[:]
}

func sha512Of(parts ...[]byte) []byte {
	sum := sha512.Sum512(slices.Concat(parts...))
	return sum[:]
}

// pemNUL is a public key as C passes it on: in PEM, with the zero byte that ends a string.
func pemNUL(spki []byte) []byte {
	return append(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0)
}

// object decodes one JSON object whose keys are unlike one another, and demands those of required, as they are spelt.
func object(raw []byte, into any, required ...string) error {
	anyKey := func(string) bool { return true } // as long as it is there once, in whatever case
	if err := strictjson.Check(raw, strictjson.Limits{Size: MaxDocument, Depth: 8, Key: anyKey}); err != nil {
		return malformed("JSON", err)
	}
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(raw, &keys) // what is no object has none of them
	for _, k := range required {
		if _, ok := keys[k]; !ok {
			return malformed(fmt.Sprintf("JSON without %q", k), nil)
		}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return malformed("JSON", err)
	}
	return nil
}

// octets decodes a list of numbers as a byte string, as serde writes one.
type octets []byte

// UnmarshalJSON implements json.Unmarshaler: encoding/json itself takes a []byte for base64.
func (o *octets) UnmarshalJSON(raw []byte) error {
	var numbers []uint16
	if err := json.Unmarshal(raw, &numbers); err != nil {
		return err
	}
	*o = make(octets, len(numbers))
	for i, n := range numbers {
		if n > 255 {
			return fmt.Errorf("%d is no byte", n)
		}
		(*o)[i] = byte(n)
	}
	return nil
}

func refuse(code attest.Code, got, want string) *attest.Error {
	return attest.Refuse(code, "evidence", got, want)
}

func malformed(got string, err error) *attest.Error {
	return &attest.Error{Code: attest.CodeMalformed, Check: "evidence", Got: got, Err: err}
}

// nothingExpected is the error where the preimage can't be known.
func nothingExpected(want string) *attest.Error {
	return &attest.Error{Code: attest.CodeNoExpectation, Check: "binding.report_data", Want: want}
}

// otherKey is the error where a hash that lies beside the evidence, and that it commits to, is of something else.
func otherKey(what string, got, want []byte) *attest.Error {
	return &attest.Error{Code: attest.CodeReportData, Check: "binding.report_data", Got: what + " " + attest.Abbreviate(got), Want: attest.Abbreviate(want)}
}
