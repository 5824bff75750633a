package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls"
)

// endorse dispatches the subcommands about endorsements.
func (a *app) endorse(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError("endorse needs a subcommand: export -o BUNDLE, import BUNDLE")
	}
	switch args[0] {
	case "export":
		return a.endorseExport(ctx, args[1:])
	case "import":
		return a.endorseImport(args[1:])
	}
	return usageError("endorse %.40q is not known; it is export or import", args[0])
}

const exportTimeout = 5 * time.Minute

type exportFlags struct {
	policies, lines, fmspcs, evidence list
	format, out                       string
	json                              bool
	timeout                           time.Duration
	services                          endorserFlags
}

// endorseExport writes a bundle of the endorsements that verifying the given platforms takes. It judges none of them.
func (a *app) endorseExport(ctx context.Context, args []string) error {
	fs := a.flags("endorse export -o BUNDLE [-p policy.yaml] [--amd LINE] [--intel FMSPC] [--evidence FILE --format snp] [TARGET | F.jurat]...")
	var f exportFlags
	fs.Var(&f.policies, "policy", "fetch what the platforms of this policy `FILE` have in common; repeat for more")
	fs.Var(&f.policies, "p", "short for --policy")
	fs.Var(&f.lines, "amd", "fetch what this product `line` has in common: milan, genoa, turin; repeat for more")
	fs.Var(&f.fmspcs, "intel", "fetch everything for platforms of this `FMSPC`, 6 bytes in hex; repeat for more")
	fs.Var(&f.evidence, "evidence", "fetch what the bare evidence in `FILE` takes; repeat for more")
	fs.StringVar(&f.format, "format", "", "`format` of the evidence, such as snp")
	fs.StringVar(&f.out, "o", "", "`BUNDLE` to write")
	fs.BoolVar(&f.json, "json", false, "write what was fetched as JSON")
	fs.DurationVar(&f.timeout, "timeout", exportTimeout, "time for all of it")
	f.services.registerServices(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	switch {
	case f.out == "":
		return usageError("endorse export needs -o BUNDLE")
	case f.out == "-" && f.json:
		return usageError("-o - and --json both write to standard output")
	case (len(f.evidence) > 0) != (f.format != ""):
		return usageError("--evidence and --format go together")
	}
	service, err := f.services.service(a, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	c := &collector{a: a, service: service, seen: map[attest.Ref]bool{}}
	if err := c.all(ctx, &f, rest); err != nil {
		return err
	}
	if len(c.bundle.Entries)+len(c.missing) == 0 {
		return usageError("nothing to export: name a platform (--amd, --intel, -p), evidence, a TARGET or F.jurat")
	}
	return a.writeExport(&f, c)
}

func (a *app) writeExport(f *exportFlags, c *collector) error {
	if len(c.bundle.Entries) > 0 {
		raw, err := c.bundle.Encode()
		if err != nil {
			return err
		}
		if f.out == "-" {
			_, err = a.stdout.Write(raw)
		} else {
			err = writeFile(f.out, raw)
		}
		if err != nil {
			return err
		}
	}
	if f.json {
		if err := writeJSON(a.stdout, exported{summaries(c.bundle.Entries), append([]missing{}, c.missing...)}); err != nil {
			return err
		}
	}
	if len(c.missing) > 0 {
		err := c.missing[0].err
		if f.json {
			return exitError(attest.CodeOf(err).Exit())
		}
		return err
	}
	return nil
}

// exported is the JSON of endorse export.
type exported struct {
	Entries []entrySummary `json:"entries"`
	Missing []missing      `json:"missing"`
}

type entrySummary struct {
	Service string      `json:"service"`
	Path    string      `json:"path"`
	Kind    attest.Kind `json:"kind"`
	Fetched time.Time   `json:"fetched"`
	Expires time.Time   `json:"expires"`
}

type missing struct {
	Service string      `json:"service"`
	Path    string      `json:"path"`
	Code    attest.Code `json:"code"`
	Error   string      `json:"error"`
	err     error
}

func summaries(entries []endorse.Entry) []entrySummary {
	out := []entrySummary{}
	for _, e := range entries {
		out = append(out, summary(e))
	}
	return out
}

func summary(e endorse.Entry) entrySummary {
	expires, _ := e.Expires() // whoever made the entry has checked it
	return entrySummary{e.Ref.Service, e.Ref.Path, e.Ref.Kind, e.Fetched.UTC(), expires.UTC()}
}

// collector is an Endorser that passes requests on and keeps the answers.
type collector struct {
	a       *app
	service *endorse.Service
	seen    map[attest.Ref]bool
	bundle  endorse.Bundle
	missing []missing
}

// Endorse implements attest.Endorser.
func (c *collector) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	e, err := c.service.Fetch(ctx, ref)
	if c.seen[ref] || !c.service.Serves(ref) { // nobody could fetch what no service has
		return e.Endorsements, err
	}
	c.seen[ref] = true
	if err != nil {
		c.missing = append(c.missing, missing{ref.Service, ref.Path, attest.CodeOf(err), err.Error(), err})
		fmt.Fprintf(c.a.stderr, "  FAIL  %s%s: %s (%s)\n", ref.Service, printable(ref.Path), attest.CodeOf(err).Title(), attest.CodeOf(err))
		return nil, err
	}
	c.bundle.Entries = append(c.bundle.Entries, e)
	fmt.Fprintf(c.a.stderr, "  ok    %s%s: %s until %s\n", ref.Service, printable(ref.Path), ref.Kind, summary(e).Expires.Format(time.RFC3339))
	return e.Endorsements, nil
}

func (c *collector) all(ctx context.Context, f *exportFlags, targets []string) error {
	for _, file := range f.policies {
		p, err := c.a.loadPolicy(file)
		if err != nil {
			return err
		}
		if p.Allows("intel") {
			c.common(ctx, endorse.IntelRefs())
			fmt.Fprintln(c.a.stderr, "  note  Intel's TCB info goes by platform: name it with --intel FMSPC")
		}
		for _, generation := range p.Generations("amd") {
			c.common(ctx, endorse.AMDRefs(line(generation)))
		}
	}
	for _, name := range f.lines {
		if name == "" {
			return usageError("--amd needs a product line, such as genoa")
		}
		c.common(ctx, endorse.AMDRefs(line(name)))
	}
	for _, text := range f.fmspcs {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != 6 {
			return usageError("--intel %.40q is not 6 bytes in hex", text)
		}
		c.common(ctx, endorse.IntelRefs())
		c.common(ctx, endorse.IntelTCBRefs([6]byte(raw)))
	}
	for _, file := range f.evidence {
		raw, err := c.a.readFile(file)
		if err != nil {
			return err
		}
		if err := c.evidence(ctx, &attest.Evidence{Format: attest.Format(f.format), Raw: raw}); err != nil {
			return withSubject(err, file)
		}
	}
	for _, target := range targets {
		ev, err := c.a.evidenceOf(ctx, target)
		if err == nil {
			err = c.evidence(ctx, ev)
		}
		if err != nil {
			return withSubject(err, target)
		}
	}
	return nil
}

// line is a generation as AMD's service spells it.
func line(generation string) string {
	return strings.ToUpper(generation[:1]) + strings.ToLower(generation[1:])
}

// common fetches what a platform has in common. Not every platform has everything, SGX and TDX or VCEK and VLEK: what its
// vendor does not have is missed only where he has nothing at all.
func (c *collector) common(ctx context.Context, refs []attest.Ref) {
	before, had := len(c.missing), 0
	for _, ref := range refs {
		if _, err := c.Endorse(ctx, ref); err == nil {
			had++
		}
	}
	if had == 0 {
		return
	}
	kept := c.missing[:before]
	for _, m := range c.missing[before:] {
		if m.Code != attest.CodeEndorsementMissing {
			kept = append(kept, m)
		}
	}
	c.missing = kept
}

// evidence fetches what it takes to verify ev: the verifier asks for it. It is first given nothing that is stapled but roots,
// because it asks only for what it lacks; and then all of it, where something cannot be had elsewhere.
func (c *collector) evidence(ctx context.Context, ev *attest.Evidence) error {
	var roots []string
	if root, err := sim.RootOf(ev); err == nil {
		roots = append(roots, root)
	}
	bare := *ev
	bare.Endorsements = slices.DeleteFunc(slices.Clone(ev.Endorsements), func(e attest.Endorsement) bool {
		cert, err := x509.ParseCertificate(e.Raw)
		return err != nil || !bytes.Equal(cert.RawIssuer, cert.RawSubject)
	})
	before := len(c.missing)
	err := c.verify(ctx, &bare, roots)
	if err != nil {
		err = c.verify(ctx, ev, roots)
	}
	if !attest.CodeOf(err).Undecidable() {
		return err
	}
	if len(c.missing) == before {
		c.missing = append(c.missing, missing{Code: attest.CodeOf(err), Error: err.Error(), err: err})
	}
	return nil
}

func (c *collector) verify(ctx context.Context, ev *attest.Evidence, roots []string) error {
	for _, v := range judge.Trusting(c, nil, roots).Verifiers() {
		if _, err := v.Verify(ctx, ev, c, c.a.now()); !errors.Is(err, attest.ErrNotMine) {
			return err
		}
	}
	return &attest.Error{Code: attest.CodeUnknownFormat, Check: "authenticity.format", Got: fmt.Sprintf("%.40q", string(ev.Format))}
}

// evidenceOf takes the evidence out of a record or a live peer.
func (a *app) evidenceOf(ctx context.Context, source string) (*attest.Evidence, error) {
	var shown ratls.Presented
	if isRecord(source) {
		raw, err := a.readFile(source)
		if err != nil {
			return nil, err
		}
		rec, err := record.Decode(raw)
		if err != nil {
			return nil, err
		}
		if rec.Evidence != nil {
			return rec.Evidence, nil
		}
		shown = judge.Presented(rec)
	} else {
		var err error
		if shown.Chain, err = peek(ctx, source, defaultTimeout); err != nil {
			return nil, err
		}
	}
	content, err := ratls.OpenPresented(shown)
	if err != nil {
		return nil, err
	}
	return content.Evidence, nil
}

// endorseImport puts the entries of a bundle into the cache, where every command finds them.
func (a *app) endorseImport(args []string) error {
	fs := a.flags("endorse import BUNDLE [--cache DIR]")
	asJSON := fs.Bool("json", false, "write what was imported as JSON")
	var f endorserFlags
	f.registerCache(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("endorse import takes one BUNDLE")
	}
	dir := f.cacheDir()
	if dir == "" {
		return usageError("there is no cache directory here: say --cache DIR")
	}
	raw, err := a.readFile(rest[0])
	if err != nil {
		return err
	}
	bundle, err := endorse.DecodeBundle(raw)
	if err != nil {
		return withSubject(err, rest[0])
	}
	now, valid := a.now(), 0
	for _, e := range bundle.Entries {
		s := summary(e)
		mark := "ok   "
		if now.After(s.Expires) {
			mark = "old  "
		} else {
			valid++
		}
		fmt.Fprintf(a.stderr, "  %s %s%s: %s until %s\n", mark, printable(s.Service), printable(s.Path), s.Kind, s.Expires.Format(time.RFC3339))
	}
	if valid == 0 {
		return &attest.Error{Code: attest.CodeEndorsementExpired, Check: "endorsements", Subject: rest[0], Got: fmt.Sprintf("none valid among %d", len(bundle.Entries)), Hint: "export the bundle again where the vendors can be reached"}
	}
	taken, err := bundle.Import(dir, now)
	if err != nil {
		return err
	}
	if *asJSON {
		return writeJSON(a.stdout, map[string]any{"entries": summaries(taken)})
	}
	_, err = fmt.Fprintf(a.stdout, "ok: %d of %d entries imported into %s\n", len(taken), len(bundle.Entries), dir)
	return err
}
