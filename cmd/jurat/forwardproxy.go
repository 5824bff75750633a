package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"flag"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/ratls"
)

// forwardProxyFlags make forward a proxy whose clients say where they want to go.
type forwardProxyFlags struct {
	proxy       bool
	allow       targets
	credentials string
}

func (f *forwardProxyFlags) register(fs *flag.FlagSet) {
	fs.BoolVar(&f.proxy, "proxy", false, "be a proxy for HTTP CONNECT and SOCKS5 instead of one for a TARGET")
	fs.Var(&f.allow, "allow", allowUsage)
	fs.StringVar(&f.credentials, "credentials", "", "`FILE` with the USER:PASSWORD that clients of --proxy have to say")
}

// check finds flags that don't go together.
func (f *forwardProxyFlags) check() error {
	switch {
	case !f.proxy && (len(f.allow) > 0 || f.credentials != ""):
		return usageError("--allow and --credentials are for --proxy")
	case f.proxy && len(f.allow) == 0:
		return usageError("--proxy needs --allow HOST[:PORT] for what the policy is meant for; --allow '*' if that is any host at all")
	}
	return nil
}

// forwardProxy is a plain listener whose clients say where they want to go. It has a place in the measured configuration.
type forwardProxy struct {
	Address  string        `json:"address"`
	Allow    []string      `json:"allow"`    // patterns of the targets that Policy is meant for
	Policy   string        `json:"policy"`   // its id
	Reattest time.Duration `json:"reattest"` // how often peers have to attest anew; 0 for half of the policy's freshness.evidence
	Guarded  bool          `json:"guarded"`  // clients have to say a password

	file    string // of the policy
	require *policy.Policy
	allowed targets
	users   connect.Authenticate // nil where it is not Guarded
}

func (f *forwardProxyFlags) forwardProxy(a *app, out upstreamConfig) (*forwardProxy, error) {
	p := &forwardProxy{Address: out.Listen, Reattest: out.Reattest, Guarded: f.credentials != "", file: out.Require, allowed: f.allow}
	for _, t := range f.allow {
		p.Allow = append(p.Allow, t.text)
	}
	if !p.Guarded {
		return p, nil
	}
	raw, err := a.readFile(f.credentials)
	if err != nil {
		return nil, err
	}
	p.users, err = oneUser(f.credentials, raw)
	return p, err
}

// complete reads the policy, and checks the rest. place turns the place of a value into what is told.
func (f *forwardProxy) complete(a *app, binding string, place func(error) error) error {
	if err := config.CheckAddress(f.Address); err != nil {
		return place(withSubject(err, "forward.address"))
	}
	p, err := a.loadPolicy(f.file)
	if err != nil {
		return err
	}
	if f.require, err = a.tolerate(p, binding); err != nil {
		return err
	}
	f.Policy = f.require.ID()
	switch most := longestReattest(f.require); {
	case f.Reattest != 0 && f.Reattest < config.MinReattest:
		return place(badValue("forward.reattest", f.Reattest.String(), "at least "+config.MinReattest.String()))
	case f.Reattest > most:
		return place(badValue("forward.reattest", f.Reattest.String(), "at most "+most.String()+", half of the policy's freshness.evidence"))
	}
	return nil
}

// oneUser lets in whoever says what raw does: USER:PASSWORD in one line.
func oneUser(file string, raw []byte) (connect.Authenticate, error) {
	line := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	user, password, ok := strings.Cut(line, ":")
	if !ok || user == "" || password == "" || len(user) > 255 || len(password) > 255 || strings.ContainsAny(line, "\r\n\x00") {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "credentials", Subject: file, Want: "one line, USER:PASSWORD, of at most 255 bytes each"}
	}
	// Hashes have one length, whatever was said.
	wantUser, wantPassword := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(password))
	return func(user, password string) bool {
		gotUser, gotPassword := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(password))
		return subtle.ConstantTimeCompare(gotUser[:], wantUser[:])&subtle.ConstantTimeCompare(gotPassword[:], wantPassword[:]) == 1
	}, nil
}

// server is what carries the connections; it has no listener yet.
func (f *forwardProxy) server(a *app, engine *proxy.Engine, id *ratls.Identity, endorser attest.Endorser, records *recorder, sc sessionConfig, log *slog.Logger) running {
	dialers := dialers{make: func(target string) proxy.Dial {
		out := &outbound{Target: target, Reattest: f.Reattest, require: f.require}
		return out.dialer(a, id, endorser, records, sc, log)
	}}
	s := proxy.NewForwardFor(engine, f.users, func(ctx context.Context, target string) (proxy.Conn, error) {
		if err := f.allowed.check(target); err != nil {
			return nil, err
		}
		return dialers.get(target)(ctx)
	}, log, proxy.Limits{})
	return running{mode: "forward-proxy", to: f.allowed.String(), server: s}
}

// dialers keep, for each target, what connects to it: there are the sessions that a reconnect goes back to.
type dialers struct {
	make func(target string) proxy.Dial
	mu   sync.Mutex
	all  map[string]proxy.Dial
}

// maxDialers bounds what clients can make a proxy keep that may go anywhere.
const maxDialers = 1024

func (d *dialers) get(target string) proxy.Dial {
	d.mu.Lock()
	defer d.mu.Unlock()
	dial := d.all[target]
	if dial == nil {
		if d.all == nil || len(d.all) >= maxDialers {
			d.all = map[string]proxy.Dial{}
		}
		dial = d.make(target)
		d.all[target] = dial
	}
	return dial
}
