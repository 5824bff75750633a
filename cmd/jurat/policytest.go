package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/evlog"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls"
)

// judged is one piece of recorded evidence under one or two policies.
type judged struct {
	file, target string
	results      []*attest.Result // one for each policy
}

// judge appraises recorded evidence under the first policy and judges it again under the others. Each is judged at the
// time it was recorded, or at the one given.
func (a *app) judge(ctx context.Context, from evidenceFlags, paths []string, policies ...*policy.Policy) ([]judged, error) {
	files, err := a.recordings(from, paths)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, p := range policies {
		roots = append(roots, p.SimulationRoots()...)
	}
	operator, err := from.endorsers.endorser(a)
	if err != nil {
		return nil, err
	}
	vs := judge.Trusting(operator, operator.tpm, roots).Verifiers()
	out := make([]judged, len(files))
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		wg.Go(func() {
			for i := range next {
				out[i], errs[i] = a.judgeOne(ctx, files[i], from.at, operator, vs, policies)
			}
		})
	}
	for i := range files {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// recordedPeer is one record, in a file or in a log.
type recordedPeer struct {
	name string
	raw  []byte // nil: in the file of that name
}

// evidenceFlags say which recorded evidence a policy is tried on, and at which time.
type evidenceFlags struct {
	at, log, since string
	trust          trustFlags
	endorsers      endorserFlags
}

func (f *evidenceFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.at, "at", "", "judge all at this `TIME` (default: each at the time it was recorded; or now)")
	fs.StringVar(&f.log, "log", "", "evidence log in this `directory`, beside or in place of EVIDENCE")
	fs.StringVar(&f.since, "since", "", "only what the log recorded in this last `TIME`, such as 24h or 7d")
	f.trust.register(fs)
	f.endorsers.offline = true // records hold what was fetched
	fs.Var(&f.endorsers.files, "endorsements", "`FILE|DIR` whose public keys are trust anchors; repeat for more")
	fs.Var(&f.endorsers.tpm, "tpm-root", "certificate of an authority that certifies keys of TPMs, DER or PEM `FILE`; repeat for more")
}

func (a *app) recordings(f evidenceFlags, paths []string) ([]recordedPeer, error) {
	files, err := recordFiles(paths)
	if err != nil {
		return nil, err
	}
	var all []recordedPeer
	for _, file := range files {
		all = append(all, recordedPeer{name: file})
	}
	if f.log == "" {
		return all, nil
	}
	trust, err := f.trust.trust(a)
	if err != nil {
		return nil, err
	}
	audit, err := evlog.Check(f.log, trust)
	if err != nil {
		return nil, err
	}
	since, err := a.sinceTime(f.since)
	if err != nil {
		return nil, err
	}
	for e, err := range audit.Entries(since) {
		if err != nil {
			return nil, err
		}
		all = append(all, recordedPeer{fmt.Sprintf("%s#%d", f.log, e.Index), e.Record})
	}
	if len(all) == 0 {
		return nil, usageError("%s recorded nothing in that time: no verdict over nothing is a pass; widen --since", f.log)
	}
	return all, nil
}

func (a *app) judgeOne(ctx context.Context, from recordedPeer, at string, operator attest.Endorser, vs []attest.Verifier, policies []*policy.Policy) (judged, error) {
	file, raw := from.name, from.raw
	if raw == nil {
		var err error
		if raw, err = a.readFile(file); err != nil {
			return judged{}, err
		}
	}
	rec, err := record.Decode(raw)
	if err != nil {
		return judged{}, withSubject(err, file)
	}
	now, err := a.parseTime(at, rec.Time)
	if err != nil {
		return judged{}, err
	}
	out := judged{file: file, target: rec.Target}
	appraiser := attest.NewAppraiser(judge.Recorded(rec, operator), vs...)
	var first *attest.Result
	if len(rec.Chain) > 0 {
		first = ratls.NewRelyingParty(appraiser, policies[0], func() time.Time { return now }).AppraisePresented(ctx, judge.Presented(rec), judge.PeerOf(rec))
	} else {
		first = appraiser.Appraise(ctx, rec.Evidence, attest.UnsafeExpectAnything(), policies[0], now)
	}
	out.results = append(out.results, first)
	for _, p := range policies[1:] {
		out.results = append(out.results, first.Rejudge(p, now))
	}
	return out, nil
}

// recordFiles lists the records among files and directories, which are looked through to the bottom.
func recordFiles(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, usageError("%v", err)
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		before := len(files)
		err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(name, ".jurat") {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			return nil, usageError("%v", err)
		}
		if len(files) == before {
			return nil, usageError("%s holds no .jurat records", path)
		}
	}
	return files, nil
}

// outcome is a verdict in a table or in JSON.
type outcome struct {
	Verdict string      `json:"verdict"`
	Code    attest.Code `json:"code,omitempty"`
	Line    int         `json:"line,omitempty"`
	Why     string      `json:"why,omitempty"`
}

