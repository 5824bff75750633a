package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls"
)

// policy dispatches the subcommands about policies.
func (a *app) policy(ctx context.Context, args []string) error {
	const known = "init TARGET, check FILE, explain FILE, lint FILE, test FILE EVIDENCE..., diff OLD NEW EVIDENCE..., schema"
	if len(args) == 0 {
		return usageError("policy needs a subcommand: %s", known)
	}
	rest := args[1:]
	switch args[0] {
	case "init":
		return a.policyInit(ctx, rest)
	case "check":
		return a.policyCheck(rest)
	case "explain":
		return a.policyExplain(rest)
	case "lint":
		return a.policyLint(rest)
	case "test":
		return a.policyTest(ctx, rest)
	case "diff":
		return a.policyDiff(ctx, rest)
	case "schema":
		_, err := a.stdout.Write(policy.Schema())
		return err
	case "-h", "-help", "--help":
		_, err := fmt.Fprintf(a.stdout, "Usage: jurat policy %s\n", known)
		return err
	}
	return usageError("policy %.40q is not known; there are: %s", args[0], known)
}

// policyInit proposes a policy that accepts what a target shows now. It prints what the reader is about to trust, and
// asks nothing: the policy is a file to read and edit.
func (a *app) policyInit(ctx context.Context, args []string) error {
	fs := a.flags("policy init TARGET | F.jurat > policy.yaml")
	asJSON := fs.Bool("json", false, "write the claims and the policy as JSON")
	var ef endorserFlags
	ef.register(fs)
	timeout := fs.Duration("timeout", defaultTimeout, "time to connect and verify")
	name := fs.String("name", "", "`name` of the policy (default: the host)")
	binding := fs.String("binding", "", "least `LEVEL` of the policy (default: what the target reaches); key is what exec and pin can give to programs that know nothing of attestation")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("policy init takes one TARGET or F.jurat")
	}
	source, err := ef.endorser(a)
	if err != nil {
		return err
	}
	var endorser attest.Endorser = source
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	now := a.now()
	var shown ratls.Presented
	var addr, host string
	var whom ratls.Peer
	if isRecord(rest[0]) {
		raw, err := a.readFile(rest[0])
		if err != nil {
			return err
		}
		rec, err := record.Decode(raw)
		if err != nil {
			return withSubject(err, rest[0])
		}
		if len(rec.Chain) == 0 {
			return usageError("%s holds bare evidence, which is bound to no peer; a policy is made from a peer", rest[0])
		}
		shown, host, now, endorser, whom = judge.Presented(rec), rec.ServerName, rec.Time, judge.Recorded(rec, source), judge.PeerOf(rec)
	} else {
		if addr, err = targetAddress(rest[0]); err != nil {
			return err
		}
		host, _, _ = net.SplitHostPort(addr)
		if shown.Chain, err = ratls.Peek(ctx, addr); err != nil {
			return withSubject(err, addr)
		}
	}
	content, err := ratls.OpenPresented(shown)
	if err != nil {
		return withSubject(err, rest[0])
	}
	var roots []string
	switch root, err := sim.RootOf(content.Evidence); {
	case err == nil:
		roots = append(roots, root)
	case !errors.Is(err, attest.ErrNotMine):
		return withSubject(err, rest[0])
	}
	// The zero policy refuses everything, after the evidence was found authentic and bound: those are the claims to show.
	appraiser := attest.NewAppraiser(endorser, judge.Trusting(endorser, source.tpm, roots).Verifiers()...)
	party := ratls.NewRelyingParty(appraiser, new(policy.Policy), func() time.Time { return now })
	var result *attest.Result
	if addr == "" {
		result = party.AppraisePresented(ctx, shown, whom)
	} else if result, err = meet(ctx, party, addr); err != nil {
		return withSubject(err, addr)
	}
	if result.Code() != attest.CodeEmptyPolicy {
		return withSubject(result.Err(), rest[0])
	}
	if *name == "" {
		*name = host
	}
	if *name == "" {
		*name = "a client"
	}
	level := result.Level()
	if *binding != "" {
		if wish := attest.Level(*binding); !wish.Valid() || !level.AtLeast(wish) {
			return usageError("--binding %.40q is no level that %s reaches, which is %s", *binding, rest[0], level)
		}
		level = attest.Level(*binding)
	}
	claims := result.Claims()
	text, err := policy.Propose(claims, level, *name)
	if err != nil {
		return err
	}
	if *asJSON {
		return writeJSON(a.stdout, map[string]any{"target": rest[0], "claims": claims, "binding": level, "policy": string(text)})
	}
	a.trusting(rest[0], claims)
	_, err = a.stdout.Write(text)
	return err
}

// meet appraises a target that the party's policy is sure to refuse, in the best tier that it speaks.
func meet(ctx context.Context, party *ratls.RelyingParty, addr string) (*attest.Result, error) {
	conn, err := ratls.NewConnector(party, "h2", "http/1.1").Dial(ctx, addr)
	if err == nil {
		return conn.Result(), conn.Close()
	}
	var refusal *ratls.Refusal
	if !errors.As(err, &refusal) {
		return nil, err
	}
	return refusal.Result, nil
}

