package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
)

const defaultTimeout = 10 * time.Second

// relyingFlags are what every command of a relying party takes.
type relyingFlags struct {
	policy  string
	timeout time.Duration
	binding string
	endorserFlags
}

func (a *app) relyingFlags(fs *flag.FlagSet) *relyingFlags {
	f := new(relyingFlags)
	fs.StringVar(&f.policy, "policy", "", "appraisal policy `FILE`")
	fs.StringVar(&f.policy, "p", "", "short for --policy")
	fs.DurationVar(&f.timeout, "timeout", defaultTimeout, "time to connect and appraise")
	fs.StringVar(&f.binding, "unsafe-binding", "", unsafeBindingUsage)
	f.register(fs)
	return f
}

func (f *relyingFlags) load(a *app) (*relying, error) {
	if f.policy == "" {
		return nil, usageError("a policy is required: -p policy.yaml (jurat policy init TARGET makes a first one)")
	}
	if f.timeout <= 0 {
		return nil, usageError("--timeout %s leaves no time", f.timeout)
	}
	p, err := a.loadPolicy(f.policy)
	if err != nil {
		return nil, err
	}
	if p, err = a.tolerate(p, f.binding); err != nil {
		return nil, err
	}
	endorser, err := f.endorser(a)
	if err != nil {
		return nil, err
	}
	return &relying{policy: p, endorser: endorser, tpmRoots: endorser.tpm, now: a.now, timeout: f.timeout}, nil
}

const unsafeBindingUsage = "take evidence that is bound more weakly than the policy demands, down to this `LEVEL`: key, nonce or pinned; whoever has an accepted TEE's TLS key can then relay its evidence"

// tolerate lowers the least level of a policy, and says so.
func (a *app) tolerate(p *policy.Policy, level string) (*policy.Policy, error) {
	if level == "" {
		return p, nil
	}
	l, err := judge.UnsafeLevel(level)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.stderr, "jurat: UNSAFE: evidence bound at level %s is taken, where the policy says %s\n", l, p.Binding(a.now()))
	return p.UnsafeBinding(l), nil
}

func (a *app) loadPolicy(file string) (*policy.Policy, error) {
	raw, err := a.readFile(file)
	if err != nil {
		return nil, err
	}
	// A policy names files that lie beside it.
	return policy.Parse(file, raw, func(name string) ([]byte, error) {
		if name == "-" {
			return nil, usageError("a policy cannot name standard input")
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		return a.readFile(name)
	})
}

// maxFile bounds every file that a command reads.
const maxFile = 16 << 20

// readFile reads a file, or standard input for "-".
func (a *app) readFile(file string) ([]byte, error) {
	var r io.Reader = a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usageError("%w", err)
		}
		defer f.Close()
		r = f
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, usageError("%w", err)
	}
	if len(raw) > maxFile {
		return nil, &attest.Error{Code: attest.CodeOversized, Check: "file", Subject: file, Want: fmt.Sprintf("at most %d bytes", maxFile)}
	}
	return raw, nil
}

// relying is a relying party with one policy.
type relying struct {
	policy   *policy.Policy
	endorser attest.Endorser
	tpmRoots *tpm.Roots
	dialects *dialect.Reader // nil allows what is taken without a word
	now      func() time.Time
	timeout  time.Duration
}

func (r *relying) judge() judge.Party {
	return judge.Party{Policy: r.policy, Endorser: r.endorser, TPM: r.tpmRoots, Dialects: r.dialects}
}

func (r *relying) party(endorser attest.Endorser) *ratls.RelyingParty {
	return r.judge().Asking(endorser, r.now)
}

// appraisal is one peer, judged.
type appraisal struct {
	target string // "host:port"
	name   string // the name the peer had to attest
	shown  ratls.Presented
	result *attest.Result
	record *record.Record
}

// dial connects to a target and appraises it; the connection is closed before an application byte could move. An error
// means that nothing was there to appraise.
func (r *relying) dial(ctx context.Context, target string) (*appraisal, error) {
	return r.dialBy(ctx, target, func(c *ratls.Connector) *ratls.Connector { return c })
}

