package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
)

// inspection is what a peer or a file says about itself. Nothing in it has been checked.
type inspection struct {
	Judged       bool            `json:"judged"` // always false
	Source       string          `json:"source"`
	Certificate  *certificateOf  `json:"certificate,omitempty"`
	Format       attest.Format   `json:"format,omitempty"`
	Evidence     string          `json:"evidence_sha256,omitempty"`
	Size         int             `json:"evidence_bytes,omitempty"`
	Endorsements []string        `json:"endorsements,omitempty"`
	Config       attest.HexBytes `json:"config_digest,omitempty"`
	ReportData   attest.HexBytes `json:"expected_report_data,omitempty"` // that the leaf demands
	Dialects     []spoken        `json:"dialects,omitempty"`             // of other programs, that the leaf speaks
	Report       any             `json:"report,omitempty"`               // the evidence, decoded

	dialects *dialect.Reader
	known    dialect.Context
}

type certificateOf struct {
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Pin       string    `json:"pin"`
	Bytes     int       `json:"bytes"`
}

// inspect decodes what a target or a file carries and judges nothing.
func (a *app) inspect(ctx context.Context, args []string) error {
	fs := a.flags("inspect TARGET | FILE")
	asJSON := fs.Bool("json", false, "write JSON")
	timeout := fs.Duration("timeout", defaultTimeout, "time to connect")
	name := fs.String("format", "", "`format` of bare evidence in a file: "+judge.FormatNames()+" (default: the first as which it decodes)")
	var parts list
	fs.Var(&parts, "part", "`NAME=FILE` of evidence that is in several files; see jurat verify -h")
	var spoken dialectFlags
	fs.Var(&spoken.names, "dialect", "`NAME` of another program's form of evidence to look for (default all); repeat for more")
	fs.Var(&spoken.given, "given", "`KEY=HEX` that a dialect needs; see jurat verify -h")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("inspect takes one TARGET or FILE")
	}
	if len(spoken.names) == 0 {
		spoken.names = dialect.Known()
	}
	in := inspection{Source: rest[0]}
	if in.dialects, err = dialect.NewReader(spoken.names...); err != nil {
		return usageError("--dialect: %v", err)
	}
	if in.known, err = spoken.known(a); err != nil {
		return err
	}
	if _, err := os.Stat(rest[0]); err == nil || isRecord(rest[0]) {
		err = a.inspectFile(&in, rest[0], *name, parts)
		if err != nil {
			return withSubject(err, rest[0])
		}
	} else {
		chain, err := peek(ctx, rest[0], *timeout)
		if err != nil {
			return err
		}
		if err := in.chain(chain); err != nil {
			return withSubject(err, rest[0])
		}
	}
	if *asJSON {
		return writeJSON(a.stdout, in)
	}
	in.write(a)
	return nil
}

func peek(ctx context.Context, target string, timeout time.Duration) ([][]byte, error) {
	addr, err := targetAddress(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	chain, err := ratls.Peek(ctx, addr)
	return chain, withSubject(err, addr)
}

func (a *app) inspectFile(in *inspection, file, name string, parts list) error {
	raw, err := a.readFile(file)
	if err != nil {
		return err
	}
	if name != "" || len(parts) > 0 {
		return a.inspectEvidence(in, raw, name, parts)
	}
	// Evidence may have certificates within: only what begins as PEM is a certificate.
	if block, _ := pem.Decode(raw); block != nil && block.Type == "CERTIFICATE" && bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN")) {
		return in.chain([][]byte{block.Bytes})
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) && judge.GuessFormat(raw) == nil {
		rec, err := record.Decode(raw)
		if err != nil {
			return err
		}
		if len(rec.Chain) > 0 {
			return in.presented(judge.Presented(rec))
		}
		return in.evidence(rec.Evidence)
	}
	if len(raw) > 0 && raw[0] == 0x30 { // a DER SEQUENCE
		return in.chain([][]byte{raw})
	}
	return a.inspectEvidence(in, raw, "", nil)
}

// inspectEvidence decodes a bare piece of evidence.
func (a *app) inspectEvidence(in *inspection, raw []byte, name string, list list) error {
	f := judge.FormatNamed(attest.Format(name))
	if name == "" {
		f = judge.GuessFormat(raw)
	}
	if f == nil {
		return &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: fmt.Sprintf("%.40q", name), Want: "evidence of format " + judge.FormatNames()}
	}
	if name == "" {
		name = string(f.Name)
	}
	parts, err := a.parts(list)
	if err != nil {
		return err
	}
	packed, err := f.Pack(raw, parts)
	if err != nil {
		return err
	}
	return in.evidence(&attest.Evidence{Format: attest.Format(name), Raw: packed})
}

