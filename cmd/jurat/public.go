package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/admin"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/proxy/public"
	"github.com/jurat-tls/jurat/ratls"
)

// publicCertificates are those of one place of the configuration, or of several that say the same.
type publicCertificates interface {
	ratls.Public
	Run(ctx context.Context)
	Status() []public.Status
}

// vault is where public certificates are kept, for as long as the process runs: another configuration finds them there.
type vault struct {
	memory *public.Storage
	shared map[string]*public.Storage // in memory too, by where other replicas get what is in them: they are to get nothing else
	dirs   map[string]*public.Storage
	away   map[string]*holder // by their addresses
}

func newVault() *vault {
	return &vault{memory: public.NewMemory(), shared: map[string]*public.Storage{}, dirs: map[string]*public.Storage{}, away: map[string]*holder{}}
}

// storage answers where what is said by ACME is kept.
func (v *vault) storage(g *generation, a *config.ACME) (*public.Storage, error) {
	switch {
	case a.StorageAt != nil:
		h := v.away[a.StorageAt.Address]
		if h == nil {
			h = newHolder(a.StorageAt.Address, g.log)
			v.away[a.StorageAt.Address] = h
		}
		return h.storage, nil
	case a.Storage != "":
		return v.open(g.file(a.Storage), g.TEE)
	case a.Share != nil:
		if v.shared[a.Share.Address] == nil {
			v.shared[a.Share.Address] = public.NewMemory()
		}
		return v.shared[a.Share.Address], nil
	}
	return v.memory, nil
}

// open answers the storage in a directory, sealed by a TEE. However it is written it is one: what is shared is so for all who name it.
func (v *vault) open(dir, tee string) (*public.Storage, error) {
	dir = filepath.Clean(dir)
	if s := v.dirs[dir]; s != nil {
		return s, nil
	}
	sealer, err := openSealer(tee)
	if err != nil {
		return nil, err
	}
	s, err := public.NewDirectory(dir, sealer)
	if err == nil {
		v.dirs[dir] = s
	}
	return s, err
}

func (v *vault) close() {
	for _, s := range v.dirs {
		_ = s.Close()
	}
	for _, h := range v.away {
		h.client.Close()
	}
}

// publicKey tells places with different certificates apart.
func publicKey(p *config.Public) string {
	raw, _ := json.Marshal(p) // plain data
	return string(raw)
}

// publics are the places that have public certificates, by their paths.
func (c *serveConfig) publics() map[string]*config.Public {
	all := map[string]*config.Public{}
	for i := range c.Proxy.Listeners {
		for at, s := range c.Proxy.Listeners[i].Servings() {
			if s.Public != nil {
				all[strings.ReplaceAll(fmt.Sprintf("listen[%d].%s.public", i, at), "..", ".")] = s.Public
			}
		}
	}
	return all
}

// checkPublic reports what is wrong with what the public certificates are made of.
func (c *serveConfig) checkPublic(a *app) error {
	v := newVault() // nothing is opened
	for at, p := range c.publics() {
		if p.ACME != nil {
			if p.ACME.Storage != "" && !seals(c.TEE) {
				return withSubject(noSealing(teeName(c.TEE)), at+".acme.storage")
			}
			inMemory, acme := *p, *p.ACME
			acme.Storage, acme.Share, acme.StorageAt, inMemory.ACME = "", nil, nil, &acme
			p = &inMemory
		}
		g := &generation{serveConfig: c, app: a, log: slog.New(slog.DiscardHandler)}
		if _, err := g.certificates(p, v); err != nil {
			return withSubject(err, at)
		}
	}
	return nil
}

// certify makes the public certificates of a generation.
func (g *generation) certify() error {
	for _, p := range g.serveConfig.publics() {
		key := publicKey(p)
		if g.public[key] != nil {
			continue
		}
		c, err := g.certificates(p, g.shared.vault)
		if err != nil {
			return err
		}
		if g.public == nil {
			g.public = map[string]publicCertificates{}
		}
		g.public[key] = c
	}
	return nil
}

