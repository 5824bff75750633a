//go:build !noxds

package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/guard"
)

const haveXDS = true

// follower takes the configuration of a control plane, and carries it out beside that of the file.
type follower struct {
	operation *operation
	ctx       context.Context
	floor     string // the name of its policy, "" for none
	agent     *agent.Agent
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
	f := &follower{operation: o, ctx: ctx, floor: x.Limits.Floor}
	options := agent.Options{Fetch: x.fetch(), Now: o.app.now, Log: log}
	settings := client.Config{Kind: client.Delta, Random: rand.Float64, Node: x.node(c.Names)}
	if x.Protocol == "sotw" {
		settings.Kind = client.StateOfTheWorld
	}
	if x.State != "" {
		dir := c.file(x.State)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "config", Subject: "xds.state", Got: x.State, Err: err}
		}
		options.Store, settings.Store = keptFile(filepath.Join(dir, "serials.json")), keptFile(filepath.Join(dir, "accepted"))
	}
	if f.agent, err = agent.New(x.Limits, c.policies[x.Limits.Floor], &c.Proxy, c.policies, f, options); err != nil {
		return nil, err
	}
	address, err := x.address()
	if err != nil {
		return nil, err
	}
	dial, err := o.generation().controlPlane(x)
	if err != nil {
		return nil, err
	}
	transport, err := grpcads.New(address, func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := dial(ctx, upstream.Identity{Address: address}, "h2")
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
	if f.client, err = client.New(settings, transport, f.agent); err == nil {
		err = f.agent.Start(f.client)
	}
	if err != nil {
		_ = transport.Close()
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
		_ = transport.Close()
	}, nil
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

// controlPlane makes connections to a control plane, which has to meet its policy as any peer has.
func (g *generation) controlPlane(x *xdsConfig) (proxy.DialEndpoint, error) {
	return g.dialTo(&config.Attested{Name: x.Name, Reattest: x.Reattest}, atControlPlane, atControlPlane)
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
	if o.draining.Load() || o.halted.Load() || f.ctx.Err() != nil {
		return &attest.Error{Code: attest.CodeInternal, Check: "xds", Got: "a change while the proxy drains", Want: "none until it has started again"}
	}
	g := o.generation()
	d := &delivery{generation: g, config: c, policies: policies, floor: f.floor, before: g.change(nil)}
	if f.current != nil {
		d.before = f.current.change()
	}
	known := map[string]bool{}
	for _, l := range o.runtime.Listeners() {
		known[l.Config.Address] = true
	}
	d.announce()
	if err := o.runtime.Apply(f.ctx, c, g.epoch, d); err != nil {
		d.withdraw()
		return err
	}
	d.sweep(f.ctx)
	f.current = d
	o.listening(known)
	return nil
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

// keptFile is a file that is replaced as a whole.
type keptFile string

// Load implements agent.Store and client.Store.
func (f keptFile) Load() ([]byte, error) {
	raw, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// Save implements agent.Store and client.Store.
func (f keptFile) Save(raw []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(string(f)), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(raw)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), string(f))
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
