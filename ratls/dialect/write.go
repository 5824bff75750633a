package dialect

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/ratls/cmw"
)

// Writer puts evidence into certificates in one dialect, for programs that read no other. It makes such a certificate no stronger
// than the dialect is.
type Writer struct {
	name       string
	data       func(cmw.Binding) (attest.ReportData, error)
	extensions func(format attest.Format, ev *attest.Evidence, b cmw.Binding) ([]pkix.Extension, error)
}

func writers() []*Writer {
	return []*Writer{
		{DICE, cmw.Binding.ReportData, writeDICE},
		{EGo, keyData(func(b cmw.Binding) []byte { return sha256Of(b.SPKI) }), writeOEReport},
		{OpenEnclave, keyData(func(b cmw.Binding) []byte { return sha256Of(pemNUL(b.SPKI)) }), writeOEReport},
		{GramineLegacy, keyData(func(b cmw.Binding) []byte { return sha256Of(b.SPKI) }), writeGramine},
		{Dstack, keyData(func(b cmw.Binding) []byte { return sha512Of([]byte(dstackTag), b.SPKI) }), writeDstack},
	}
}

// Written are the names of dialects that certificates can be made in.
func Written() []string {
	var names []string
	for _, w := range writers() {
		names = append(names, w.name)
	}
	return names
}

// NewWriters makes Writers of dialects by their names. EGo and Open Enclave use one place, for two hashes: both of them are refused.
func NewWriters(names ...string) ([]*Writer, error) {
	var all []*Writer
	taken := map[string]string{}
	for _, n := range names {
		var found *Writer
		for _, w := range writers() {
			if w.name == n {
				found = w
			}
		}
		if found == nil {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "dialects", Got: fmt.Sprintf("%.40q", n), Want: "one of " + strings.Join(Written(), ", ")}
		}
		place := strings.Replace(n, OpenEnclave, EGo, 1)
		if taken[place] != "" {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "dialects", Got: n + " beside " + taken[place], Want: "one of them"}
		}
		taken[place] = n
		all = append(all, found)
	}
	return all, nil
}

// Name is that of the dialect.
func (w *Writer) Name() string { return w.name }

// ReportData is what the hardware has to sign for a leaf. For DICE it is what it signs for our own evidence, so that one quote serves
// both.
func (w *Writer) ReportData(b cmw.Binding) (attest.ReportData, error) { return w.data(b) }

// Extensions are those of a certificate with evidence of a platform that the dialect has a form for. A simulated one has that of
// hardware. The error is an *attest.Error with CodeUnknownFormat where it has none.
func (w *Writer) Extensions(ev *attest.Evidence, b cmw.Binding) ([]pkix.Extension, error) {
	list, err := w.extensions(attest.Format(strings.TrimPrefix(string(ev.Format), "sim-")), ev, b)
	if err != nil {
		return nil, in(w.name, true, err)
	}
	return list, nil
}

func keyData(hash func(cmw.Binding) []byte) func(cmw.Binding) (attest.ReportData, error) {
	return func(b cmw.Binding) (attest.ReportData, error) { return whole(hash(b)), nil }
}

// writes refuses evidence of another platform than the dialect is for.
func writes(format attest.Format, has ...attest.Format) error {
	var names []string
	for _, h := range has {
		if h == format {
			return nil
		}
		names = append(names, string(h))
	}
	return refuse(attest.CodeUnknownFormat, "evidence of "+attest.Quote(string(format)), strings.Join(names, " or "))
}

// cborBytes is a byte string with its head (RFC 8949 section 3).
func cborBytes(raw []byte) ([]byte, error) { return strictcbor.Marshal(raw) }

func writeDICE(format attest.Format, ev *attest.Evidence, b cmw.Binding) ([]pkix.Extension, error) {
	if err := writes(format, formatSGX, formatTDX, formatSNP); err != nil {
		return nil, err
	}
	tag := uint32(tagQuote)
	if format == formatSNP {
		tag = tagSNP
	}
	claims, err := b.Claims()
	if err != nil {
		return nil, err
	}
	// A tag of 2 or 4 bytes, and an array of two.
	value := binary.BigEndian.AppendUint16([]byte{0xd9}, uint16(tag))
	if tag > 0xffff {
		value = binary.BigEndian.AppendUint32([]byte{0xda}, tag)
	}
	value = append(value, 0x82)
	for _, item := range [][]byte{ev.Raw, claims} {
		encoded, err := cborBytes(item)
		if err != nil {
			return nil, err
		}
		value = append(value, encoded...)
	}
	return []pkix.Extension{{Id: oidTaggedEvidence(), Value: value}}, nil
}

func writeOEReport(format attest.Format, ev *attest.Evidence, _ cmw.Binding) ([]pkix.Extension, error) {
	if err := writes(format, formatSGX); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	value := le.AppendUint32(le.AppendUint32(nil, oeReportVersion), oeReportRemote)
	return []pkix.Extension{{Id: oidOEReport(), Value: append(le.AppendUint64(value, uint64(len(ev.Raw))), ev.Raw...)}}, nil
}

func writeGramine(format attest.Format, ev *attest.Evidence, _ cmw.Binding) ([]pkix.Extension, error) {
	if err := writes(format, formatSGX); err != nil {
		return nil, err
	}
	return []pkix.Extension{{Id: oidGramine(), Value: ev.Raw}}, nil
}

// writeDstack writes the older form, which all of its readers take. They demand a log beside the quote; this one is empty, which is what
// leads to a register that nothing has extended.
func writeDstack(format attest.Format, ev *attest.Evidence, _ cmw.Binding) ([]pkix.Extension, error) {
	if err := writes(format, formatTDX); err != nil {
		return nil, err
	}
	const eventLog = 2
	quote, err := asn1.Marshal(ev.Raw)
	if err != nil {
		return nil, err
	}
	log, err := asn1.Marshal([]byte("[]"))
	return []pkix.Extension{{Id: oidDstack(dstackQuote), Value: quote}, {Id: oidDstack(eventLog), Value: log}}, err
}
