package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/evlog"
	"github.com/jurat-tls/jurat/attest/record"
)

// evidenceLog dispatches the subcommands about logs of evidence.
func (a *app) evidenceLog(_ context.Context, args []string) error {
	const known = "check DIR, head DIR, list DIR, prove DIR INDEX, proof FILE"
	if len(args) == 0 {
		return usageError("log needs a subcommand: %s", known)
	}
	rest := args[1:]
	switch args[0] {
	case "check":
		return a.logCheck(rest)
	case "head":
		return a.logHead(rest)
	case "list":
		return a.logList(rest)
	case "prove":
		return a.logProve(rest)
	case "proof":
		return a.logProof(rest)
	}
	return usageError("log %.40q is not known; there are: %s", args[0], known)
}

// trustFlags say whose log an auditor accepts.
type trustFlags struct {
	keys, seen list
	anybody    bool
}

func (f *trustFlags) register(fs *flag.FlagSet) {
	fs.Var(&f.keys, "key", "`sha256:…` of the public key that signs the log; repeat for more")
	fs.Var(&f.seen, "seen", "`FILE` with a head that was seen before (jurat log head); repeat for more")
	fs.BoolVar(&f.anybody, "unsafe-any-key", false, "accept a log by whomever: it is then only consistent with itself")
}

func (f *trustFlags) trust(a *app) (evlog.Trust, error) {
	trust := evlog.TrustKeys(f.keys...)
	switch {
	case f.anybody && len(f.keys) > 0:
		return trust, usageError("--key and --unsafe-any-key exclude one another")
	case f.anybody:
		trust = evlog.UnsafeTrustAnybody()
	case len(f.keys) == 0:
		return trust, usageError("whose log this should be has to be said: --key sha256:… (jurat log head shows the key that signed it), or --unsafe-any-key")
	}
	for _, file := range f.seen {
		raw, err := a.readFile(file)
		if err != nil {
			return trust, err
		}
		h, err := evlog.ParseHead(raw)
		if err != nil {
			return trust, &attest.Error{Code: attest.CodeLogBroken, Check: "log", Subject: file, Err: err}
		}
		trust = trust.WithSeen(*h)
	}
	return trust, nil
}

func (a *app) audit(fs *flag.FlagSet, args []string, more int) (*evlog.Audit, []string, error) {
	var tf trustFlags
	tf.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return nil, nil, err
	}
	if len(rest) != 1+more {
		return nil, nil, usageError("this takes %d arguments: jurat %s", 1+more, fs.Name())
	}
	trust, err := tf.trust(a)
	if err != nil {
		return nil, nil, err
	}
	audit, err := evlog.Check(rest[0], trust)
	return audit, rest, err
}

func (a *app) logCheck(args []string) error {
	fs := a.flags("log check DIR --key sha256:… [--seen HEAD.json]... [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	audit, rest, err := a.audit(fs, args, 0)
	if err != nil {
		return err
	}
	if *asJSON {
		return writeJSON(a.stdout, map[string]any{"size": audit.Head.Size, "heads": audit.Heads, "kept": audit.Kept, "unsigned": audit.Unsigned, "head": audit.Head})
	}
	_, err = fmt.Fprintf(a.stdout, "ok: %s: %d records, %d of them kept, %d heads, the last of %s by %s\n",
		rest[0], audit.Head.Size, audit.Kept, audit.Heads, audit.Head.Time.Format(time.RFC3339), audit.Head.KeyID())
	return err
}

func (a *app) logHead(args []string) error {
	fs := a.flags("log head DIR")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("log head takes one DIR")
	}
	audit, err := evlog.Check(rest[0], evlog.UnsafeTrustAnybody())
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "jurat: signed by %s: keep this head where the log's owner cannot change it\n", audit.Head.KeyID())
	return writeJSON(a.stdout, audit.Head)
}

