package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

// policy dispatches the subcommands about policies.
func (a *app) policy(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError("policy needs a subcommand: init TARGET, check FILE, explain FILE")
	}
	switch args[0] {
	case "init":
		return a.policyInit(ctx, args[1:])
	case "check":
		return a.policyCheck(args[1:])
	case "explain":
		return a.policyExplain(args[1:])
	case "-h", "-help", "--help":
		_, err := fmt.Fprintln(a.stdout, "Usage: jurat policy init TARGET | check FILE | explain FILE")
		return err
	}
	return usageError("policy %.40q is not known; it is init, check or explain", args[0])
}

// policyInit proposes a policy that accepts what a target shows now. It prints what the reader is about to trust, and
// asks nothing: the policy is a file to read and edit.
func (a *app) policyInit(ctx context.Context, args []string) error {
	fs := a.flags("policy init TARGET | F.jurat > policy.yaml")
	var ef endorserFlags
	ef.register(fs)
	timeout := fs.Duration("timeout", defaultTimeout, "time to connect and verify")
	name := fs.String("name", "", "`name` of the policy (default: the host)")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("policy init takes one TARGET or F.jurat")
	}
	endorser, err := ef.endorser()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	now := a.now()
	var chain [][]byte
	var host string
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
		chain, host, now, endorser = rec.Chain, rec.ServerName, rec.Time, rec.Endorser()
	} else {
		addr, err := targetAddress(rest[0])
		if err != nil {
			return err
		}
		host, _, _ = net.SplitHostPort(addr)
		if chain, err = ratls.Peek(ctx, addr); err != nil {
			return withSubject(err, addr)
		}
	}
	content, err := ratls.Open(chain)
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
	appraiser := attest.NewAppraiser(endorser, verifiers(roots)...)
	party := ratls.NewRelyingParty(appraiser, new(policy.Policy), func() time.Time { return now })
	result := party.Appraise(ctx, chain, ratls.Server(host))
	if result.Code() != attest.CodeEmptyPolicy {
		return withSubject(result.Err(), rest[0])
	}
	if *name == "" {
		*name = host
	}
	claims := result.Claims()
	text, err := policy.Propose(claims, result.Level(), *name)
	if err != nil {
		return err
	}
	a.trusting(rest[0], claims)
	_, err = a.stdout.Write(text)
	return err
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
	fs := a.flags("policy check FILE [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	p, err := a.onePolicy(fs, args)
	if err != nil {
		return err
	}
	if *asJSON {
		return writeJSON(a.stdout, map[string]any{"policy": p.Name(), "id": p.ID(), "binding": p.Binding()})
	}
	_, err = fmt.Fprintf(a.stdout, "ok: policy %s, %s\n", printable(p.Name()), p.ID())
	return err
}

func (a *app) policyExplain(args []string) error {
	fs := a.flags("policy explain FILE")
	p, err := a.onePolicy(fs, args)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.stdout, p.Explain())
	return err
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
