package sgx

import (
	"encoding/binary"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
)

// Format of the Evidence: Raw is one quote of version 3, which may stand after the header of an Open Enclave report.
const Format attest.Format = "sgx"

// Header of an Open Enclave report of type "SGX remote" (openenclave, internal/report.h): version and type, 4 bytes each,
// and the size of what follows, 8 bytes.
const (
	oeHeaderSize = 16
	oeVersion    = 1
	oeRemote     = 2
)

// Report is a decoded quote. Nothing in it has been verified.
type Report struct {
	Quote        *dcap.Quote     `json:"quote"`
	OpenEnclave  bool            `json:"open_enclave,omitempty"` // it came with that header
	CPUSVN       attest.HexBytes `json:"cpu_svn"`
	MiscSelect   uint32          `json:"misc_select"`
	ISVExtProdID attest.HexBytes `json:"isv_ext_prod_id"`
	Attributes   Attributes      `json:"attributes"`
	XFRM         uint64          `json:"xfrm"`
	MREnclave    attest.HexBytes `json:"mrenclave"`
	MRSigner     attest.HexBytes `json:"mrsigner"`
	ConfigID     attest.HexBytes `json:"config_id"`
	ISVProdID    uint16          `json:"isv_prod_id"`
	ISVSVN       uint16          `json:"isv_svn"`
	ConfigSVN    uint16          `json:"config_svn"`
	ISVFamilyID  attest.HexBytes `json:"isv_family_id"`
	ReportData   attest.HexBytes `json:"report_data"`
}

// Attributes are the low half of ATTRIBUTES (SDM volume 3D, table 38-3).
type Attributes uint64

const (
	attributeInit  Attributes = 1 << 0
	attributeDebug Attributes = 1 << 1
)

// attributeBits are the other bits that are defined.
var attributeBits = []struct {
	bit  uint
	name string
}{
	{2, "mode64bit"},
	{4, "provision_key"},
	{5, "einittoken_key"},
	{6, "cet"},
	{7, "kss"},
	{10, "aex_notify"},
}

// Debug reports whether the host may look into the enclave.
func (a Attributes) Debug() bool { return a&attributeDebug != 0 }

func (a Attributes) reserved() Attributes {
	known := attributeInit | attributeDebug
	for _, b := range attributeBits {
		known |= 1 << b.bit
	}
	return a &^ known
}

// unwrap takes Open Enclave's header off, if there is one. A quote cannot be taken for it: it begins with its version, 3,
// and a key type that is not zero.
func unwrap(raw []byte) (quote []byte, header bool, err error) {
	le := binary.LittleEndian
	if len(raw) < oeHeaderSize || le.Uint32(raw) != oeVersion {
		return raw, false, nil
	}
	if kind := le.Uint32(raw[4:]); kind != oeRemote {
		return nil, false, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("an Open Enclave report of type %d", kind), "2, SGX remote")
	}
	if size := le.Uint64(raw[8:]); size != uint64(len(raw)-oeHeaderSize) {
		return nil, false, attest.Refuse(attest.CodeMalformed, checkFormat, fmt.Sprintf("an Open Enclave report of %d bytes", size), fmt.Sprint(len(raw)-oeHeaderSize))
	}
	return raw[oeHeaderSize:], true, nil
}

// Parse decodes a quote. It refuses whatever the specification does not define.
func Parse(raw []byte) (*Report, error) {
	raw, header, err := unwrap(raw)
	if err != nil {
		return nil, err
	}
	q, err := dcap.Parse(raw)
	if err != nil {
		return nil, err
	}
	if q.TEE != dcap.SGX {
		return nil, attest.Refuse(attest.CodeUnknownFormat, checkFormat, "a quote of "+string(q.TEE), "one of sgx")
	}
	body, le := q.Body, binary.LittleEndian
	r := &Report{
		Quote:        q,
		OpenEnclave:  header,
		CPUSVN:       body[0:16],
		MiscSelect:   le.Uint32(body[16:]),
		ISVExtProdID: body[32:48],
		Attributes:   Attributes(le.Uint64(body[48:])),
		XFRM:         le.Uint64(body[56:]),
		MREnclave:    body[64:96],
		MRSigner:     body[128:160],
		ConfigID:     body[192:256],
		ISVProdID:    le.Uint16(body[256:]),
		ISVSVN:       le.Uint16(body[258:]),
		ConfigSVN:    le.Uint16(body[260:]),
		ISVFamilyID:  body[304:320],
		ReportData:   body[320:384],
	}
	for _, gap := range [][2]int{{20, 32}, {96, 128}, {160, 192}, {262, 304}} {
		if !attest.AllZero(body[gap[0]:gap[1]]) {
			return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, fmt.Sprintf("reserved bytes %d to %d of the report", gap[0], gap[1]-1), "zero")
		}
	}
	if r.Attributes.reserved() != 0 || r.Attributes&attributeInit == 0 {
		return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, fmt.Sprintf("ATTRIBUTES %#x", uint64(r.Attributes)), "INIT set and no undefined bit")
	}
	return r, nil
}