func (g *generation) certificates(p *config.Public, v *vault) (publicCertificates, error) {
	var names []string
	if len(p.Names) > 0 {
		names = p.Lower()
	}
	if p.ACME == nil {
		return public.NewFiles(names, func() (chain, key []byte, err error) {
			if chain, err = g.app.readFile(g.file(p.Cert)); err == nil {
				key, err = g.app.readFile(g.file(p.UnsafeKeyFile))
			}
			return chain, key, err
		}, g.app.now, g.log)
	}
	a := p.ACME
	made := public.ACME{
		Directory: a.Directory, KeyType: public.KeyType(a.KeyType), Profile: a.Profile, ALPN: !a.NoALPN, HTTP: a.HTTP,
		Account: public.Account{Email: a.Email},
		Listen:  func(address string) (net.Listener, error) { return net.Listen("tcp", address) },
	}
	if a.Roots != "" {
		raw, err := g.app.readFile(g.file(a.Roots))
		if err != nil {
			return nil, err
		}
		made.Roots = x509.NewCertPool()
		if !made.Roots.AppendCertsFromPEM(raw) {
			return nil, badValue("", a.Roots, "a file with certificates in PEM")
		}
	}
	secret := func(file string) (string, error) {
		raw, err := g.app.readFile(g.file(file))
		return string(bytes.TrimSpace(raw)), err
	}
	var err error
	if e := a.External; e != nil {
		made.Account.ExternalID = e.ID
		if made.Account.ExternalKey, err = secret(e.KeyFile); err != nil {
			return nil, err
		}
	}
	if d := a.DNS; d != nil {
		u := public.Update{Server: d.Server, Zone: d.Zone, KeyName: d.KeyName, Algorithm: d.Algorithm}
		if u.Secret, err = secret(d.SecretFile); err != nil {
			return nil, err
		}
		if made.DNS, err = public.NewUpdate(u); err != nil {
			return nil, err
		}
		made.Settle = d.Settle
	}
	storage, err := v.storage(g, a)
	if err != nil {
		return nil, err
	}
	return public.NewCertificates(names, made, storage, g.app.now, g.log)
}

// publicOf answers the public certificates of a listener; nil where it has none.
func (g *generation) publicOf(l *config.Listener) (ratls.Public, error) {
	if l.Public == nil {
		return nil, nil
	}
	c := g.public[publicKey(l.Public)]
	if c == nil { // nobody but the file can bring one about
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "public", Subject: l.Label(), Got: "a public certificate that was not made"}
	}
	return c, nil
}

// publicStatus is that of every public name, in the order of the configuration.
func (g *generation) publicStatus() (all []public.Status) {
	seen := map[publicCertificates]bool{}
	for i := range g.Proxy.Listeners {
		for _, s := range g.Proxy.Listeners[i].Servings() {
			if s.Public == nil {
				continue
			}
			if c := g.public[publicKey(s.Public)]; c != nil && !seen[c] {
				seen[c] = true
				all = append(all, c.Status()...)
			}
		}
	}
	return all
}

// publicMetrics is what metrics show of public certificates.
func (g *generation) publicMetrics() (all []metrics.PublicCertificate) {
	for _, st := range g.publicStatus() {
		m := metrics.PublicCertificate{Name: st.Name, Obtained: st.Obtained, Failures: st.Failures, Code: attest.CodeOf(st.Err)}
		if st.Leaf != nil {
			m.NotAfter = st.Leaf.NotAfter
		}
		all = append(all, m)
	}
	return all
}

// publicCerts is what the admin API shows of public certificates.
func (g *generation) publicCerts() (all []admin.Certificate) {
	for _, st := range g.publicStatus() {
		if st.Leaf != nil {
			all = append(all, admin.Certificate{Name: "public " + st.Name, Chain: []*x509.Certificate{st.Leaf}, Pin: ratls.Pin(st.Leaf)})
		}
	}
	return all
}
