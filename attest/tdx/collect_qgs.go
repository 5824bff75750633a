package tdx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// Messages of Intel's quote generation service (DCAP, qgs_msg_lib.h). Integers are little endian, but for the length
// before each message on a stream.
const (
	qgsMajor        = 1
	qgsQuoteRequest = 0
	qgsQuoteAnswer  = 1

	qgsPrefix    = 4  // length of the message, big endian
	qgsHeader    = 16 // major and minor version (16 bits each), type, size with the header, error code
	qgsQuoteHead = 8  // lengths of the two parts: request: report and list of ids; answer: selected id and quote

	// maxQGSAnswer bounds an answer: one quote and what surrounds it.
	maxQGSAnswer = attest.MaxRaw + qgsHeader + qgsQuoteHead + maxQGSID
	maxQGSID     = 256
)

// TDREPORT_STRUCT (Intel TDX module base architecture, §22.6): REPORTMACSTRUCT comes first.
const (
	tdReportSize = 1024
	tdReportData = 128 // REPORTDATA, 64 bytes
)

// qgsConfig is the file in which a guest's image offers the service, as Intel's own library reads it: "port = 4050".
const (
	qgsConfig    = "/etc/tdx-attest.conf"
	maxQGSConfig = 4 << 10
)

// tdReporter is the TDX module, as the kernel's device reaches it.
type tdReporter interface {
	open() error
	report(data attest.ReportData) ([]byte, error)
}

// stream is a connection to the service. Its owner closes it.
type stream interface {
	io.ReadWriteCloser
}

// qgs collects through the host's quote generation service over vsock. The kernel's own way can take a second for each
// quote; the service takes milliseconds.
type qgs struct {
	config string
	module tdReporter
	dial   func(ctx context.Context, port uint32) (stream, error)
}

// Name implements tsm.Source.
func (q qgs) Name() string { return SourceQGS }

// Probe implements tsm.Source. The service is there if the guest's image says so, the TDX module answers, and somebody
// listens: where nobody does, the kernel's way remains.
func (q qgs) Probe() error {
	port, err := q.port()
	if err != nil {
		return err
	}
	if err := q.module.open(); err != nil {
		return err
	}
	c, err := q.dial(context.Background(), port)
	if err != nil {
		return fmt.Errorf("%w: %w", tsm.ErrAbsent, err)
	}
	return c.Close()
}

// port reads which port the guest's image names.
func (q qgs) port() (uint32, error) {
	raw, err := tsm.ReadFile(q.config, maxQGSConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %w", tsm.ErrAbsent, err)
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		line, _, _ = strings.Cut(line, "#")
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(key) != "port" {
			continue
		}
		port, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		if err != nil || port == 0 {
			return 0, fmt.Errorf("%s: port %.40q", q.config, value)
		}
		return uint32(port), nil
	}
	return 0, fmt.Errorf("%w: %s names no port", tsm.ErrAbsent, q.config)
}

// Collect implements tsm.Source.
func (q qgs) Collect(ctx context.Context, data attest.ReportData) (tsm.Report, error) {
	report, err := q.module.report(data)
	if err != nil {
		return tsm.Report{}, err
	}
	if len(report) != tdReportSize || !bytes.Equal(report[tdReportData:tdReportData+len(data)], data[:]) {
		return tsm.Report{}, errors.New("the TDX module reported over other data")
	}
	port, err := q.port()
	if err != nil {
		return tsm.Report{}, err
	}
	c, err := q.dial(ctx, port)
	if err != nil {
		return tsm.Report{}, err
	}
	// A service that does not answer must not hold a caller who gave up.
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer c.Close()
	if _, err := c.Write(quoteRequest(report)); err != nil {
		return tsm.Report{}, err
	}
	answer, err := readMessage(c)
	if err != nil {
		return tsm.Report{}, err
	}
	quote, err := parseQuoteAnswer(answer)
	return tsm.Report{Out: quote}, err
}

// quoteRequest asks for a quote over report by the quoting enclave of the service's choice.
func quoteRequest(report []byte) []byte {
	size := uint32(qgsHeader + qgsQuoteHead + len(report))
	out := binary.BigEndian.AppendUint32(make([]byte, 0, qgsPrefix+size), size)
	le := binary.LittleEndian
	out = le.AppendUint16(out, qgsMajor)
	out = le.AppendUint16(out, 0)
	out = le.AppendUint32(out, qgsQuoteRequest)
	out = le.AppendUint32(out, size)
	out = le.AppendUint32(out, 0)
	out = le.AppendUint32(out, uint32(len(report)))
	out = le.AppendUint32(out, 0) // no list of ids
	return append(out, report...)
}

func readMessage(r io.Reader) ([]byte, error) {
	var prefix [qgsPrefix]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if size > maxQGSAnswer {
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	message := make([]byte, size)
	_, err := io.ReadFull(r, message)
	return message, err
}

// parseQuoteAnswer takes the quote out of a message. As in Intel's library, another minor version is compatible.
func parseQuoteAnswer(message []byte) ([]byte, error) {
	if len(message) < qgsHeader+qgsQuoteHead {
		return nil, fmt.Errorf("an answer of %d bytes", len(message))
	}
	le := binary.LittleEndian
	major, kind, size, failure := le.Uint16(message), le.Uint32(message[4:]), le.Uint32(message[8:]), le.Uint32(message[12:])
	if major != qgsMajor || kind != qgsQuoteAnswer || uint64(size) != uint64(len(message)) {
		return nil, fmt.Errorf("an answer of version %d, type %d and size %d in %d bytes", major, kind, size, len(message))
	}
	if failure != 0 {
		return nil, fmt.Errorf("the quote generation service failed with %#x", failure)
	}
	id, quote := uint64(le.Uint32(message[16:])), uint64(le.Uint32(message[20:]))
	if rest := message[qgsHeader+qgsQuoteHead:]; id <= maxQGSID && id+quote == uint64(len(rest)) {
		return rest[id:], nil
	}
	return nil, fmt.Errorf("an answer with an id of %d and a quote of %d bytes in %d", id, quote, len(message))
}
