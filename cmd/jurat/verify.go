package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/wellknown"
)

type verifyFlags struct {
	json, anyData bool
	wellKnown     bool
	save, at      string
	evidence      string
	format        string
	endorsements  list
	parts         list
	eventLog      string
	reportData    string
	relying       *relyingFlags
	dialect       dialectFlags
	ear           earFlags
	log           logFlags
}

// verify appraises a live peer, a record, or a bare piece of evidence.
func (a *app) verify(ctx context.Context, args []string) error {
	fs := a.flags("verify -p policy.yaml [flags] TARGET | F.jurat | --evidence FILE | --certificate FILE | --document FILE|URL")
	f := &verifyFlags{relying: a.relyingFlags(fs)}
	fs.BoolVar(&f.json, "json", false, "write the verdict as JSON")
	fs.StringVar(&f.save, "save", "", "record the appraisal in `F.jurat`")
	fs.StringVar(&f.at, "at", "", "judge at this `TIME` (RFC 3339, a date, or now); for records and bare evidence")
	fs.StringVar(&f.evidence, "evidence", "", "bare evidence in `FILE`, bound to nothing")
	fs.StringVar(&f.format, "format", "", "`format` of the evidence: "+judge.FormatNames())
	fs.Var(&f.parts, "part", "`NAME=FILE` of evidence that is in several files: tpm-quote, tpm-signature, pcrs, td-quote of the azure formats; repeat for more")
	fs.StringVar(&f.eventLog, "event-log", "", "`FILE` with the log of what was measured (CCEL or TCG2), which has to lead to the signed registers")
	fs.Var(&f.endorsements, "endorsement", "`FILE` that counts as stapled to the evidence: certificates, CRLs, Intel collateral or a bundle; a public key is a trust anchor; repeat for more")
	fs.StringVar(&f.reportData, "report-data", "", "what the hardware must have signed, 64 bytes in `HEX`")
	fs.BoolVar(&f.anyData, "unsafe-any-report-data", false, "accept any report data: the evidence then proves nothing about who sent it")
	fs.BoolVar(&f.wellKnown, "well-known", false, "ask the target over HTTPS for evidence for a fresh nonce (level nonce), at "+wellknown.Path)
	f.dialect.register(fs)
	f.ear.register(fs)
	f.log.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	alone := f.evidence != "" || f.dialect.files()
	if alone == (len(rest) == 1) || len(rest) > 1 || f.evidence != "" && f.dialect.files() {
		return usageError("verify takes one TARGET or F.jurat, or --evidence FILE, or --certificate FILE, or --document FILE|URL")
	}
	if err := errors.Join(f.ear.check(), f.log.check(), f.checkWellKnown(rest)); err != nil {
		return err
	}
	rp, err := f.relying.load(a)
	if err != nil {
		return err
	}
	if rp.dialects, err = dialect.NewReader(f.dialect.names...); err != nil {
		return usageError("--dialect: %v", err)
	}
	if len(f.dialect.given) > 0 && !f.dialect.files() {
		return usageError("--given belongs to --certificate and --document")
	}
	var ap *appraisal
	switch {
	case f.dialect.files():
		if err := f.bareOnly(); err != nil {
			return err
		}
		ap, err = a.verifyShown(ctx, f, rp)
	case f.evidence != "":
		ap, err = a.verifyEvidence(ctx, f, rp)
	case isRecord(rest[0]):
		ap, err = a.verifyRecord(ctx, f, rp, rest[0])
	default:
		ap, err = a.verifyTarget(ctx, f, rp, rest[0])
	}
	if err != nil {
		if f.json && attest.CodeOf(err).Exit() != 2 {
			at, _ := a.parseTime(f.at, a.now()) // where that is the error, it is one of usage
			ap = &appraisal{result: attest.RefusedResult(err, at)}
			if len(rest) == 1 {
				ap.target = rest[0]
			}
			if err := writeJSON(a.stdout, verdictOf(ap)); err != nil {
				return err
			}
			return exitError(ap.result.Code().Exit())
		}
		return err
	}
	if err := a.keep(f, ap); err != nil {
		return err
	}
	return a.report(f.json, ap, f.relying.policy)
}

