//go:build !noxds

package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

const haveXDS = true

// follower takes the configuration of a control plane, and carries it out beside that of the file.
type follower struct {
	operation *operation
	ctx       context.Context
	dial      atomic.Pointer[proxy.DialEndpoint] // of the generation that there is
	transport *grpcads.Transport
	agent     *agent.Agent
	settings  client.Config
	client    *client.Client
	current   *delivery // nil for the file alone
}

// follow begins to take configuration from a control plane, where there is one, until ctx ends. It answers what waits for the end.
func (o *operation) follow(ctx context.Context, c *serveConfig) (done func(), err error) {
	x := c.XDS
	if x == nil {
		return func() {}, nil
	}
	log := o.log.With("control_plane", x.Server)
	f := &follower{operation: o, ctx: ctx}
	options := agent.Options{Fetch: x.fetch(), Now: o.app.now, Log: log}
	settings := client.Config{Kind: client.Delta, Random: rand.Float64, Node: x.node(c.Names), Counts: o.connections}
	if x.Protocol == "sotw" {
		settings.Kind = client.StateOfTheWorld
	}
	if x.State != "" {
		keep, err := x.keep(c, log)
		if err != nil {
			return nil, err
		}
		options.Store, settings.Store = keep("serials.json"), keep("accepted")
		if x.sealed() {
			settings.Stored = func(*resource.Resource) bool { return true } // secrets too
		} else {
			screen := envoy.NewScreen()
			settings.Stored = func(r *resource.Resource) bool { return r.Type != resource.Secret && !screen.Hides(*r) }
		}
	}
	if f.agent, err = agent.New(x.Limits, c.policies[x.Limits.Floor], &c.Proxy, c.policies, f, options); err != nil {
		return nil, err
	}
	address, err := x.address()
	if err != nil {
		return nil, err
	}
	if err := f.dialAs(o.generation()); err != nil {
		return nil, err
	}
	f.transport, err = grpcads.New(address, func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := (*f.dial.Load())(ctx, upstream.Identity{Address: address}, "h2")
		if err != nil {
			log.Warn("no control plane", "code", string(attest.CodeOf(err)), "error", err.Error())
			return nil, err
		}
		log.Info("control plane affirmed", "remote", conn.RemoteAddr().String(), "evidence", conn.Result().EvidenceDigest())
		return conn, nil
	}, grpcads.Config{})
	if err != nil {
		return nil, err
	}
	f.settings = settings
	if f.client, err = client.New(settings, f.transport, f.agent); err == nil {
		err = f.agent.Start(f.client)
	}
	if err != nil {
		_ = f.transport.Close()
		return nil, err
	}
	o.mu.Lock()
	o.follower = f
	o.mu.Unlock()
	var work sync.WaitGroup
	work.Go(func() { _ = f.client.Run(ctx) }) // which ends with ctx
	work.Go(func() { f.watch(ctx) })
	return func() {
		work.Wait()
		f.agent.Kept()
		_ = f.transport.Close()
	}, nil
}

// keep answers what makes the stores of the state, by their names.
func (x *xdsConfig) keep(c *serveConfig, log *slog.Logger) (func(name string) store, error) {
	dir := c.file(x.State)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "config", Subject: "xds.state", Got: x.State, Err: err}
	}
	if !x.sealed() {
		return func(name string) store { return keptFile(filepath.Join(dir, name)) }, nil
	}
	sealer, err := openSealer(c.TEE)
	if err != nil {
		return nil, unsealed(err)
	}
	if teeName(c.TEE) == "sim" {
		log = log.With("platform", "SIMULATED")
	}
	log.Info("what the control plane sends is kept sealed", "dir", dir, "by", sealer.Platform())
	return func(name string) store {
		// The same software on this machine may run for another control plane, or in another place.
		context := fmt.Sprintf("xds %s of %q in %q", name, x.Server, x.State)
		return leftAside{seal.NewFile(sealer, filepath.Join(dir, name+".sealed"), context), log}
	}, nil
}

// connections counts those of all listeners, and those that were refused: at first, or when their peers were judged again.
func (o *operation) connections() client.Counts {
	c := client.Counts{Refused: o.shared.enforcer.Stats().Refused}
	for _, l := range o.runtime.Listeners() {
		c.Open += uint64(max(l.Stats.Active, 0))
		for _, n := range l.Stats.Refused {
			c.Refused += n
		}
	}
	return c
}

