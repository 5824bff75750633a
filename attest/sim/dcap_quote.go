package sim

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// enclave is a quoting enclave.
type enclave struct {
	id      string // in its QE identity
	prodID  uint16
	measure []byte
	signer  []byte
}

func quotingEnclave(tee string) enclave {
	e := enclave{"QE", 1, sum256("jurat simulated quoting enclave"), sum256("jurat simulated quoting enclave signer")}
	if tee == teeTDX {
		e.id, e.prodID = "TD_QE", 2
	}
	return e
}

// Values of fields (Intel TDX DCAP Quoting Library API, appendix A; SDM volume 3D, table 38-21 and 38-3).
const (
	quoteECDSA256   = 2 // attestation key type
	teeTypeTDX      = 0x81
	bodyTD10        = 2
	bodyTD15        = 3
	certPCKChain    = 5
	certQEReport    = 6
	attributeInit   = 1 << 0
	attributeDebug  = 1 << 1
	attributeMode64 = 1 << 2
	attributeKey    = 1 << 4 // provisioning key
	tdDebug         = 1 << 0
	tdSeptVEDisable = 1 << 28
	sgxXFRM         = 0xe7
	tdXFAM          = 0x6_18e7
)

// Intel's quoting enclaves.
var qeVendor = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// quote writes a quote over data, of version 3 for SGX, of 4 or 5 for TDX.
func (m *DCAP) quote(data attest.ReportData, chain []byte) ([]byte, error) {
	c, le := m.config, binary.LittleEndian
	out := make([]byte, 48, 8<<10)
	le.PutUint16(out[0:], c.version)
	le.PutUint16(out[2:], quoteECDSA256)
	if c.tee == teeTDX {
		le.PutUint32(out[4:], teeTypeTDX)
	} else {
		le.PutUint16(out[8:], c.tcb.qe)
		le.PutUint16(out[10:], c.tcb.pce)
	}
	copy(out[12:], qeVendor[:])
	copy(out[28:], m.authority.seed.derive("qe id", 16)) // user data: which quoting enclave
	body := m.body(data)
	if c.version == 5 {
		kind := uint16(bodyTD10)
		if c.td == td15 {
			kind = bodyTD15
		}
		out = le.AppendUint16(out, kind)
		out = le.AppendUint32(out, uint32(len(body)))
	}
	out = append(out, body...)
	signature, err := m.signatureData(out, chain)
	if err != nil {
		return nil, err
	}
	return append(le.AppendUint32(out, uint32(len(signature))), signature...), nil
}

// signatureData signs header and body by the attestation key, which the quoting enclave's report names, which the PCK signs.
func (m *DCAP) signatureData(signed, chain []byte) ([]byte, error) {
	a, le := m.authority, binary.LittleEndian
	out, err := a.sign(m.quoteKey, signed)
	if err != nil {
		return nil, err
	}
	key, err := a.key(m.quoteKey)
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	public = public[1:] // X and Y
	auth := make([]byte, 32)
	for i := range auth {
		auth[i] = byte(i)
	}
	named := sha256.Sum256(slices.Concat(public, auth))
	e := quotingEnclave(m.config.tee)
	report := m.report(e.measure, e.signer, e.prodID, m.config.tcb.qe, attributeInit|attributeMode64|attributeKey, named[:])
	by, err := a.sign(m.pck, report)
	if err != nil {
		return nil, err
	}
	certified := slices.Concat(report, by)
	certified = append(le.AppendUint16(certified, uint16(len(auth))), auth...)
	certified = append(certification(certified, certPCKChain, len(chain)), chain...)
	out = append(out, public...)
	if m.config.version > 3 {
		out = certification(out, certQEReport, len(certified))
	}
	return append(out, certified...), nil
}

// certification appends the head of certification data.
func certification(to []byte, kind uint16, size int) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(to, kind), uint32(size))
}

// report writes an enclave's REPORTBODY.
func (m *DCAP) report(measurement, signer []byte, prodID, svn uint16, attributes uint64, data []byte) []byte {
	r, le := make([]byte, 384), binary.LittleEndian
	copy(r[0:], m.config.tcb.sgx[:]) // CPUSVN
	le.PutUint64(r[48:], attributes)
	le.PutUint64(r[56:], sgxXFRM)
	copy(r[64:], measurement)
	copy(r[128:], signer)
	le.PutUint16(r[256:], prodID)
	le.PutUint16(r[258:], svn)
	copy(r[320:], data)
	return r
}

// body writes what is quoted: an enclave's report, or a TD's.
func (m *DCAP) body(data attest.ReportData) []byte {
	c, le := m.config, binary.LittleEndian
	if c.tee == teeSGX {
		attributes := uint64(attributeInit | attributeMode64)
		if c.debug {
			attributes |= attributeDebug
		}
		return m.report(c.measurement, c.signer, c.prodID, c.svn, attributes, data[:])
	}
	b := make([]byte, 584)
	copy(b[0:], c.tcb.tdx[:])
	module := sha512.Sum384([]byte("jurat simulated TDX module"))
	copy(b[16:], module[:]) // MRSEAM; MRSIGNERSEAM and SEAMATTRIBUTES of Intel's modules are zero
	attributes := uint64(tdSeptVEDisable)
	if c.debug {
		attributes |= tdDebug
	}
	le.PutUint64(b[120:], attributes)
	le.PutUint64(b[128:], tdXFAM)
	copy(b[136:], c.measurement)
	for i, r := range c.rtmr {
		copy(b[328+48*i:], r)
	}
	copy(b[520:], data[:])
	if c.td == td15 {
		running := c.tcb.tdx
		if c.relaunch {
			running[0], running[2] = dcapNext.tdx[0], dcapNext.tdx[2]
		}
		b = append(b, running[:]...)
		b = append(b, make([]byte, 48)...) // MRSERVICETD
	}
	return b
}