// keep writes what the flags ask for beside the verdict: a record, an entry of a log, a token.
func (a *app) keep(f *verifyFlags, ap *appraisal) error {
	if f.save != "" || f.log.dir != "" {
		raw, err := record.Encode(ap.record)
		if err != nil {
			return err
		}
		if f.save != "" {
			if err := writeFile(f.save, raw); err != nil {
				return err
			}
		}
		log, err := f.log.open(a)
		if err != nil {
			return err
		}
		if log != nil {
			_, err := log.Append(raw)
			if err = errors.Join(err, log.Close()); err != nil {
				return err
			}
		}
	}
	return f.ear.write(a, ap)
}

// report writes the verdict; its exit code is the error.
func (a *app) report(asJSON bool, ap *appraisal, policyFile string) error {
	v := verdictOf(ap)
	if asJSON {
		if err := writeJSON(a.stdout, v); err != nil {
			return err
		}
	} else {
		transcript(a.stdout, v, policyFile)
	}
	mark := ""
	if v.Simulated {
		mark = "SIMULATED "
	}
	err := ap.result.Err()
	switch {
	case asJSON:
	case err == nil:
		fmt.Fprintf(a.stdout, "%saffirmed: %s\n", mark, printable(ap.target))
	default:
		var coded *attest.Error
		errors.As(err, &coded)
		fmt.Fprintf(a.stderr, "%s%s: %s: %s (%s)\n", mark, v.Verdict, printable(ap.target), coded.Code.Title(), coded.Code)
		fmt.Fprintf(a.stderr, "%shint: %s\n", mark, printable(coded.Remedy()))
	}
	if err != nil {
		return exitError(attest.CodeOf(err).Exit())
	}
	return nil
}

func isRecord(arg string) bool { return arg == "-" || strings.HasSuffix(arg, ".jurat") }

func (f *verifyFlags) bareOnly() error {
	if len(f.parts) > 0 || f.eventLog != "" || f.format != "" || f.reportData != "" || f.anyData || len(f.endorsements) > 0 {
		return usageError("--format, --part, --event-log, --endorsement, --report-data and --unsafe-any-report-data belong to --evidence")
	}
	return nil
}

func (a *app) verifyTarget(ctx context.Context, f *verifyFlags, rp *relying, target string) (*appraisal, error) {
	if f.at != "" {
		return nil, usageError("--at judges the past: it takes a record or bare evidence, not a live target")
	}
	if err := f.bareOnly(); err != nil {
		return nil, err
	}
	if f.wellKnown {
		return rp.askWellKnown(ctx, target)
	}
	return rp.dial(ctx, target)
}

func (a *app) verifyRecord(ctx context.Context, f *verifyFlags, rp *relying, file string) (*appraisal, error) {
	raw, err := a.readFile(file)
	if err != nil {
		return nil, err
	}
	rec, err := record.Decode(raw)
	if err != nil {
		return nil, withSubject(err, file)
	}
	at, err := a.parseTime(f.at, rec.Time)
	if err != nil {
		return nil, err
	}
	if len(rec.Chain) > 0 {
		if err := f.bareOnly(); err != nil {
			return nil, err
		}
		return rp.replay(ctx, rec, at), nil
	}
	if len(f.parts) > 0 || f.eventLog != "" || f.format != "" {
		return nil, usageError("a record has all of its evidence: --format, --part and --event-log belong to --evidence")
	}
	// A record without a chain is bare evidence. What it says its report data is came with it and satisfies nothing.
	want, err := f.expectation()
	if err != nil {
		return nil, err
	}
	stapled, err := a.given(f.endorsements, rp)
	if err != nil {
		return nil, err
	}
	if len(stapled) > 0 {
		return nil, usageError("a record has its endorsements; beside it --endorsement gives public keys only")
	}
	result := rp.judge().Bare(ctx, judge.Recorded(rec, rp.endorser), rec.Evidence, want, at)
	return &appraisal{target: file, result: result, record: rec}, nil
}

