package dcap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// TEE is what a quote is of.
type TEE string

// The TEEs that Intel's quoting enclaves sign for.
const (
	SGX TEE = "sgx"
	TDX TEE = "tdx"
)

// Sizes of the parts of a quote in bytes (quote format, A.3 and A.4).
const (
	HeaderSize    = 48
	EnclaveReport = 384 // body of an SGX quote, and the report of a quoting enclave
	TDReport10    = 584 // body of a TDX 1.0 guest
	TDReport15    = 648 // body of a TDX 1.5 guest

	signatureSize = 64
	keySize       = 64
	bodyHeader    = 6 // type and size of the body, version 5 only
)

// Values of header fields.
const (
	ecdsaP256       = 2 // attestation key type
	teeSGX          = 0
	teeTDX          = 0x81
	bodyTD10        = 2
	bodyTD15        = 3
	certPCKChain    = 5 // certification data: PCK chain as concatenated PEM
	certQEReport    = 6 // certification data: report of the quoting enclave and more certification data
	vendorIntelName = "939a7233f79c4ca9940a0db3957f0607"
)

// Quote is a decoded quote. Nothing in it has been verified.
type Quote struct {
	Version  uint16          `json:"version"`
	TEE      TEE             `json:"tee"`
	QESVN    uint16          `json:"qe_svn,omitempty"` // version 3 only
	PCESVN   uint16          `json:"pce_svn,omitempty"`
	UserData attest.HexBytes `json:"user_data"`
	Body     attest.HexBytes `json:"-"` // an enclave's report, or a TD's

	signed    []byte // header and body
	signature []byte // over them, by key
	certified []byte // all that follows the signature: it stays the same until the quoting enclave makes another key
	certification
}

// certification is the part of the signature data that certifies the attestation key.
type certification struct {
	key         []byte // attestation key, X and Y
	qeReport    []byte
	qeSignature []byte // over qeReport, by the PCK
	qeAuth      []byte
	chain       []byte // PEM
}

// cutter takes parts off a byte string. For one that is not there it gives nil, and short is true from then on.
type cutter struct {
	rest  []byte
	short bool
}

func (c *cutter) cut(n int) []byte {
	if n > len(c.rest) {
		c.short = true
		return nil
	}
	part := c.rest[:n:n]
	c.rest = c.rest[n:]
	return part
}

