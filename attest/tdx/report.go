package tdx

import (
	"encoding/binary"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
)

// Format of the Evidence: Raw is one quote of version 4 or 5.
const Format attest.Format = "tdx"

// Report is a decoded quote. Nothing in it has been verified.
type Report struct {
	Quote         *dcap.Quote        `json:"quote"`
	TEETCBSVN     attest.HexBytes    `json:"tee_tcb_svn"` // of the TDX module that launched the guest
	MRSeam        attest.HexBytes    `json:"mrseam"`
	MRSignerSeam  attest.HexBytes    `json:"mrsignerseam"`
	Attributes    Attributes         `json:"attributes"`
	XFAM          uint64             `json:"xfam"`
	MRTD          attest.HexBytes    `json:"mrtd"`
	MRConfigID    attest.HexBytes    `json:"mrconfigid"`
	MROwner       attest.HexBytes    `json:"mrowner"`
	MROwnerConfig attest.HexBytes    `json:"mrownerconfig"`
	RTMR          [4]attest.HexBytes `json:"rtmr"`
	ReportData    attest.HexBytes    `json:"report_data"`
	TEETCBSVN2    attest.HexBytes    `json:"tee_tcb_svn2,omitempty"` // of the TDX module that runs now; TDX 1.5
	MRServiceTD   attest.HexBytes    `json:"mrservicetd,omitempty"`  // of the service TDs bound to the guest; TDX 1.5
}

// Attributes are TD_ATTRIBUTES (TDX Module ABI, ATTRIBUTES).
type Attributes uint64

// The group of bits under which a TD is not to be trusted: DEBUG, and three that let the host profile it.
const underDebug Attributes = 1<<0 | 1<<4 | 1<<5 | 1<<6

const migratable Attributes = 1 << 29

// attributeBits are those of the other bits that are defined. A bit that came with a later module says nothing when it is
// zero: the module could be one that does not know it.
var attributeBits = []struct {
	bit    uint
	name   string
	always bool
}{
	{16, "icssd", false},
	{27, "lass", false},
	{28, "sept_ve_disable", true},
	{30, "pks", true},
	{31, "key_locker", true},
	{62, "tpa", false},
	{63, "perfmon", true},
}

// Debug reports whether the host may look into the guest.
func (a Attributes) Debug() bool { return a&underDebug != 0 }

// Migratable reports whether a migration TD may move the guest.
func (a Attributes) Migratable() bool { return a&migratable != 0 }

func (a Attributes) reserved() Attributes {
	known := underDebug | migratable
	for _, b := range attributeBits {
		known |= 1 << b.bit
	}
	return a &^ known
}

// Parse decodes a quote. It refuses whatever the specification does not define.
func Parse(raw []byte) (*Report, error) {
	q, err := dcap.Parse(raw)
	if err != nil {
		return nil, err
	}
	if q.TEE != dcap.TDX {
		return nil, attest.Refuse(attest.CodeUnknownFormat, checkFormat, "a quote of "+string(q.TEE), "one of tdx")
	}
	body := q.Body
	r := &Report{
		Quote:         q,
		TEETCBSVN:     body[0:16],
		MRSeam:        body[16:64],
		MRSignerSeam:  body[64:112],
		Attributes:    Attributes(binary.LittleEndian.Uint64(body[120:])),
		XFAM:          binary.LittleEndian.Uint64(body[128:]),
		MRTD:          body[136:184],
		MRConfigID:    body[184:232],
		MROwner:       body[232:280],
		MROwnerConfig: body[280:328],
		RTMR:          [4]attest.HexBytes{body[328:376], body[376:424], body[424:472], body[472:520]},
		ReportData:    body[520:584],
	}
	if reserved := r.Attributes.reserved(); reserved != 0 {
		return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, fmt.Sprintf("reserved TD attributes %#x", uint64(reserved)), "zero")
	}
	if !attest.AllZero(body[112:120]) {
		return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, "SEAMATTRIBUTES "+body[112:120].String(), "zero")
	}
	if len(body) == dcap.TDReport15 {
		r.TEETCBSVN2, r.MRServiceTD = body[584:600], body[600:648]
	}
	return r, nil
}