func (a *app) verifyEvidence(ctx context.Context, f *verifyFlags, rp *relying) (*appraisal, error) {
	if judge.FormatNamed(attest.Format(f.format)) == nil {
		return nil, usageError("--evidence needs --format, got %.40q; formats: %s", f.format, judge.FormatNames())
	}
	want, err := f.expectation()
	if err != nil {
		return nil, err
	}
	at, err := a.parseTime(f.at, a.now())
	if err != nil {
		return nil, err
	}
	raw, err := a.readFile(f.evidence)
	if err != nil {
		return nil, err
	}
	parts, err := a.parts(f.parts)
	if err != nil {
		return nil, err
	}
	var log []byte
	if f.eventLog != "" {
		if log, err = a.readFile(f.eventLog); err != nil {
			return nil, err
		}
	}
	ev, err := judge.Evidence(f.format, raw, parts, log)
	if err != nil {
		return nil, err
	}
	if ev.Endorsements, err = a.given(f.endorsements, rp); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rp.timeout)
	defer cancel()
	recorder := record.NewRecorder(rp.endorser)
	result := rp.judge().Bare(ctx, recorder, ev, want, at)
	rec := &record.Record{Time: at, Target: filepath.Base(f.evidence), Evidence: ev, Fetched: recorder.Fetched()}
	return &appraisal{target: rec.Target, result: result, record: rec}, nil
}

func (f *verifyFlags) expectation() (attest.Expectation, error) {
	if f.anyData == (f.reportData != "") {
		return attest.Expectation{}, &attest.Error{
			Code: attest.CodeUsage, Check: "usage", Got: "no expected report data", Want: "--report-data HEX or --unsafe-any-report-data, one of them",
			Hint: "say what the hardware should have signed; a missing expectation is an error",
		}
	}
	if f.anyData {
		return attest.UnsafeExpectAnything(), nil
	}
	data, err := parseReportData(f.reportData)
	if err != nil {
		return attest.Expectation{}, err
	}
	return attest.Expect(data, attest.LevelNone, time.Time{}), nil
}

// parseReportData reads 64 bytes in hex.
func parseReportData(s string) (attest.ReportData, error) {
	raw, err := hex.DecodeString(s)
	if err != nil {
		return attest.ReportData{}, usageError("want 64 bytes in hex (128 characters) as report data: %v", err)
	}
	data, err := judge.ReportData(raw)
	if err != nil {
		return data, usageError("%w", err)
	}
	return data, nil
}

func (a *app) parseTime(s string, absent time.Time) (time.Time, error) {
	switch s {
	case "":
		return absent, nil
	case "now":
		return a.now(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		t, err := time.Parse(layout, s)
		if y := t.UTC().Year(); err == nil && y >= 0 && y <= 9999 { // with an offset it can be a year that no verdict can say
			return t.UTC(), nil
		}
	}
	return time.Time{}, usageError("time %.40q is not RFC 3339 (2026-11-23T12:00:00Z), a date, or now", s)
}

// given reads the files of --endorsement and answers what counts as stapled to the evidence; for the anchors among them rp is asked.
func (a *app) given(files []string, rp *relying) ([]attest.Endorsement, error) {
	var given []attest.Endorsement
	for _, file := range files {
		raw, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		all, err := endorse.Parse(raw)
		if err != nil {
			return nil, withSubject(err, file)
		}
		given = append(given, all...)
	}
	party, stapled := rp.judge().With(given)
	rp.endorser = party.Endorser
	return stapled, nil
}

// writeFile replaces a file in one step: a reader sees the old or the new one.
func writeFile(file string, raw []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".jurat-*")
	if err != nil {
		return usageError("%v", err)
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(raw); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
