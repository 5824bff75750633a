package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/tally"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/session"
)

// generation is a configuration with what it is run by: policies, and an identity that attests its digest. It builds the
// connections of a proxy.Runtime.
type generation struct {
	*serveConfig
	app       *app
	shared    *shared
	epoch     string
	id        *ratls.Identity // nil where none is presented
	tee       string
	simulated bool
	log       *slog.Logger
	end       context.CancelFunc
	sweep     func(context.Context) *enforce.Sweep // of what Commit has put into force
	replaced  *generation                          // the one before; nil for the first
	given     []given
	wellKnown *wellKnown                    // nil where nobody is answered
	public    map[string]publicCertificates // by publicKey
}

// given is an identity whose keys an Envoy gets.
type given struct {
	name string // of the secret
	id   *ratls.Identity
}

// shared is what all generations of a process use.
type shared struct {
	endorser  *endorsers
	records   *recorder
	listeners func(address string) (net.Listener, error)
	peers     *peerTallies
	enforcer  *enforce.Enforcer
	renewed   func() // an identity whose keys an Envoy gets has another leaf
	vault     *vault
}

// peerTallies count appraisals by who asked for them.
type peerTallies struct {
	mu                  sync.Mutex
	listeners, clusters map[string]*tally.Peers
}

func (p *peerTallies) of(all *map[string]*tally.Peers, name string) *tally.Peers {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *all == nil {
		*all = map[string]*tally.Peers{}
	}
	if (*all)[name] == nil {
		(*all)[name] = tally.NewPeers()
	}
	return (*all)[name]
}

func (p *peerTallies) listener(name string) *tally.Peers { return p.of(&p.listeners, name) }
func (p *peerTallies) cluster(name string) *tally.Peers  { return p.of(&p.clusters, name) }

// newGeneration makes the identity of a configuration, which lives until end is called.
func (a *app) newGeneration(ctx context.Context, c *serveConfig, sh *shared, log *slog.Logger) (*generation, error) {
	digest, err := c.digest()
	if err != nil {
		return nil, err
	}
	for _, u := range c.unsafe {
		log.Warn("UNSAFE: "+u.means, "key", u.at)
	}
	g := &generation{serveConfig: c, app: a, shared: sh, epoch: fmt.Sprintf("%x", digest), log: log, end: func() {}}
	if c.TEE == "" {
		return g, nil
	}
	tee, err := openTEE(c.TEE, sh.endorser, log)
	if err != nil {
		return nil, err
	}
	if g.tee, g.simulated = tee.name, tee.simulated; tee.simulated {
		g.log = log.With("platform", "SIMULATED")
	}
	first, cancel := context.WithTimeout(ctx, quoteTimeout)
	defer cancel()
	others, err := dialect.NewWriters(c.Dialects...)
	if err != nil {
		return nil, err
	}
	if g.id, err = ratls.NewIdentity(first, tee, c.Names, digest, ratls.IdentityOptions{Lifetime: c.Lifetime, Now: a.now, OnRenew: g.renewed, Dialects: others}); err != nil {
		return nil, err
	}
	if c.WellKnown {
		g.wellKnown = newWellKnown(g.id, a.now, g.log)
	}
	if err := g.certify(); err != nil {
		g.id.Close()
		return nil, err
	}
	if err := g.give(first, tee, digest); err != nil {
		g.id.Close()
		return nil, err
	}
	living, end := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { g.id.Run(living) })
	for _, h := range g.given {
		work.Go(func() { h.id.Run(living) })
	}
	for _, c := range g.public {
		work.Go(func() { c.Run(living) })
	}
	g.end = sync.OnceFunc(func() {
		end()
		work.Wait()
		q := g.id.Quotes()
		g.log.Info("quotes", "made", q.Quotes, "sessions", q.Sessions, "failed", q.Failures, "crowded_out", q.Crowded, "breaker", q.Breaker)
		g.id.Close()
		for _, h := range g.given {
			h.id.Close()
		}
	})
	return g, nil
}

