package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"flag"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// forwardProxyFlags make forward a proxy whose clients say where they want to go.
type forwardProxyFlags struct {
	proxy       bool
	allow       list
	credentials string
}

func (f *forwardProxyFlags) register(fs *flag.FlagSet) {
	fs.BoolVar(&f.proxy, "proxy", false, "be a proxy for HTTP CONNECT and SOCKS5 instead of one for a TARGET")
	fs.Var(&f.allow, "allow", "`HOST[:PORT]` that clients of --proxy may go to, at any port where none is named: a name, an IP address, *.suffix, or * for all hosts; repeat for more")
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
	for _, h := range f.allow {
		if _, err := connect.ParsePattern(h); err != nil {
			return usageError("--allow: %v", err)
		}
	}
	return nil
}

// listener is what the flags stand for.
func (f *forwardProxyFlags) listener(out upstreamConfig) config.Listener {
	return config.Listener{Address: out.Listen, UnsafeListen: out.UnsafeListen, Serving: config.Serving{Plain: true, Credentials: f.credentials, Forward: []config.Forward{{Hosts: f.allow, Require: out.Require, Reattest: out.Reattest}}}}
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

// Forward makes the connections of a forward proxy.
func (g *generation) Forward(l *config.Listener) (proxy.DialTarget, connect.Authenticate, error) {
	var users connect.Authenticate
	if l.Credentials != "" {
		raw, err := g.app.readFile(g.file(l.Credentials))
		if err != nil {
			return nil, nil, err
		}
		if users, err = oneUser(l.Credentials, raw); err != nil {
			return nil, nil, err
		}
	}
	type covered struct {
		patterns []connect.Pattern
		dial     proxy.DialEndpoint
	}
	var all []covered
	for i, f := range l.Forward {
		var c covered
		for _, h := range f.Hosts {
			p, err := connect.ParsePattern(h)
			if err != nil {
				return nil, nil, badValue("hosts", h, "HOST[:PORT], *.example or *")
			}
			c.patterns = append(c.patterns, p)
		}
		cl := config.Cluster{Config: upstream.Config{Name: l.Label()}, Attested: &config.Attested{Require: f.Require, Reattest: f.Reattest}}
		var err error
		if c.dial, err = g.dialerAt(&cl, atForward(l, i)); err != nil {
			return nil, nil, err
		}
		all = append(all, c)
	}
	return func(ctx context.Context, target string) (proxy.Conn, error) {
		for _, c := range all {
			for _, p := range c.patterns {
				if p.Covers(target) {
					return c.dial(ctx, upstream.Identity{Address: target})
				}
			}
		}
		return nil, &attest.Error{Code: attest.CodeNoPolicy, Check: "target", Subject: target}
	}, users, nil
}