func (in *inspection) chain(chain [][]byte) error { return in.presented(ratls.Presented{Chain: chain}) }

func (in *inspection) presented(p ratls.Presented) error {
	leaf, err := p.Leaf()
	if err != nil {
		return err
	}
	found, err := in.dialects.Read(dialect.Shown{Leaf: leaf}, in.known)
	if err != nil {
		return err
	}
	in.Dialects = spokenIn(found)
	content, err := ratls.OpenPresented(p)
	if err != nil && (len(found) == 0 || attest.CodeOf(err) != attest.CodeNoEvidence && attest.CodeOf(err) != attest.CodeMalformed) {
		return err
	}
	in.Certificate = &certificateOf{Names: append([]string{}, leaf.DNSNames...), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Pin: ratls.Pin(leaf), Bytes: len(leaf.Raw)}
	for _, ip := range leaf.IPAddresses {
		in.Certificate.Names = append(in.Certificate.Names, ip.String())
	}
	if err != nil {
		return in.evidence(found[0].Evidence)
	}
	in.Config, in.ReportData = content.Config[:], content.ReportData[:]
	return in.evidence(content.Evidence)
}

func (in *inspection) evidence(ev *attest.Evidence) error {
	digest := ev.Digest()
	in.Format, in.Evidence, in.Size = ev.Format, hex.EncodeToString(digest[:]), len(ev.Raw)
	for _, e := range ev.Endorsements {
		in.Endorsements = append(in.Endorsements, fmt.Sprintf("%s, %d bytes", e.Kind, len(e.Raw)))
	}
	report, err := judge.Decode(ev)
	if err == nil {
		in.Report = report
	}
	return err
}

func (in *inspection) write(a *app) {
	fmt.Fprintf(a.stdout, "%s: decoded, not judged: nothing below was verified (jurat verify does that)\n", printable(in.Source))
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.stdout, "  %-22s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	if c := in.Certificate; c != nil {
		row("names", "%v", c.Names)
		row("valid", "%s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
		row("pin", "%s", c.Pin)
		row("certificate", "%d bytes", c.Bytes)
		if in.ReportData != nil {
			row("config digest", "%s", in.Config)
			row("expects report data", "%s", in.ReportData)
		}
	}
	for _, s := range in.Dialects {
		row("dialect", "%s: %s, for %s", s.Dialect, s.Format, s.Preimage)
		row("  level", "%s, if the hardware has signed that", s.Level)
		for _, d := range s.ReportData {
			row("  expects report data", "%s", d)
		}
		for _, name := range slices.Sorted(maps.Keys(s.Signed)) {
			row("  expects "+name, "%s", s.Signed[name])
		}
		for _, u := range s.Unsigned {
			row("  unsigned", "%s", u)
		}
	}
	format := string(in.Format)
	if strings.HasPrefix(format, judge.SimulatedPrefix) {
		format += " (SIMULATED)"
	}
	row("evidence", "%s, %d bytes, sha256 %s", format, in.Size, in.Evidence)
	for _, e := range in.Endorsements {
		row("endorsement", "%s", e)
	}
	fields := reportFields(in.Report)
	for _, f := range fields {
		row(f[0], "%s", f[1])
	}
	fmt.Fprintln(a.stdout, "Tip: for machine-readable output, use --json.")
}

// reportFields are what a person looks for in evidence: of an SEV-SNP report a selection, of the others all.
func reportFields(decoded any) [][2]string {
	r, ok := decoded.(*snp.Report)
	if !ok {
		fields, err := rows(decoded)
		if err != nil {
			return [][2]string{{"report", err.Error()}}
		}
		return fields
	}
	if r == nil {
		return nil
	}
	return [][2]string{
		{"report", fmt.Sprintf("version %d, signed by %s", r.Version, r.SigningKey)},
		{"product", fmt.Sprintf("%s (CPUID %02xh/%02xh/%02xh)", r.Product, r.Family, r.Model, r.Stepping)},
		{"debug", fmt.Sprint(r.Policy.Debug())},
		{"vmpl", fmt.Sprint(r.VMPL)},
		{"measurement", r.Measurement.String()},
		{"report data", r.ReportData.String()},
		{"host data", r.HostData.String()},
		{"chip id", r.ChipID.String()},
		{"reported tcb", fmt.Sprintf("%x", r.ReportedTCB)},
		{"firmware", r.Current},
	}
}