func (a *app) logList(args []string) error {
	fs := a.flags("log list DIR --key sha256:… [--since 7d] [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	since := fs.String("since", "", "only records of this last `TIME`, such as 24h or 7d")
	audit, _, err := a.audit(fs, args, 0)
	if err != nil {
		return err
	}
	from, err := a.sinceTime(*since)
	if err != nil {
		return err
	}
	type row struct {
		Index  uint64    `json:"index"`
		Time   time.Time `json:"time"`
		Target string    `json:"target"`
		Bytes  int       `json:"bytes"`
	}
	rows := []row{}
	for e, err := range audit.Entries(from) {
		if err != nil {
			return err
		}
		target := "?"
		if rec, err := record.Decode(e.Record); err == nil {
			target = rec.Target
		}
		rows = append(rows, row{e.Index, e.Time, target, len(e.Record)})
	}
	if *asJSON {
		return writeJSON(a.stdout, rows)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "INDEX\tTIME\tTARGET\tBYTES")
	for _, r := range rows {
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\n", r.Index, r.Time.Format(time.RFC3339), printable(r.Target), r.Bytes)
	}
	return w.Flush()
}

// sinceTime is the beginning of the last stretch of time that s names; empty: of all.
func (a *app) sinceTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(s)
	if n := len(s) - 1; s[n] == 'd' {
		var days int
		days, err = strconv.Atoi(s[:n])
		d = time.Duration(days) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return time.Time{}, usageError("--since %.40q is no length of time such as 24h or 7d", s)
	}
	return a.now().Add(-d), nil
}

func (a *app) logProve(args []string) error {
	fs := a.flags("log prove DIR INDEX --key sha256:…")
	audit, rest, err := a.audit(fs, args, 1)
	if err != nil {
		return err
	}
	index, err := strconv.ParseUint(rest[1], 10, 64)
	if err != nil {
		return usageError("index %.40q is no whole number", rest[1])
	}
	proof, err := audit.Prove(index)
	if err != nil {
		return err
	}
	return writeJSON(a.stdout, proof)
}

func (a *app) logProof(args []string) error {
	fs := a.flags("log proof FILE --key sha256:… [--out F.jurat]")
	var tf trustFlags
	tf.register(fs)
	out := fs.String("out", "", "write the proven record to this `FILE`")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("log proof takes one FILE")
	}
	trust, err := tf.trust(a)
	if err != nil {
		return err
	}
	raw, err := a.readFile(rest[0])
	if err != nil {
		return err
	}
	p, err := evlog.ParseProof(raw, trust)
	if err != nil {
		return withSubject(err, rest[0])
	}
	if *out != "" {
		if err := writeFile(*out, p.Record); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.stdout, "ok: record %d of %d, logged %s, head of %s by %s\n",
		p.Index, p.Head.Size, p.Time.Format(time.RFC3339), p.Head.Time.Format(time.RFC3339), p.Head.KeyID())
	return err
}

// logFlags say where records of appraisals are kept.
type logFlags struct{ dir, key string }

func (f *logFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.dir, "log-dir", "", "keep a record of every peer that is appraised in the evidence log in this `directory`")
	fs.StringVar(&f.key, "log-key", "", "private key that signs the log, PKCS #8 PEM `FILE` (default: one in memory, new at every start)")
}

func (f *logFlags) check() error {
	if f.dir == "" && f.key != "" {
		return usageError("--log-key needs --log-dir")
	}
	return nil
}

// open opens the log that the flags name; nil when they name none.
func (f *logFlags) open(a *app) (*evlog.Log, error) {
	if f.dir == "" {
		return nil, nil
	}
	var signer crypto.Signer
	var err error
	if f.key == "" {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		signer, err = a.readKey(f.key)
	}
	if err != nil {
		return nil, err
	}
	return evlog.Open(f.dir, signer, evlog.DefaultLimits, a.now)
}

// readKey reads a private key that signs.
func (a *app) readKey(file string) (crypto.Signer, error) {
	raw, err := a.readFile(file)
	if err != nil {
		return nil, err
	}
	bad := func(err error) error {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "key", Subject: file, Want: "a private key of P-256, P-384 or Ed25519 as PKCS #8 in PEM", Err: err}
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, bad(nil)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, bad(err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, bad(nil)
}