// give makes the identities whose keys an Envoy gets: each has keys of its own, so that what Envoy loses is not what this process
// has, and names of its own.
func (g *generation) give(ctx context.Context, tee attest.Attester, digest [32]byte) error {
	if g.SDS == nil {
		return nil
	}
	for _, s := range g.SDS.Identities {
		names := s.Names
		if len(names) == 0 {
			names = g.Names
		}
		id, err := ratls.NewIdentity(ctx, tee, names, digest, ratls.IdentityOptions{
			Lifetime: cmp.Or(s.Lifetime, g.Lifetime), Now: g.app.now, UnsafeExport: s.UnsafeGivePrivateKeyToEnvoy,
			OnRenew: func(leaf *ratls.Leaf, err error) {
				if err != nil {
					g.log.Error("no new leaf for Envoy", "secret", s.Name, "code", string(attest.CodeOf(err)), "error", err.Error())
					return
				}
				g.log.Info("new leaf for Envoy", "secret", s.Name, "pin", ratls.Pin(leaf.Certificate), "names", names, "until", leaf.Certificate.NotAfter.UTC().Format(time.RFC3339))
				if g.shared.renewed != nil {
					g.shared.renewed()
				}
			},
		})
		if err != nil {
			for _, h := range g.given {
				h.id.Close()
			}
			return err
		}
		g.given = append(g.given, given{s.Name, id})
	}
	return nil
}

func (g *generation) renewed(leaf *ratls.Leaf, err error) {
	if err != nil {
		g.log.Error("no new leaf", "code", string(attest.CodeOf(err)), "error", err.Error())
		return
	}
	g.log.Info("new leaf", "pin", ratls.Pin(leaf.Certificate), "names", g.Names, "until", leaf.Certificate.NotAfter.UTC().Format(time.RFC3339), "evidence", fmt.Sprintf("%x", leaf.Digest), "tee", g.tee)
}

// healthy reports whether there is a leaf to serve.
func (g *generation) healthy(now time.Time) bool {
	return g.id == nil || now.Before(g.id.Leaf().Certificate.NotAfter)
}

// Listen opens an address. Sockets lie beside the file that names them, as other files do.
func (g *generation) Listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		address = "unix:" + g.file(path)
	}
	return g.shared.listeners(address)
}

// Handshake makes the connections of a listener.
func (g *generation) Handshake(l *config.Listener) (proxy.Handshake, error) {
	return g.handshakeAt(l, placeOf(l))
}

// handshakeAt makes the connections of a listener whose clients are appraised at a place.
func (g *generation) handshakeAt(l *config.Listener, at string) (proxy.Handshake, error) {
	protos := []string{"h2", "http/1.1"}
	if l.TCP {
		protos = nil
	}
	endorser, records := g.shared.endorser, g.shared.records
	acceptor := ratls.NewAcceptor(g.id, protos...).WithSession(g.Session.options(g.app))
	known, err := g.publicOf(l)
	if err != nil {
		return nil, err
	}
	if known != nil {
		acceptor = ratls.NewPublicAcceptor(g.id, known, protos...).WithSession(g.Session.options(g.app))
	}
	if l.Require != "" { // whatever else is said: who shows nothing is not let in
		place := g.shared.enforcer.Place(at)
		acceptor = ratls.NewMutualAcceptor(g.id, ratls.NewEnforcedParty(place, g.app.now), protos...).
			WithSession(g.Session.demanding(g.app, place, l.Reattest, g.log.With("address", l.Address)))
	}
	peers := g.shared.peers.listener(l.Label())
	return func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		ctx, fetched := records.watch(ctx, endorser)
		conn, err := acceptor.Handshake(ctx, raw)
		if errors.Is(err, ratls.ErrChallenge) {
			return nil, proxy.ErrDone
		}
		records.appraised(conn, err, &record.Record{Target: raw.RemoteAddr().String(), Client: true}, fetched)
		peers.Observe(resultOf(conn, err))
		if err != nil {
			return nil, err
		}
		return conn, nil
	}, nil
}

// Dial makes the connections to the endpoints of a cluster.
func (g *generation) Dial(c *config.Cluster) (proxy.DialEndpoint, error) {
	return g.dialerAt(c, atCluster(c))
}

// dialerAt makes the connections to the endpoints of a cluster that are appraised at a place.
func (g *generation) dialerAt(c *config.Cluster, at string) (proxy.DialEndpoint, error) {
	require := g.policies[c.Attested.Require]
	if require == nil {
		return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "config", Subject: c.Name, Want: "a policy"}
	}
	return g.dialTo(c.Attested, at, c.Name)
}

