package main

import (
	"context"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/snp"
)

// attest makes evidence over report data and writes it as a record, or as the bare report.
func (a *app) attest(ctx context.Context, args []string) error {
	fs := a.flags("attest --report-data HEX [--tee auto] [--raw] [--out FILE]")
	reportData := fs.String("report-data", "", "what the hardware shall sign, 64 bytes in `HEX`")
	tee := fs.String("tee", "auto", teeUsage)
	bare := fs.Bool("raw", false, "write the bare report instead of a .jurat record")
	out := fs.String("out", "-", "`FILE` to write to")
	var ef endorserFlags
	ef.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 0 || *reportData == "" {
		return usageError("attest takes --report-data HEX and no argument")
	}
	data, err := parseReportData(*reportData)
	if err != nil {
		return err
	}
	endorser, err := ef.endorser()
	if err != nil {
		return err
	}
	p, err := openTEE(*tee, endorser, newLogger(a.stderr, false))
	if err != nil {
		return err
	}
	ev, err := p.Attest(ctx, data)
	if err != nil {
		return err
	}
	if p.simulated {
		fmt.Fprintln(a.stderr, "jurat: SIMULATED: this evidence proves nothing about hardware")
	}
	raw := ev.Raw
	if !*bare {
		if raw, err = record.Encode(&record.Record{Time: a.now(), Target: "attest", Evidence: ev}); err != nil {
			return err
		}
	}
	if *out != "-" {
		return writeFile(*out, raw)
	}
	_, err = a.stdout.Write(raw)
	return err
}

// diagnosis is what doctor finds.
type diagnosis struct {
	TEE    string   `json:"tee"` // format of the evidence; empty where there is no TEE
	Device string   `json:"device,omitempty"`
	Looked []string `json:"looked"`
	OK     bool     `json:"ok"`
	Error  string   `json:"error,omitempty"`
}

// doctor tells which TEE is here and whether it gives evidence.
func (a *app) doctor(ctx context.Context, args []string) error {
	fs := a.flags("doctor [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return usageError("doctor takes no argument")
	}
	d := diagnosis{Looked: []string{snp.SourceTSM, snp.SourceDevice}}
	device, failure := snp.Probe()
	if failure == nil {
		d.TEE, d.Device = string(snp.Format), device
		failure = tryOut(ctx)
	}
	d.OK = failure == nil
	if failure != nil {
		d.Error = failure.Error()
	}
	if *asJSON {
		if err := writeJSON(a.stdout, d); err != nil {
			return err
		}
	} else {
		for _, l := range d.Looked {
			mark := "no   "
			if l == d.Device {
				mark = "found"
			}
			fmt.Fprintf(a.stdout, "  %s  %s\n", mark, l)
		}
		if d.OK {
			fmt.Fprintf(a.stdout, "ok: %s gives evidence of format %s\n", d.Device, d.TEE)
		}
	}
	if failure == nil {
		return nil
	}
	if *asJSON {
		return exitError(attest.CodeOf(failure).Exit())
	}
	return failure
}

// tryOut asks the platform for one report.
func tryOut(ctx context.Context) error {
	attester, err := snp.NewAttester()
	if err != nil {
		return err
	}
	ev, err := attester.Attest(ctx, attest.ReportData{1})
	if err != nil {
		return err
	}
	_, err = snp.Parse(ev.Raw)
	return err
}