// dialCertificate is dial in the certificate tier, for whoever is going to connect with the certificate alone.
func (r *relying) dialCertificate(ctx context.Context, target string) (*appraisal, error) {
	return r.dialBy(ctx, target, (*ratls.Connector).CertificateOnly)
}

// dialSuccessor is dialCertificate for the leaf that the target is going to serve with next, or that of now where there is none.
func (r *relying) dialSuccessor(ctx context.Context, target string) (*appraisal, error) {
	return r.dialBy(ctx, target, (*ratls.Connector).Successor)
}

func (r *relying) dialBy(ctx context.Context, target string, tier func(*ratls.Connector) *ratls.Connector) (*appraisal, error) {
	addr, err := targetAddress(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	recorder := record.NewRecorder(r.endorser)
	ap := &appraisal{target: addr}
	ap.name, _, _ = net.SplitHostPort(addr)
	conn, err := tier(ratls.NewConnector(r.party(recorder), "h2", "http/1.1")).Dial(ctx, addr)
	var refusal *ratls.Refusal
	switch {
	case err == nil:
		ap.result, ap.shown = conn.Result(), conn.Presented()
		_ = conn.Close()
	case errors.As(err, &refusal):
		ap.result, ap.shown = refusal.Result, refusal.Presented
	default:
		return nil, withSubject(err, addr)
	}
	ap.record = &record.Record{Time: ap.result.Time(), Target: addr, ServerName: ap.name, Fetched: recorder.Fetched()}
	keepPresented(ap.record, ap.shown)
	return ap, nil
}

// keepPresented puts what a peer presented into a record; judge.Presented takes it out again.
func keepPresented(rec *record.Record, p ratls.Presented) {
	rec.Chain = p.Chain
	if s := p.Session; s != nil {
		rec.Session = &record.Session{Profile: string(s.Profile), Suite: s.Suite, Challenge: s.Challenge, Exporter: s.Exporter, Attestation: s.Attestation, Asked: s.Asked}
	}
}

// replay appraises a recorded chain at a time, with the endorsements of that day.
func (r *relying) replay(ctx context.Context, rec *record.Record, at time.Time) *appraisal {
	shown, result := r.judge().Chain(ctx, rec, at)
	return &appraisal{target: rec.Target, name: rec.ServerName, shown: shown, result: result, record: rec}
}

// targetAddress makes "host:port" of HOST, HOST:PORT or an https URL.
func targetAddress(target string) (string, error) {
	bad := func(want string) error {
		return &attest.Error{Code: attest.CodeUsage, Check: "usage", Got: fmt.Sprintf("target %.100q", target), Want: want}
	}
	host := target
	if strings.Contains(target, "://") {
		u, err := url.Parse(target)
		if err != nil || u.Host == "" {
			return "", bad("HOST[:PORT] or https://HOST[:PORT]")
		}
		if u.Scheme != "https" {
			return "", bad("https: nothing else is attested")
		}
		host = u.Host
	}
	if h, port, err := net.SplitHostPort(host); err == nil {
		if h == "" || port == "" {
			return "", bad("HOST:PORT")
		}
		return net.JoinHostPort(h, port), nil
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" || strings.ContainsAny(host, "/ ") || strings.Count(host, ":") == 1 {
		return "", bad("HOST[:PORT]")
	}
	return net.JoinHostPort(host, "443"), nil
}

// withSubject says whom an error concerns.
func withSubject(err error, subject string) error {
	var coded *attest.Error
	if errors.As(err, &coded) && coded.Subject == "" {
		named := *coded
		named.Subject = subject
		return &named
	}
	return err
}

func (a *app) warnSimulated(r *attest.Result, target string) {
	if c := r.Claims(); c != nil && c.Simulated {
		fmt.Fprintf(a.stderr, "jurat: SIMULATED: %s proves nothing about hardware\n", printable(target))
	}
}
