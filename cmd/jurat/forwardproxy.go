package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"flag"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// forwardProxyFlags make forward a proxy whose clients say where they want to go.
type forwardProxyFlags struct {
	proxy          bool
	socks, connect string
	allow          list
	credentials    string
}

func (f *forwardProxyFlags) register(fs *flag.FlagSet) {
	fs.BoolVar(&f.proxy, "proxy", false, "be a proxy for HTTP CONNECT and SOCKS5 at --listen instead of one for a TARGET")
	fs.StringVar(&f.socks, "socks", "", "`ADDR` of such a proxy, as the one that programs are told to use for SOCKS5; it takes both protocols, as each of them does")
	fs.StringVar(&f.connect, "connect", "", "`ADDR` of such a proxy, as the one that programs are told to use for HTTP CONNECT")
	fs.Var(&f.allow, "allow", "`HOST[:PORT][=POLICY]` that clients of a proxy may go to, at any port where none is named: a name, an IP address, *.suffix, or * for all hosts; with a policy file of its own, or that of --policy; repeat for more: the first that covers a target counts")
	fs.StringVar(&f.credentials, "credentials", "", "`FILE` with the USER:PASSWORD that clients of a proxy have to say")
}

// addresses are where the proxy listens; none where it is to be no proxy. listen is --listen.
func (f *forwardProxyFlags) addresses(listen string) (all []string) {
	if f.proxy {
		all = append(all, listen)
	}
	for _, a := range []string{f.socks, f.connect} {
		if a != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// check finds flags that don't go together.
func (f *forwardProxyFlags) check(isProxy bool) error {
	switch {
	case !isProxy && (len(f.allow) > 0 || f.credentials != ""):
		return usageError("--allow and --credentials are for --proxy, --socks and --connect")
	case isProxy && len(f.allow) == 0:
		return usageError("a proxy needs --allow HOST[:PORT] for what the policy is meant for; --allow '*' if that is any host at all")
	}
	for _, allowed := range f.allow {
		host, _, _ := strings.Cut(allowed, "=")
		if _, err := connect.ParsePattern(host); err != nil {
			return usageError("--allow: %v", err)
		}
	}
	return nil
}

// rules are those of --allow, in their order. out has the policy of those that name none.
func (f *forwardProxyFlags) rules(out upstreamConfig) (all []config.Forward, err error) {
	for _, allowed := range f.allow {
		host, own, named := strings.Cut(allowed, "=")
		policy := out.Require
		if named {
			policy = own
		}
		if policy == "" {
			return nil, usageError("--allow %s names no policy, and there is no -p policy.yaml for those", allowed)
		}
		if n := len(all); n > 0 && all[n-1].Require == policy {
			all[n-1].Hosts = append(all[n-1].Hosts, host)
			continue
		}
		all = append(all, config.Forward{Hosts: []string{host}, Require: policy, Reattest: out.Reattest})
	}
	return all, nil
}

// listeners are what the flags stand for.
func (f *forwardProxyFlags) listeners(out upstreamConfig) ([]config.Listener, error) {
	rules, err := f.rules(out)
	if err != nil {
		return nil, err
	}
	var all []config.Listener
	for _, address := range f.addresses(out.Listen) {
		all = append(all, config.Listener{Address: address, UnsafeListen: out.UnsafeListen, Serving: config.Serving{Plain: true, Credentials: f.credentials, Forward: rules}})
	}
	return all, nil
}

// ownSockets opens unix sockets that the user of this process alone can connect to, and everything else as it is opened anyway.
func ownSockets() func(address string) (net.Listener, error) {
	var sockets listeners
	return func(address string) (net.Listener, error) {
		ln, err := sockets.open(address)
		path, isUnix := strings.CutPrefix(address, "unix:")
		if err != nil || !isUnix {
			return ln, err
		}
		if err := os.Chmod(path, 0o600); err != nil { // one without a file has no mode
			_ = ln.Close()
			return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: address, Err: err}
		}
		return ln, nil
	}
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