func outcomeOf(r *attest.Result) outcome {
	o := outcome{Verdict: r.Verdict().String(), Code: r.Code(), Line: r.Line()}
	if err := r.Err(); err != nil {
		o.Why = strings.TrimSuffix(err.Error(), fmt.Sprintf(" (%s)", o.Code))
	}
	return o
}

func (o outcome) String() string {
	if o.Code == "" {
		return o.Verdict
	}
	return o.Verdict + " " + string(o.Code)
}

func platformOf(r *attest.Result) string {
	c := r.Claims()
	if c == nil {
		return "-"
	}
	return strings.Join(slices.DeleteFunc([]string{c.Vendor, c.TEE, c.Generation, c.Stepping}, func(s string) bool { return s == "" }), " ")
}

// policyTest judges recorded evidence and prints a table. Its exit code is that of the worst verdict.
func (a *app) policyTest(ctx context.Context, args []string) error {
	fset := a.flags("policy test FILE EVIDENCE... [--log DIR --key sha256:… --since 7d] [--at TIME] [--json]")
	asJSON := fset.Bool("json", false, "write JSON")
	var from evidenceFlags
	from.register(fset)
	rest, err := a.parse(fset, args)
	if err != nil {
		return err
	}
	if len(rest) < 2 && (from.log == "" || len(rest) < 1) {
		return usageError("policy test takes a policy FILE and EVIDENCE: .jurat records or directories of them")
	}
	p, err := a.loadPolicy(rest[0])
	if err != nil {
		return err
	}
	all, err := a.judge(ctx, from, rest[1:], p)
	if err != nil {
		return err
	}
	worst := attest.Affirmed
	type row struct {
		File     string `json:"file"`
		Target   string `json:"target"`
		Platform string `json:"platform"`
		outcome
	}
	rows := []row{}
	for _, j := range all {
		r := j.results[0]
		worst = min(worst, r.Verdict())
		rows = append(rows, row{j.file, j.target, platformOf(r), outcomeOf(r)})
	}
	if *asJSON {
		if err := writeJSON(a.stdout, rows); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "VERDICT\tTARGET\tPLATFORM\tWHY")
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.outcome, printable(r.Target), printable(r.Platform), printable(r.Why))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return verdictExit(worst)
}

func verdictExit(v attest.Verdict) error {
	switch v {
	case attest.Affirmed:
		return nil
	case attest.Undecided:
		return exitError(attest.CodeEndorsementMissing.Exit())
	}
	return exitError(attest.CodePlatformNotAllowed.Exit())
}

// policyDiff tells whose verdict changes from one policy to another, and why.
func (a *app) policyDiff(ctx context.Context, args []string) error {
	fset := a.flags("policy diff OLD NEW EVIDENCE... [--log DIR --key sha256:… --since 7d] [--at TIME] [--json] [--exit-code]")
	asJSON := fset.Bool("json", false, "write JSON")
	var from evidenceFlags
	from.register(fset)
	exitCode := fset.Bool("exit-code", false, "exit with 6 when a verdict changes")
	rest, err := a.parse(fset, args)
	if err != nil {
		return err
	}
	if len(rest) < 3 && (from.log == "" || len(rest) < 2) {
		return usageError("policy diff takes two policy FILEs and EVIDENCE: .jurat records or directories of them")
	}
	before, err := a.loadPolicy(rest[0])
	if err != nil {
		return err
	}
	after, err := a.loadPolicy(rest[1])
	if err != nil {
		return err
	}
	all, err := a.judge(ctx, from, rest[2:], before, after)
	if err != nil {
		return err
	}
	type change struct {
		File     string  `json:"file"`
		Target   string  `json:"target"`
		Platform string  `json:"platform"`
		Old      outcome `json:"old"`
		New      outcome `json:"new"`
	}
	changes := []change{}
	for _, j := range all {
		old, now := outcomeOf(j.results[0]), outcomeOf(j.results[1])
		if old.Verdict != now.Verdict || old.Code != now.Code {
			changes = append(changes, change{j.file, j.target, platformOf(j.results[1]), old, now})
		}
	}
	if *asJSON {
		err = writeJSON(a.stdout, map[string]any{"evidence": len(all), "changes": changes})
	} else {
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		if len(changes) > 0 {
			fmt.Fprintln(w, "TARGET\tPLATFORM\tOLD\tNEW\tWHY")
		}
		for _, c := range changes {
			why := c.New.Why
			if why == "" {
				why = "was: " + c.Old.Why
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(c.Target), printable(c.Platform), c.Old, c.New, printable(why))
		}
		if err = w.Flush(); err == nil {
			_, err = fmt.Fprintf(a.stdout, "%d of %d verdicts change\n", len(changes), len(all))
		}
	}
	if err == nil && *exitCode && len(changes) > 0 {
		err = exitError(attest.CodePlatformNotAllowed.Exit())
	}
	return err
}