// trusting says what a proposed policy would trust.
func (a *app) trusting(target string, c *attest.Claims) {
	mark := ""
	if c.Simulated {
		mark = "SIMULATED "
	}
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.stderr, "%s  %-12s %s\n", mark, name, printable(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(a.stderr, "%syou are about to trust what %s shows now:\n", mark, printable(target))
	row("platform", "%s, vendor %s, generation %s", c.Product, c.Vendor, c.Generation)
	row("root", "%s", c.Root)
	row("firmware", "%v", c.TCB)
	row("measurement", "%s", c.Measured["launch"])
	row("debug", "%s", c.Debug)
	if len(c.Provenance.ChipID) > 0 {
		row("chip", "%s", c.Provenance.ChipID)
	}
	if c.Debug == attest.On {
		row("note", "debugging is on, and the proposed policy refuses that")
	}
	if c.Simulated {
		row("note", "this proves nothing about hardware; use it to rehearse")
	}
	row("next", "check the measurement against your own build before you rely on it")
}

func (a *app) policyCheck(args []string) error {
	fs := a.flags("policy check FILE [--floor FILE] [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	floorFile := fs.String("floor", "", "a policy `FILE` that this one has to be at least as strict as")
	p, err := a.onePolicy(fs, args)
	if err != nil {
		return err
	}
	var looser []string
	if *floorFile != "" {
		floor, err := a.loadPolicy(*floorFile)
		if err != nil {
			return err
		}
		looser = p.Looser(floor)
	}
	if *asJSON {
		if err := writeJSON(a.stdout, map[string]any{"policy": p.Name(), "id": p.ID(), "binding": p.Binding(a.now()), "looser": append([]string{}, looser...)}); err != nil {
			return err
		}
	} else if len(looser) == 0 {
		fmt.Fprintf(a.stdout, "ok: policy %s, %s\n", printable(p.Name()), p.ID())
	}
	if len(looser) == 0 {
		return nil
	}
	if !*asJSON {
		fmt.Fprintf(a.stderr, "jurat: %s is not at least as strict as %s, as far as can be told (%s):\n", p.File(), *floorFile, attest.CodePolicyLooser)
		for _, l := range looser {
			fmt.Fprintf(a.stderr, "  %s\n", printable(l))
		}
	}
	return exitError(attest.CodePolicyLooser.Exit())
}

func (a *app) policyExplain(args []string) error {
	fs := a.flags("policy explain FILE [--at TIME] [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	at := fs.String("at", "", "as the policy stands at this `TIME`")
	p, err := a.onePolicy(fs, args)
	if err != nil {
		return err
	}
	now, err := a.parseTime(*at, a.now())
	if err != nil {
		return err
	}
	text := p.Explain(now)
	if *asJSON {
		return writeJSON(a.stdout, map[string]any{"policy": p.Name(), "id": p.ID(), "sentences": strings.Split(strings.TrimSpace(text), "\n")})
	}
	_, err = fmt.Fprint(a.stdout, text)
	return err
}

func (a *app) policyLint(args []string) error {
	fs := a.flags("policy lint FILE [--published FILE]... [--at TIME] [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	at := fs.String("at", "", "judge rules with a time at this `TIME`")
	var published list
	fs.Var(&published, "published", "newest TCB levels that a vendor publishes, YAML `FILE`; repeat for more")
	p, err := a.onePolicy(fs, args)
	if err != nil {
		return err
	}
	now, err := a.parseTime(*at, a.now())
	if err != nil {
		return err
	}
	var levels []policy.Published
	for _, file := range published {
		raw, err := a.readFile(file)
		if err != nil {
			return err
		}
		some, err := policy.ParsePublished(file, raw)
		if err != nil {
			return err
		}
		levels = append(levels, some...)
	}
	findings := p.Lint(now, levels)
	if *asJSON {
		if err := writeJSON(a.stdout, append([]policy.Finding{}, findings...)); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			fmt.Fprintf(a.stdout, "%s:%d: %s: %s\n", p.File(), f.Line, f.Rule, printable(f.Text))
		}
		if len(findings) == 0 {
			fmt.Fprintln(a.stdout, "ok: nothing found")
		}
	}
	for _, f := range findings {
		if f.Rule != "loose" && f.Rule != "shadow" { // those two may well be meant
			return exitError(attest.CodeConfigValue.Exit())
		}
	}
	return nil
}

func (a *app) onePolicy(fs *flag.FlagSet, args []string) (*policy.Policy, error) {
	rest, err := a.parse(fs, args)
	if err != nil {
		return nil, err
	}
	if len(rest) != 1 {
		return nil, usageError("this takes one policy FILE")
	}
	return a.loadPolicy(rest[0])
}
