package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"runtime"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/proxy/admin"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/ratls"
)

// serveAdmin serves the admin API, where there is to be one, until the function that it answers is called.
func (o *operation) serveAdmin(c *serveConfig) (done func(), err error) {
	cfg := c.Process.Admin
	if cfg == nil {
		return func() {}, nil
	}
	opts := admin.Options{Names: cfg.Hosts, Profiling: cfg.PProf, UnsafeAnyAddress: cfg.UnsafeListen, Log: o.log, Now: o.app.now}
	ln, err := o.obtain(adminSocket, func() (net.Listener, error) {
		if isSystemd(cfg.Address) {
			return o.listeners.open(cfg.Address)
		}
		return admin.Listen(context.Background(), cfg.Address, opts)
	})
	if err != nil {
		return nil, err
	}
	services, stop := o.services(c)
	s, err := admin.New(ln, admin.Source{
		State: o.state, ServerInfo: o.serverInfo, Listeners: o.adminListeners, Clusters: o.adminClusters, Certs: o.certs, ConfigDump: o.configDump, Configs: o.envoyConfigs,
		Stats: o.metrics.Each, Metrics: o.metrics.Handler(), LogLevel: o.level.Level, SetLogLevel: o.level.Set, ReopenLogs: o.reopenLogs,
		Drain: o.drain, Quit: func() { o.stop(nil) }, Services: services,
	}, opts)
	if err != nil {
		stop()
		_ = ln.Close()
		return nil, err
	}
	o.admin = ln
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	o.log.Info("admin", "address", s.Addr().String())
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		stop()
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) { // closed where another process has taken over
			o.log.Error("admin", "error", err.Error())
		}
	}, nil
}

func (o *operation) state() admin.State {
	switch g := o.generation(); {
	case o.draining.Load():
		return admin.Draining
	case g == nil:
		return admin.Initializing
	case !g.healthy(o.app.now()):
		return admin.PreInitializing
	default:
		return admin.Live
	}
}

func (o *operation) serverInfo() admin.ServerInfo {
	g := o.generation()
	return admin.ServerInfo{Version: buildInfo().Version, Go: runtime.Version(), TEE: g.tee, Simulated: g.simulated, Started: o.started}
}

func (o *operation) adminListeners() (all []admin.Listener) {
	for _, l := range o.runtime.Listeners() {
		all = append(all, admin.Listener{Name: l.Name, Address: l.Address.String()})
	}
	return all
}

func (o *operation) adminClusters() (all []admin.Cluster) {
	static := o.generation().Proxy.Clusters // what else there is came from the control plane
	for _, c := range o.runtime.Clusters() {
		b := c.Balance()
		own := func(c config.Cluster) bool { return c.Name == b.Name() }
		cl := admin.Cluster{Name: b.Name(), Stats: b.Stats(), Dynamic: !slices.ContainsFunc(static, own)}
		for _, e := range b.Placed() {
			cl.Endpoints = append(cl.Endpoints, admin.Endpoint{
				Address: e.Identity().Address, Hostname: e.Identity().Hostname, Locality: e.Locality, Weight: e.Weight, Priority: e.Priority,
				Stats: e.Stats(), Result: e.Proof(),
			})
		}
		all = append(all, cl)
	}
	return all
}

func (o *operation) certs() []admin.Certificate {
	g := o.generation()
	if g.id == nil {
		return nil
	}
	leaf := g.id.Leaf()
	return append([]admin.Certificate{{
		Name: "identity", Chain: []*x509.Certificate{leaf.Certificate}, Pin: ratls.Pin(leaf.Certificate), TEE: g.tee, Simulated: g.simulated,
		Evidence: hex.EncodeToString(leaf.Digest[:]),
	}}, g.publicCerts()...)
}

// configDump is the configuration that runs, with the digest that our evidence commits to.
func (o *operation) configDump() (any, error) {
	g := o.generation()
	measured, err := json.Marshal(g.serveConfig)
	if err != nil {
		return nil, err
	}
	policies := map[string]string{}
	for name, p := range g.policies {
		policies[name] = p.ID()
	}
	out := map[string]any{"digest": g.epoch, "config": json.RawMessage(measured), "policies": policies, "policy_epoch": o.shared.enforcer.Stats().Epoch}
	if d := o.drained.Load(); d != nil {
		out["drained"] = d
	}
	if d := o.following().dump(); d != nil {
		out["xds"] = d
	}
	if d := o.handing().dump(); d != nil {
		out["sds"] = d
	}
	return out, nil
}

// drain ends connections as the admin API was asked to.
func (o *operation) drain(how admin.Drain) error {
	if !how.SkipExit && !how.InboundOnly { // a process whose outbound listeners are to stay has to stay with them
		o.stop(nil)
		return nil
	}
	o.changing.Lock()
	defer o.changing.Unlock()
	g := o.generation()
	running, build := o.following().running()
	if running == nil {
		running, build = &g.Proxy, g
	}
	o.drained.Store(&drained{Since: o.app.now(), InboundOnly: how.InboundOnly})
	return o.runtime.Apply(context.Background(), o.open(running), g.epoch, build)
}

// drained says which listeners the admin API has ended, as it is shown.
type drained struct {
	Since       time.Time `json:"since"`
	InboundOnly bool      `json:"inbound_only"`
}

// open is a configuration with the listeners that the admin API has not ended. The caller holds changing.
func (o *operation) open(c *config.Config) *config.Config {
	d := o.drained.Load()
	if d == nil {
		return c
	}
	rest := *c
	rest.Listeners = nil
	for _, l := range c.Listeners {
		if d.InboundOnly && l.PlainOnly() {
			rest.Listeners = append(rest.Listeners, l)
		}
	}
	o.draining.Store(len(rest.Listeners) == 0)
	return &rest
}

func (o *operation) snapshot() metrics.Snapshot {
	g := o.generation()
	var s metrics.Snapshot
	for _, l := range o.runtime.Listeners() {
		s.Listeners = append(s.Listeners, metrics.Listener{Name: l.Name, Stats: l.Stats, Requests: l.Requests, Peers: o.shared.peers.listener(l.Name).Stats(), Chains: l.Chains})
	}
	for _, c := range o.runtime.Clusters() {
		b := c.Balance()
		m := metrics.Cluster{Name: b.Name(), Stats: b.Stats(), Peers: o.shared.peers.cluster(b.Name()).Stats()}
		for _, e := range b.Endpoints() {
			m.Endpoints = append(m.Endpoints, metrics.Endpoint{Address: e.Identity().Address, Stats: e.Stats()})
		}
		s.Clusters = append(s.Clusters, m)
	}
	if g.id != nil {
		leaf := g.id.Leaf()
		s.Identity = &metrics.Identity{TEE: g.tee, Simulated: g.simulated, NotAfter: leaf.Certificate.NotAfter, Quotes: g.id.Quotes()}
	}
	s.Public = g.publicMetrics()
	enforced := o.shared.enforcer.Stats()
	s.Enforced = &enforced
	s.ControlPlane = o.following().stats()
	if o.access != nil {
		stats := o.access.Stats()
		s.AccessLog = &stats
	}
	return s
}