// node is what a proxy with an identity for names calls itself. A control plane of ours takes nothing that is none of the names.
func (x *xdsConfig) node(names []string) client.Node {
	n := client.Node{ID: x.Node.ID, Cluster: x.Node.Cluster, UserAgent: "jurat", UserVersion: buildInfo().Version}
	if n.ID == "" {
		n.ID, _ = os.Hostname()
		for _, name := range names {
			if _, err := netip.ParseAddr(name); err != nil && name != "localhost" {
				n.ID = name + "/" + n.ID
				break
			}
		}
	}
	for k, v := range x.Node.Metadata {
		if n.Metadata == nil {
			n.Metadata = map[string]any{}
		}
		n.Metadata[k], _ = metadata(v) // which was checked
	}
	return n
}

// awayCheck is how often it is looked at how long there has been no control plane.
const awayCheck = time.Second

// watch withdraws what a control plane has brought that has been away for too long.
func (f *follower) watch(ctx context.Context) {
	tick := time.NewTicker(awayCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		away := time.Duration(0)
		if s := f.client.Status(); !s.Open {
			away = max(time.Since(s.Since), 1)
		}
		if err := f.agent.Away(away); err != nil {
			f.operation.log.Error("the configuration stays as it is", "code", string(attest.CodeOf(err)), "error", err.Error())
		}
	}
}

// dialAs has connections to the control plane, which has to meet its policy as any peer has, made by the identity of a generation.
func (f *follower) dialAs(g *generation) error {
	dial, err := g.dialTo(&config.Attested{Name: g.XDS.Name, Reattest: g.XDS.Reattest}, atControlPlane, atControlPlane)
	if err == nil {
		f.dial.Store(&dial)
	}
	return err
}

// replace takes a configuration that was read anew: exchange is called with what it makes of what the control plane has sent. The control
// plane is connected to anew, since it is shown other evidence.
func (f *follower) replace(c *serveConfig, exchange func(deliver func(*generation) error) error) error {
	err := f.agent.Replace(c.XDS.Limits, c.policies[c.XDS.Limits.Floor], &c.Proxy, c.policies, func(conf *config.Config, policies map[string]guard.Policy) error {
		return exchange(func(g *generation) error { return f.deliver(g, conf, policies) })
	})
	if err == nil {
		err = f.dialAs(f.operation.generation())
		f.transport.Drop()
	}
	return err
}

// delivery is a configuration that came over xDS, with the file's. It builds the connections of a proxy.Runtime by the identity of the
// generation, under its own policies.
type delivery struct {
	*generation
	config   *config.Config
	policies map[string]guard.Policy
	floor    string
	before   enforce.Change // what was in force
	sweep    func(context.Context) *enforce.Sweep
}

// Apply implements agent.Target.
func (f *follower) Apply(c *config.Config, policies map[string]guard.Policy) error {
	o := f.operation
	o.changing.Lock()
	defer o.changing.Unlock()
	if f.ctx.Err() != nil {
		return &attest.Error{Code: attest.CodeInternal, Check: "xds", Got: "a change while the process ends", Want: "none until it has started again"}
	}
	g := o.generation()
	if f.current != nil && f.current.config == c && f.current.generation == g {
		f.enforce(policies)
		return nil
	}
	return f.deliver(g, c, policies)
}

// deliver carries a configuration out as a generation. Where the admin API has ended listeners those are not opened again, and all else
// holds. The caller holds operation.changing.
func (f *follower) deliver(g *generation, c *config.Config, policies map[string]guard.Policy) error {
	o := f.operation
	d := &delivery{generation: g, config: c, policies: policies, floor: g.XDS.Limits.Floor, before: o.generation().change(nil)}
	if f.current != nil {
		d.before = f.current.change()
	}
	known := map[string]bool{}
	for _, l := range o.runtime.Listeners() {
		known[l.Config.Address] = true
	}
	d.announce()
	if err := o.runtime.Apply(f.ctx, o.open(c), g.epoch, d); err != nil {
		d.withdraw()
		return err
	}
	d.sweep(f.ctx)
	f.current = d
	o.listening(known)
	return nil
}

