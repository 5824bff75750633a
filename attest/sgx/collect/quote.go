package collect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// format is that of the verifier in the package above.
const format attest.Format = "sgx"

// Layout of a quote as far as an attester looks (Intel SGX DCAP ECDSA quoting library API, appendix A.3 and A.4).
const (
	quoteVersion = 3
	reportAt     = 48 // behind the header
	reportSize   = 384
	dataAt       = reportAt + 320

	// maxQuote bounds what is read. Gramine allows 8 KiB.
	maxQuote = 16 << 10
)

// Evidence wraps a quote which was asked for over data. It refuses one of another version or over other data: another
// user of the same enclave may have come in between.
func Evidence(quote []byte, data attest.ReportData) (*attest.Evidence, error) {
	switch {
	case len(quote) < reportAt+reportSize:
		return nil, fmt.Errorf("a quote of %d bytes", len(quote))
	case len(quote) > maxQuote:
		return nil, fmt.Errorf("a quote of %d bytes, more than %d", len(quote), maxQuote)
	case binary.LittleEndian.Uint16(quote) != quoteVersion:
		return nil, fmt.Errorf("a quote of version %d, want %d", binary.LittleEndian.Uint16(quote), quoteVersion)
	case [64]byte(quote[dataAt:]) != data:
		return nil, fmt.Errorf("a quote over other data, %x…", quote[dataAt:dataAt+8])
	}
	return &attest.Evidence{Format: format, Raw: quote}, nil
}

// Header of a report by Open Enclave (oe_report_header_t in openenclave/internal/report.h).
const (
	openEnclaveHeader  = 16
	openEnclaveVersion = 1
	openEnclaveRemote  = 2 // OE_REPORT_TYPE_SGX_REMOTE
)

var errNotRemote = errors.New("not a remote report of SGX")

// OpenEnclave is Evidence for a report by Open Enclave: the quote behind a header, which is checked and dropped.
func OpenEnclave(report []byte, data attest.ReportData) (*attest.Evidence, error) {
	if len(report) < openEnclaveHeader {
		return nil, fmt.Errorf("%w: %d bytes", errNotRemote, len(report))
	}
	version, kind, size := binary.LittleEndian.Uint32(report), binary.LittleEndian.Uint32(report[4:]), binary.LittleEndian.Uint64(report[8:])
	quote := report[openEnclaveHeader:]
	if version != openEnclaveVersion || kind != openEnclaveRemote || size != uint64(len(quote)) {
		return nil, fmt.Errorf("%w: version %d, type %d, %d bytes of %d", errNotRemote, version, kind, size, len(quote))
	}
	return Evidence(quote, data)
}