func (c *cutter) u16() int {
	if b := c.cut(2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (c *cutter) u32() int {
	if b := c.cut(4); b != nil {
		return int(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func malformed(got, want string) *attest.Error {
	return attest.Refuse(attest.CodeMalformed, checkFormat, got, want)
}

// Parse decodes a quote: version 3 of SGX, and versions 4 and 5 of TDX.
func Parse(raw []byte) (*Quote, error) {
	if len(raw) > attest.MaxRaw {
		return nil, attest.Refuse(attest.CodeOversized, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("at most %d", attest.MaxRaw))
	}
	if len(raw) < HeaderSize {
		return nil, malformed(fmt.Sprintf("%d bytes", len(raw)), "a quote")
	}
	raw = slices.Clone(raw)
	q := &Quote{Version: binary.LittleEndian.Uint16(raw), UserData: raw[28:48:48]}
	size, err := q.header(raw)
	if err != nil {
		return nil, err
	}
	c := &cutter{rest: raw[HeaderSize:]}
	if q.Version == 5 {
		if size, err = q.bodyType(c); err != nil {
			return nil, err
		}
	}
	q.Body = c.cut(size)
	q.signed = raw[:len(raw)-len(c.rest)]
	data := c.cut(c.u32())
	if c.short { // what follows a body that is not there could pass for signature data
		return nil, malformed("a quote that ends early", "as many bytes as it says")
	}
	// The buffer that a TDX quote comes in is larger than the quote, and filled with zeros. Nobody signs the filling.
	if q.Version == 3 && len(c.rest) != 0 || !attest.AllZero(c.rest) {
		return nil, malformed(fmt.Sprintf("%d bytes after the quote", len(c.rest)), "none")
	}
	if err := q.signatureData(data); err != nil {
		return nil, err
	}
	return q, nil
}

// header checks the header and tells the size of the body (quote format, A.3.1).
func (q *Quote) header(raw []byte) (size int, err error) {
	le := binary.LittleEndian
	tee := le.Uint32(raw[4:])
	switch {
	case q.Version == 3 && tee == teeSGX:
		q.TEE, size = SGX, EnclaveReport
		q.QESVN, q.PCESVN = le.Uint16(raw[8:]), le.Uint16(raw[10:])
	case (q.Version == 4 || q.Version == 5) && tee == teeTDX:
		q.TEE, size = TDX, TDReport10
		if !attest.AllZero(raw[8:12]) {
			return 0, attest.Refuse(attest.CodeReservedBits, checkFormat, "reserved bytes 8 to 11 set", "zero")
		}
	default:
		return 0, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("version %d of TEE type %#x", q.Version, tee), "version 3 of SGX (0x0), or 4 or 5 of TDX (0x81)")
	}
	if kind := le.Uint16(raw[2:]); kind != ecdsaP256 {
		return 0, attest.Refuse(attest.CodeUnknownAlgorithm, checkFormat, fmt.Sprintf("attestation key type %d", kind), "2, ECDSA P-256")
	}
	if vendor := hex.EncodeToString(raw[12:28]); vendor != vendorIntelName {
		return 0, attest.Refuse(attest.CodeQuotingEnclave, checkFormat, "a quoting enclave of vendor "+vendor, "Intel, "+vendorIntelName)
	}
	return size, nil
}

// bodyType checks the descriptor of the body in version 5.
func (q *Quote) bodyType(c *cutter) (int, error) {
	kind, size := c.u16(), c.u32()
	if c.short {
		return 0, malformed("a quote that ends before its body", "")
	}
	want := map[int]int{bodyTD10: TDReport10, bodyTD15: TDReport15}[kind]
	if want == 0 {
		return 0, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("body type %d", kind), "2 (TDX 1.0) or 3 (TDX 1.5)")
	}
	if size != want {
		return 0, malformed(fmt.Sprintf("%d bytes of body type %d", size, kind), fmt.Sprint(want))
	}
	return size, nil
}

// signatureData decodes what follows the body (quote format, A.4).
func (q *Quote) signatureData(data []byte) error {
	c := &cutter{rest: data}
	q.signature = c.cut(signatureSize)
	q.certified = c.rest
	q.key = c.cut(keySize)
	if q.Version > 3 {
		kind, size := c.u16(), c.u32()
		if kind != certQEReport {
			return attest.Refuse(attest.CodeUnknownField, checkFormat, fmt.Sprintf("certification data of type %d", kind), "6, a quoting enclave's report")
		}
		if size != len(c.rest) {
			return malformed("certification data of another length than it says", fmt.Sprintf("%d bytes", size))
		}
	}
	q.qeReport = c.cut(EnclaveReport)
	q.qeSignature = c.cut(signatureSize)
	q.qeAuth = c.cut(c.u16())
	kind := c.u16()
	q.chain = c.cut(c.u32())
	if c.short || len(c.rest) != 0 {
		return malformed("signature data of another length than its parts", "")
	}
	if kind != certPCKChain {
		return attest.Refuse(attest.CodeUnknownField, checkFormat, fmt.Sprintf("certification data of type %d", kind), "5, the PCK certificate chain")
	}
	return nil
}

// Fields of the TDX module in the body of a TDX quote (quote format, A.3.2).
func (q *Quote) teeTCBSVN() [16]byte    { return [16]byte(q.Body[0:16]) }
func (q *Quote) mrSignerSeam() []byte   { return q.Body[64:112] }
func (q *Quote) seamAttributes() []byte { return q.Body[112:120] }

// teeTCBSVN2 is the level of the TDX module that runs now, where the quote tells it: it may have been updated since the
// guest was launched.
func (q *Quote) teeTCBSVN2() (svn [16]byte, ok bool) {
	if len(q.Body) != TDReport15 {
		return svn, false
	}
	return [16]byte(q.Body[584:600]), true
}

// Fields of the report of the quoting enclave (SDM volume 3D, table 38-22).
func (c *certification) qeMiscSelect() []byte { return c.qeReport[16:20] }
func (c *certification) qeAttributes() []byte { return c.qeReport[48:64] }
func (c *certification) qeMRSigner() []byte   { return c.qeReport[128:160] }
func (c *certification) qeProdID() uint16     { return binary.LittleEndian.Uint16(c.qeReport[256:]) }

func (c *certification) qeSVN() uint16        { return binary.LittleEndian.Uint16(c.qeReport[258:]) }
func (c *certification) qeReportData() []byte { return c.qeReport[320:384] }

// derSignature encodes R and S, 32 bytes each, big endian, as an ECDSA-Sig-Value.
func derSignature(raw []byte) []byte {
	der := make([]byte, 2, 72)
	for _, half := range [][]byte{raw[:32], raw[32:64]} {
		half = bytes.TrimLeft(half, "\x00")
		der = append(der, 2, byte(len(half)))
		if len(half) == 0 || half[0] >= 0x80 {
			der[len(der)-1]++
			der = append(der, 0)
		}
		der = append(der, half...)
	}
	der[0], der[1] = 0x30, byte(len(der)-2)
	return der
}
