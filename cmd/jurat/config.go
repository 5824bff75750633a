package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

// loadConfig reads jurat.yaml:
//
//	identity: {tee: auto, names: [pay.example], lifetime: 1h}
//	listen:    [{address: ":8443", to: 127.0.0.1:8080, tcp: false, require: clients.yaml, reattest: 1m}]
//	upstreams: [{listen: 127.0.0.1:9000, target: ledger:8443, require: ledger.yaml, reattest: 1m}]
//	session: {profile: expat-03, extension: 65280}
//	drain: 30s
//
// Policy files are relative to the file that names them.
func (a *app) loadConfig(file string, c *serveConfig) error {
	raw, err := a.readFile(file)
	if err != nil {
		return err
	}
	root, err := strictyaml.Parse(file, raw)
	if err != nil {
		return err
	}
	m, err := root.Map("identity", "session", "listen", "upstreams", "drain")
	if err != nil {
		return err
	}
	c.TEE, c.Lifetime, c.drain = "auto", ratls.DefaultLifetime, defaultDrain
	switch v := m.Get("identity"); {
	case v.Present():
		if err := c.loadIdentity(v); err != nil {
			return err
		}
	case !m.Get("listen").Present():
		c.TEE = "" // who only asks others for evidence needs no TEE
	}
	if v := m.Get("session"); v.Present() {
		if c.Session, err = loadSession(v); err != nil {
			return err
		}
	}
	if v := m.Get("drain"); v.Present() {
		if c.drain, err = v.Duration(); err != nil {
			return err
		}
	}
	l := configLoader{a: a, dir: filepath.Dir(file), policies: map[string]*policy.Policy{}}
	if v := m.Get("listen"); v.Present() {
		if c.Inbound, err = each(v, l.inbound); err != nil {
			return err
		}
	}
	if v := m.Get("upstreams"); v.Present() {
		if c.Outbound, err = each(v, l.outbound); err != nil {
			return err
		}
	}
	if err := c.complete(); err != nil {
		var coded *attest.Error
		if errors.As(err, &coded) && coded.Subject == "" {
			return withSubject(err, file)
		}
		return err
	}
	return nil
}

func (c *serveConfig) loadIdentity(v strictyaml.Node) error {
	m, err := v.Map("tee", "names", "lifetime")
	if err != nil {
		return err
	}
	if e := m.Get("tee"); e.Present() {
		if c.TEE, err = e.Text(); err != nil {
			return err
		}
		if err := checkTEE(c.TEE); err != nil {
			return withSubject(err, e.Position())
		}
	}
	if e := m.Get("lifetime"); e.Present() {
		if c.Lifetime, err = e.Duration(); err != nil {
			return err
		}
		if err := ratls.CheckLifetime(c.Lifetime); err != nil {
			return withSubject(err, e.Position())
		}
	}
	if e := m.Get("names"); e.Present() {
		c.Names, err = each(e, identityName)
	}
	return err
}

// loadSession reads what meets others: their binder, and the codepoint that they have chosen for an extension to which none
// is assigned yet.
func loadSession(v strictyaml.Node) (sc sessionConfig, err error) {
	m, err := v.Map("profile", "extension")
	if err != nil {
		return sc, err
	}
	if e := m.Get("profile"); e.Present() {
		name, err := e.OneOf(string(session.ProfileExpat))
		if err != nil {
			return sc, err
		}
		sc.Profile = session.Profile(name)
	}
	if e := m.Get("extension"); e.Present() {
		id, err := e.Uint(1<<16 - 1)
		if err != nil {
			return sc, err
		}
		if id == 0 || id == 13 { // server_name, and signature_algorithms, which stands beside it in each request
			return sc, e.Error(fmt.Sprint(id)+", which is another extension's", "the codepoint of cmw_attestation")
		}
		sc.Extension = uint16(id)
	}
	return sc, nil
}

func identityName(v strictyaml.Node) (string, error) {
	n, err := v.Text()
	if err != nil {
		return "", err
	}
	if err := ratls.CheckName(n); err != nil {
		return "", withSubject(err, v.Position())
	}
	return n, nil
}

// each reads the elements of a list.
func each[T any](v strictyaml.Node, read func(strictyaml.Node) (T, error)) ([]T, error) {
	nodes, err := v.List()
	if err != nil {
		return nil, err
	}
	var all []T
	for _, n := range nodes {
		e, err := read(n)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

type configLoader struct {
	a        *app
	dir      string
	policies map[string]*policy.Policy
}

func (l *configLoader) inbound(v strictyaml.Node) (in inbound, err error) {
	m, err := v.Map("address", "to", "tcp", "require", "reattest")
	if err != nil {
		return in, err
	}
	if in.Address, err = l.text(m, "address"); err != nil {
		return in, err
	}
	if err := checkAddress(in.Address); err != nil {
		return in, withSubject(err, m.Get("address").Position())
	}
	if in.To, err = l.text(m, "to"); err != nil {
		return in, err
	}
	if e := m.Get("tcp"); e.Present() {
		if in.TCP, err = e.Bool(); err != nil {
			return in, err
		}
	}
	if _, err := in.parseBackend(); err != nil {
		return in, withSubject(err, m.Get("to").Position())
	}
	if in.Reattest, err = reattest(m); err != nil {
		return in, err
	}
	if e := m.Get("require"); e.Present() {
		in.require, err = l.policy(e)
	}
	return in, err
}

func reattest(m strictyaml.Map) (time.Duration, error) {
	e := m.Get("reattest")
	if !e.Present() {
		return 0, nil
	}
	d, err := e.Duration()
	if err != nil {
		return 0, err
	}
	return d, withSubject(checkReattest(d), e.Position())
}

func (l *configLoader) outbound(v strictyaml.Node) (out outbound, err error) {
	m, err := v.Map("name", "listen", "target", "require", "unsafe_listen", "reattest")
	if err != nil {
		return out, err
	}
	if out.Address, err = l.text(m, "listen"); err != nil {
		return out, err
	}
	if err := checkAddress(out.Address); err != nil {
		return out, withSubject(err, m.Get("listen").Position())
	}
	open := false
	if e := m.Get("unsafe_listen"); e.Present() {
		if open, err = e.Bool(); err != nil {
			return out, err
		}
	}
	if !open && !isLocal(out.Address) {
		return out, m.Get("listen").Error(out.Address+", which other machines can reach in plain", "a loopback address or a unix socket, or unsafe_listen: true")
	}
	if out.Target, err = l.text(m, "target"); err != nil {
		return out, err
	}
	if _, err := targetAddress(out.Target); err != nil {
		return out, m.Get("target").Error(out.Target, "HOST[:PORT]")
	}
	if out.Reattest, err = reattest(m); err != nil {
		return out, err
	}
	require, err := m.Require("require")
	if err != nil {
		return out, err
	}
	out.require, err = l.policy(require)
	return out, err
}

func (l *configLoader) text(m strictyaml.Map, key string) (string, error) {
	v, err := m.Require(key)
	if err != nil {
		return "", err
	}
	return v.Text()
}

func (l *configLoader) policy(v strictyaml.Node) (*policy.Policy, error) {
	file, err := v.Text()
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(l.dir, file)
	}
	if p := l.policies[file]; p != nil {
		return p, nil
	}
	p, err := l.a.loadPolicy(file)
	if err != nil {
		return nil, err
	}
	l.policies[file] = p
	return p, nil
}