// dialTo makes connections to peers that are appraised at a place, for a name ("" for what they are called), in the dialects that are
// allowed, and again after a time.
func (g *generation) dialTo(to *config.Attested, at, called string) (proxy.DialEndpoint, error) {
	reader, err := dialect.NewReader(to.Dialects...)
	if err != nil {
		return nil, withSubject(err, called)
	}
	place := g.shared.enforcer.Place(at)
	d := &dialer{
		generation: g, name: to.Name, place: place, dialects: reader, peers: g.shared.peers.cluster(called), connectors: map[string]*ratls.Connector{},
		opts: g.Session.demanding(g.app, place, to.Reattest, g.log.With("target", called)),
	}
	return d.dial, nil
}

// dialer connects to the endpoints of a cluster.
type dialer struct {
	*generation
	name     string // that they have to attest; "" for what they are called
	place    enforce.Place
	dialects *dialect.Reader
	opts     session.Options
	peers    *tally.Peers

	mu         sync.Mutex
	connectors map[string]*ratls.Connector // by the protocols that they offer
}

func (d *dialer) connector(protocols []string) *ratls.Connector {
	key := strings.Join(protocols, " ")
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.connectors[key]
	if c == nil {
		rp := ratls.NewEnforcedParty(d.place, d.app.now).WithDialects(d.dialects)
		if c = ratls.NewConnector(rp, protocols...); d.id != nil {
			c = ratls.NewMutualConnector(d.id, rp, protocols...)
		}
		c = c.WithSession(d.opts)
		d.connectors[key] = c
	}
	return c
}

func (d *dialer) dial(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
	ctx, fetched := d.shared.records.watch(ctx, d.shared.endorser)
	connector := d.connector(protocols)
	conn, name, err := d.shake(ctx, connector, to)
	if ratls.NoSession(err) {
		conn, name, err = d.shake(ctx, connector.CertificateOnly(), to) // which is judged as what it is
	}
	d.shared.records.appraised(conn, err, &record.Record{Target: to.Address, ServerName: name}, fetched)
	result := resultOf(conn, err)
	d.peers.Observe(result)
	if err != nil {
		if err = withSubject(err, to.Address); result != nil {
			err = &refusedError{err, result}
		}
		return nil, err
	}
	return conn, nil
}

// refusedError is an error with the appraisal that it comes of.
type refusedError struct {
	error
	result *attest.Result
}

func (r *refusedError) Unwrap() error { return r.error }

// Appraisal is what the endpoint proved.
func (r *refusedError) Appraisal() *attest.Result { return r.result }

func (d *dialer) shake(ctx context.Context, connector *ratls.Connector, to upstream.Identity) (conn *ratls.Conn, name string, err error) {
	conn, err = connector.Establish(ctx, func(ctx context.Context) (net.Conn, string, error) {
		raw, host, err := connectTo(ctx, to.Address)
		if err != nil {
			return nil, "", err
		}
		name = cmp.Or(d.name, to.Hostname, host)
		return proxy.Watch(raw), name, nil
	})
	return conn, name, err
}

// connectTo opens the transport to an endpoint, and answers the host in its address.
func connectTo(ctx context.Context, address string) (net.Conn, string, error) {
	kind, addr := network(address)
	if kind == "tcp" {
		return ratls.Connect(ctx, addr)
	}
	raw, err := new(net.Dialer).DialContext(ctx, kind, addr)
	if err != nil {
		return nil, "", &attest.Error{Code: attest.CodeUnreachable, Check: "transport.dial", Subject: address, Err: err}
	}
	return raw, "localhost", nil
}

// options are those of a listener that asks its clients for nothing.
func (sc sessionConfig) options(a *app) session.Options {
	return session.Options{Profile: sc.Profile, Extension: sc.Extension, Store: session.NewStore(session.DefaultEntries, a.now)}
}

// demanding are those of a listener or a cluster whose peers are appraised at a place. They are asked for evidence again at half
// of the age at which the policies take it no more, so that a connection never outlives what it stands on.
func (sc sessionConfig) demanding(a *app, place enforce.Place, every time.Duration, log *slog.Logger) session.Options {
	opts := sc.options(a)
	opts.Pace = func() time.Duration {
		age := place.EvidenceAge()
		switch {
		case age == 0:
			return every
		case every == 0:
			return halfOf(age)
		}
		return min(every, halfOf(age))
	}
	opts.OnReattest = reattested(log)
	return opts
}

// reattested tells of peers that attested anew.
func reattested(log *slog.Logger) func(*attest.Result) {
	return func(r *attest.Result) {
		if r.Affirmed() {
			log.Debug("peer attested anew", "evidence", r.EvidenceDigest())
			return
		}
		log.Warn("peer refused on an open connection", "code", string(r.Code()), "error", r.Err().Error())
	}
}
