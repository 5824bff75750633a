package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
)

// attest makes evidence over report data and writes it as a record, or as the bare report.
func (a *app) attest(ctx context.Context, args []string) error {
	fs := a.flags("attest --report-data HEX [--tee auto] [--raw] [--out FILE]")
	reportData := fs.String("report-data", "", "what the hardware shall sign, 64 bytes in `HEX`")
	tee := fs.String("tee", "auto", teeUsage())
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
	endorser, err := ef.endorser(a)
	if err != nil {
		return err
	}
	p, err := openTEE(*tee, endorser, newLogger(a.stderr, false, slog.LevelInfo))
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
	TEE    string   `json:"tee"` // what --tee auto would open; empty where there is none
	Device string   `json:"device,omitempty"`
	Looked []looked `json:"looked"`
	OK     bool     `json:"ok"`
	Error  string   `json:"error,omitempty"`
}

// looked is one TEE that doctor looked for.
type looked struct {
	TEE    string `json:"tee"`
	Device string `json:"device,omitempty"`
	Found  bool   `json:"found"`
	Error  string `json:"error,omitempty"` // why it is not there, or does not work
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
	d := diagnosis{}
	var chosen *tee
	for _, t := range hardware() {
		l := looked{TEE: t.name}
		device, err := t.probe()
		if l.Device, l.Found = device, err == nil; err != nil {
			l.Error = err.Error()
		} else if chosen == nil && t.auto {
			chosen, d.TEE, d.Device = &t, t.name, device
		}
		d.Looked = append(d.Looked, l)
	}
	var failure error
	if chosen == nil {
		_, failure = find()
	} else {
		failure = tryOut(ctx, chosen)
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
			mark, text := "no   ", l.Error
			if l.Found {
				mark, text = "found", l.Device
			}
			fmt.Fprintf(a.stdout, "  %s  %-6s  %s\n", mark, l.TEE, printable(text))
		}
		if d.OK {
			fmt.Fprintf(a.stdout, "ok: %s gives evidence of %s\n", printable(d.Device), d.TEE)
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

// tryOut asks a platform for one piece of evidence, and decodes it.
func tryOut(ctx context.Context, t *tee) error {
	attester, err := t.open()
	if err != nil {
		return err
	}
	ev, err := attester.Attest(ctx, attest.ReportData{1})
	if err != nil {
		return err
	}
	_, err = judge.Decode(ev)
	return err
}