// enforce has other policies hold where listeners and clusters are what they were: what is connected to and who listens is not looked
// at, since a denial is urgent. It holds for a proxy that drains as well.
func (f *follower) enforce(policies map[string]guard.Policy) {
	d := *f.current
	d.policies, d.before = policies, f.current.change()
	d.Commit()
	d.sweep(f.ctx)
	f.current = &d
}

// running is what was carried out last, and by whom; nil where that is the file alone. The caller holds operation.changing.
func (f *follower) running() (*config.Config, proxy.Builder) {
	if f == nil || f.current == nil {
		return nil, nil
	}
	return f.current.config, f.current
}

// change is what is to be in force with d.
func (d *delivery) change() enforce.Change {
	change := enforce.Change{Policies: map[string]attest.Policy{}, Places: d.placesOf(d.config, func(name string) []string {
		if _, own := d.generation.policies[name]; own || d.floor == "" {
			return []string{name}
		}
		return []string{name, d.floor}
	})}
	for name, p := range d.generation.policies {
		change.Policies[name] = p
	}
	for name, p := range d.policies {
		if _, own := d.generation.policies[name]; !own {
			change.Policies[name] = p.Layers[0]
		}
	}
	return change
}

// announce is generation.announce for d.
func (d *delivery) announce() {
	now := d.change()
	change := enforce.Change{Policies: map[string]attest.Policy{}, Places: now.Places}
	maps.Copy(change.Places, d.before.Places)
	for name, p := range now.Policies {
		if d.before.Policies[name] == nil {
			change.Policies[name] = p
		}
	}
	d.shared.enforcer.Publish(change)
}

// withdraw takes back what was announced.
func (d *delivery) withdraw() { d.shared.enforcer.Publish(without(d.before, d.change())) }

// Commit has the policies of d hold from now on, for all connections.
func (d *delivery) Commit() { d.sweep = d.shared.enforcer.Publish(without(d.change(), d.before)) }

// without is a change that takes away the policies that only another one has.
func without(change, other enforce.Change) enforce.Change {
	for name := range other.Policies {
		if _, stays := change.Policies[name]; !stays {
			change.Policies[name] = nil
		}
	}
	return change
}

// Handshake makes the connections of a listener.
func (d *delivery) Handshake(l *config.Listener) (proxy.Handshake, error) {
	if l.Require != "" && d.policies[l.Require].Layers == nil {
		return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "config", Subject: l.Label(), Want: "a policy"}
	}
	return d.handshakeAt(l, placeOf(l))
}

// Dial makes the connections to the endpoints of a cluster.
func (d *delivery) Dial(c *config.Cluster) (proxy.DialEndpoint, error) {
	if d.policies[c.Attested.Require].Layers == nil {
		return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "config", Subject: c.Name, Want: "a policy"}
	}
	return d.dialTo(c.Attested, atCluster(c), c.Name)
}

// Forward makes the connections of a listener of the file whose clients say where they want to go.
func (d *delivery) Forward(l *config.Listener) (proxy.DialTarget, connect.Authenticate, error) {
	return d.generation.Forward(l)
}

// dump is what /config_dump shows of the control plane; nil where there is none.
func (f *follower) dump() any {
	if f == nil {
		return nil
	}
	st := f.client.Status()
	out := map[string]any{"connected": st.Open, "since": st.Since, "control_plane": st.ControlPlane, "status": f.agent.Status()}
	if st.LastError != "" {
		out["last_error"] = st.LastError
	}
	if !st.Saved.IsZero() {
		out["saved"] = st.Saved
	}
	if st.StoreError != "" {
		out["store_error"] = st.StoreError
	}
	return out
}

// stats is what metrics show of the control plane; nil where there is none.
func (f *follower) stats() *metrics.ControlPlane {
	if f == nil {
		return nil
	}
	st, status := f.client.Status(), f.agent.Status()
	out := &metrics.ControlPlane{Connected: st.Open, Withdrawn: status.Withdrawn, Warming: len(status.Warming)}
	for typ, t := range status.Types {
		out.Types = append(out.Types, metrics.ResourceType{Type: typ[strings.LastIndexByte(typ, '.')+1:], Resources: t.Resources, Accepted: t.Accepted, Refused: t.Refused, Stands: t.Refusal != nil && t.Refusal.Stands})
	}
	for _, p := range status.Policies {
		out.Policies = append(out.Policies, metrics.PushedPolicy{Name: p.Name, Serial: p.Serial})
	}
	return out
}
