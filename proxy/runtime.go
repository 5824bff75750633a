package proxy

import (
	"context"
	"errors"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/loopback"
	"github.com/jurat-tls/jurat/proxy/tally"
	"github.com/jurat-tls/jurat/proxy/transparent"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Builder makes what a configuration names and the data plane does not understand.
type Builder interface {
	// Listen opens an address.
	Listen(address string) (net.Listener, error)
	// Handshake makes the connections of a listener that is not Plain.
	Handshake(l *config.Listener) (Handshake, error)
	// Dial makes the connections to the endpoints of a cluster that is Attested.
	Dial(c *config.Cluster) (DialEndpoint, error)
	// Forward makes the connections of a listener whose clients say where they want to go, and says who they may be; nil is anybody.
	Forward(l *config.Listener) (DialTarget, connect.Authenticate, error)
	// A Builder may have a method Local(l *config.Listener) Local: what a listener that Attests answers itself, nil for nothing.
	// A Builder may have a method Commit(). It is called once nothing can go wrong any more, before anything of the configuration
	// is in use, and must be quick.
}

// Runtime does what a configuration says, and changes to another one while it runs: nothing that is under way is dropped.
type Runtime struct {
	engine   *Engine
	observer Observer
	log      *slog.Logger
	drain    time.Duration
	ctx      context.Context // of what watches the clusters, and of the listeners
	cancel   context.CancelFunc
	failed   chan error
	work     sync.WaitGroup
	retiring sync.WaitGroup // of servers that were replaced

	applying sync.Mutex // one change at a time
	mu       sync.Mutex
	epoch    string
	ports    map[string]*port
	clusters map[string]*member
	closed   bool
	left     bool // somebody else has the sockets
}

// NewRuntime makes one that does nothing yet. drain is how long connections may go on whose listener has changed.
func NewRuntime(engine *Engine, drain time.Duration, observer Observer, logger *slog.Logger) *Runtime {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Runtime{
		engine: engine, log: logger, observer: observer, drain: drain, ctx: ctx, cancel: cancel, failed: make(chan error, 1),
		ports: map[string]*port{}, clusters: map[string]*member{},
	}
}

// port is an open address, and the server that takes what arrives there.
type port struct {
	listener net.Listener
	accepts  net.Listener // the same, as the engine has connections from it
	server   atomic.Pointer[Server]
	config   config.Listener
	epoch    string
	stats    *counters        // of all its servers, but for those of chains, which count for themselves
	lanes    map[string]*lane // the chains, by their labels; nil where there are none
	left     []*counters      // of chains that are no more, and have connections
	gone     chan struct{}
	once     sync.Once
}

// member is a cluster at work.
type member struct {
	*Cluster
	config config.Cluster
	epoch  string
	stop   context.CancelFunc
}

// Apply changes to a configuration, all of it or nothing. epoch stands for all that build knows beside it, such as policies and
// our own identity: where it differs from the last one, every listener gets a new server, and the old one's connections are
// drained. Where it does not, listeners and clusters that are the same go on, and of those in which only routes or endpoints
// changed just these change.
func (r *Runtime) Apply(ctx context.Context, c *config.Config, epoch string, build Builder) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	n := &next{Runtime: r, build: build, config: c, to: epoch, ports: map[string]*port{}, clusters: map[string]*member{}, plain: map[string]*Cluster{}, opaque: c.Opaque()}
	if err := n.make(ctx, c); err != nil {
		n.undo()
		return err
	}
	if !n.commit() {
		n.undo()
		return context.Canceled
	}
	return nil
}

// next is a configuration that is about to be applied.
type next struct {
	*Runtime
	build    Builder
	config   *config.Config
	to       string // epoch
	ports    map[string]*port
	clusters map[string]*member
	plain    map[string]*Cluster // by address: what To names
	opaque   map[string]bool     // as config.Config.Opaque has it
	opened   []net.Listener
	started  []*member
	awaited  []awaited
	swaps    []func()
}

// awaited is a cluster that has no addresses of the DNS yet.
type awaited struct {
	cluster string
	first   chan struct{}
	stopped <-chan struct{}
}

func (n *next) make(ctx context.Context, c *config.Config) error {
	for i := range c.Clusters {
		if err := n.cluster(&c.Clusters[i]); err != nil {
			return err
		}
	}
	if err := n.warm(ctx); err != nil {
		return err
	}
	for i := range c.Listeners {
		if err := n.listener(&c.Listeners[i]); err != nil {
			return err
		}
	}
	return nil
}

// undo lets go of what was made for nothing.
func (n *next) undo() {
	for _, ln := range n.opened {
		_ = ln.Close()
	}
	for _, m := range n.started {
		m.stop()
	}
}

// commit makes the change, unless the end has come. Nothing else can go wrong any more.
func (n *next) commit() bool {
	r := n.Runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if b, ok := n.build.(interface{ Commit() }); ok {
		b.Commit()
	}
	for _, swap := range n.swaps {
		swap()
	}
	for address, p := range r.ports {
		if n.ports[address] != p {
			p.leave()
			r.retire(p.server.Load())
		}
	}
	for name, m := range r.clusters {
		if n.clusters[name] != m {
			m.stop()
		}
	}
	r.ports, r.clusters, r.epoch = n.ports, n.clusters, n.to
	return true
}

// retire lets a server go that was replaced.
func (r *Runtime) retire(s *Server, gone ...departed) {
	s.turnAway() // by the time that the change is made
	r.retiring.Go(func() {
		defer r.fold(gone)
		ctx, cancel := context.WithTimeout(context.Background(), r.drain)
		defer cancel()
		stop := context.AfterFunc(r.ctx, cancel)
		defer stop()
		if err := s.Retire(ctx); err != nil {
			r.log.Warn("connections cut off", "error", err.Error())
		}
	})
}

func (n *next) cluster(c *config.Cluster) error {
	if n.clusters[c.Name] != nil {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "cluster", Got: c.Name, Want: "a name that no other cluster has"}
	}
	// Where one may reach is not changed under those who still use it: they may be sending what must not leave this machine.
	if old := n.Runtime.clusters[c.Name]; old != nil && old.epoch == n.to && sameButEndpoints(old.config, *c) && old.anywhere == n.anywhere(c) {
		n.clusters[c.Name] = old
		if c.DNS == nil {
			n.swaps = append(n.swaps, func() {
				old.config = *c
				if _, err := old.balance.Update(c.Static()); err != nil { // which was tried before
					n.log.Error("endpoints", "cluster", c.Name, "error", err.Error())
				}
			})
		}
		return n.try(c)
	}
	m, err := n.start(c)
	if err != nil {
		return err
	}
	n.clusters[c.Name] = m
	return nil
}

// anywhere reports whether endpoints of a cluster that are not attested may be other machines: it says so, or gets no plaintext.
func (n *next) anywhere(c *config.Cluster) bool {
	o := c.OriginalDestination
	return c.UnsafePlain || o != nil && o.UnsafePlain || n.opaque[c.Name]
}

// try finds out whether endpoints can be taken.
func (n *next) try(c *config.Cluster) error {
	if c.DNS != nil {
		return nil
	}
	b, err := upstream.New(c.Config, time.Now, randv2.Uint64)
	if err == nil {
		_, err = b.Update(c.Static())
	}
	return within(c.Name, err)
}

// within says which cluster or listener an error is about.
func within(name string, err error) error {
	var coded *attest.Error
	if errors.As(err, &coded) {
		named := *coded
		if named.Subject = name; coded.Subject != "" {
			named.Subject = name + ": " + coded.Subject
		}
		return &named
	}
	return err
}

func sameButEndpoints(a, b config.Cluster) bool {
	if a.DNS == nil && b.DNS == nil {
		a.Endpoints, b.Endpoints, a.Localities, b.Localities = nil, nil, nil, nil
	}
	return a.Equal(&b)
}

// warm waits a moment for the first addresses that the DNS has, of all clusters together: each by itself could hold up a change, and
// those that come behind it, for as long as whoever answers for the DNS likes.
func (n *next) warm(ctx context.Context) error {
	timer := time.NewTimer(warming)
	defer timer.Stop()
	late := false
	for _, a := range n.awaited {
		select {
		case <-a.first:
			continue
		default:
		}
		if !late {
			select {
			case <-a.first:
				continue
			case <-timer.C:
				late = true
			case <-ctx.Done():
				return ctx.Err()
			case <-a.stopped:
				return context.Canceled
			}
		}
		n.log.Warn("no address yet", "cluster", a.cluster)
	}
	return nil
}

// start makes a cluster, and has it watched.
func (n *next) start(c *config.Cluster) (*member, error) {
	balance, err := upstream.New(c.Config, time.Now, randv2.Uint64)
	if err != nil {
		return nil, within(c.Name, err)
	}
	protocol, known := map[string]Protocol{"": ProtocolAuto, "auto": ProtocolAuto, "http1": ProtocolHTTP1, "http2": ProtocolHTTP2}[c.Protocol]
	version, proper := map[string]int{"": 0, "v1": 1, "v2": 2}[c.ProxyProtocol]
	if !known || !proper {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "cluster", Subject: c.Name, Got: strconv.Quote(c.Protocol + " " + c.ProxyProtocol), Want: "protocols that are known"}
	}
	m := &member{config: *c, epoch: n.to}
	if c.Attested == nil {
		m.Cluster = NewPlainCluster(balance, protocol, c.ConnectTimeout)
	} else {
		dial, err := n.build.Dial(c)
		if err != nil {
			return nil, within(c.Name, err)
		}
		m.Cluster = NewAttestedCluster(balance, dial, protocol, c.ConnectTimeout)
	}
	if m.Anywhere(n.anywhere(c)); c.OriginalDestination != nil {
		m.OnwardOnly()
	}
	if version != 0 {
		if err := m.WithProxyProtocol(version); err != nil {
			return nil, within(c.Name, err)
		}
	}
	var dns *upstream.Resolution
	first := make(chan struct{})
	if c.DNS == nil {
		_, err = balance.Update(c.Static())
	} else {
		var once sync.Once
		dns, err = upstream.NewResolution(*c.DNS, net.DefaultResolver, randv2.Uint64, func(l []upstream.LocalityEndpoints) {
			if _, err := balance.Update(l); err != nil {
				n.log.Error("addresses of the DNS", "cluster", c.Name, "error", err.Error())
			}
			once.Do(func() { close(first) })
		})
	}
	if err != nil {
		return nil, within(c.Name, err)
	}
	watched, stop := context.WithCancel(n.ctx)
	m.stop = stop
	n.started = append(n.started, m)
	n.work.Go(func() { balance.Run(watched, prober{m.Cluster}) })
	if dns == nil {
		return m, nil
	}
	n.work.Go(func() { dns.Run(watched) })
	n.awaited = append(n.awaited, awaited{c.Name, first, watched.Done()})
	return m, nil
}

// warming is how long a change waits for the first addresses of its clusters.
const warming = 5 * time.Second

func (n *next) listener(l *config.Listener) error {
	if n.ports[l.Address] != nil {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "listen", Got: l.Address, Want: "an address that no other listener has"}
	}
	old := n.Runtime.ports[l.Address]
	if old != nil && old.config.Transparent != l.Transparent {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "listen", Subject: l.Label(), Got: "another way of transparency at the same address", Want: "a restart"}
	}
	stays := old != nil && old.epoch == n.to
	if len(l.Chains) > 0 {
		return n.chains(old, stays && old.lanes != nil && sameButChains(old.config, *l), l)
	}
	if stays && old.lanes == nil && sameButRoutes(old.config, *l) && n.sameClusters(&l.Serving) {
		n.ports[l.Address] = old
		routing, err := n.routing(l)
		if err != nil {
			return err
		}
		n.swaps = append(n.swaps, func() {
			old.config = *l
			if routing != nil {
				old.server.Load().Reroute(routing)
			}
		})
		return nil
	}
	s, err := n.server(l, n.log.With("listener", l.Label()))
	if err != nil {
		return within(l.Label(), err)
	}
	return n.open(old, l, s, nil)
}

// open makes a server that of an address, with what it has for chains.
func (n *next) open(old *port, l *config.Listener, s *Server, lanes map[string]*lane) error {
	if err := admission(s, l); err != nil {
		return within(l.Label(), err)
	}
	s.Observe(n.observer, l.Label())
	if old != nil {
		s.count(old.stats)
		n.ports[l.Address] = old
		n.swaps = append(n.swaps, func() {
			var gone []departed
			for _, d := range old.change(lanes) {
				gone = append(gone, d...)
			}
			old.config, old.epoch = *l, n.to
			n.retire(old.server.Swap(s), gone...)
		})
		return nil
	}
	ln, err := n.build.Listen(l.Address)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, ln)
	if l.Transparent == "" { // what is brought here comes from anywhere
		loopback.Ease(ln)
	} else {
		if ln, err = transparent.Adopt(transparent.Mode(l.Transparent), ln); err != nil {
			return within(l.Label(), err)
		}
	}
	accepts := n.engine.group.Accepting(ln)
	n.opened = append(n.opened, accepts)
	p := &port{listener: ln, accepts: accepts, config: *l, epoch: n.to, stats: s.stats, lanes: lanes, gone: make(chan struct{})}
	p.server.Store(s)
	n.ports[l.Address] = p
	n.swaps = append(n.swaps, func() {
		n.work.Go(func() {
			if err := p.run(n.log); err != nil {
				select {
				case n.failed <- &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: l.Address, Err: err}:
				default:
				}
			}
		})
	})
	return nil
}

func sameButRoutes(a, b config.Listener) bool {
	if a.HTTP != nil && b.HTTP != nil {
		a.HTTP, b.HTTP = nil, nil
	}
	return a.Equal(&b)
}

// sameClusters reports whether a server that was given clusters themselves can go on with them. Routes are given anew.
func (n *next) sameClusters(s *config.Serving) bool {
	raw := *s
	raw.HTTP = nil
	names := raw.Clusters()
	return !slices.ContainsFunc(names, func(name string) bool { return n.clusters[name] != n.Runtime.clusters[name] })
}

// run hands what arrives to the server of the time.
func (p *port) run(log *slog.Logger) error {
	return accept(p.gone, p.accepts, log, func(raw net.Conn) bool {
		for {
			s := p.server.Load()
			switch {
			case s.Admit(raw):
				return true
			case p.server.Load() == s: // it was not replaced: this is the end
				_ = raw.Close()
				return false
			}
		}
	})
}

// routing is what an HTTP listener does; nil for others.
func (n *next) routing(l *config.Listener) (*Routing, error) {
	if l.HTTP == nil {
		return nil, nil
	}
	all := make(map[string]*Cluster, len(n.clusters))
	for name, m := range n.clusters {
		all[name] = m.Cluster
	}
	table, err := n.config.Table(l.HTTP)
	if err != nil {
		return nil, err
	}
	return NewRouting(table, all), nil
}

// admission has the listener's clients introduced by those in front of it, where that was configured.
func admission(s *Server, l *config.Listener) error {
	if l.ProxyProtocol == nil {
		return nil
	}
	var trusted []netip.Prefix
	for _, text := range l.ProxyProtocol {
		p, err := config.ParsePrefix(text)
		if err != nil {
			return err
		}
		trusted = append(trusted, p)
	}
	return s.AcceptProxy(trusted)
}

func limitsOf(l config.Limits) Limits {
	return Limits{
		Connections: l.Connections, Peer: l.ConnectionsPerPeer, Handshakes: l.Handshakes, Handshake: l.Handshake, Header: l.Header,
		KeepAlive: l.KeepAlive, Tunnel: l.Tunnel, Stall: l.Stall, Answer: l.Answer,
	}
}

func (n *next) server(l *config.Listener, log *slog.Logger) (*Server, error) {
	s, err := n.carrier(l, log)
	if b, ok := n.build.(interface {
		Local(l *config.Listener) Local
	}); ok && err == nil && l.Attests() {
		s.AnswerLocally(b.Local(l))
	}
	return s, err
}

func (n *next) carrier(l *config.Listener, log *slog.Logger) (*Server, error) {
	handshake := Handshake(Plain)
	if !l.Attests() && l.Require != "" { // nobody who asks for evidence is to be left without
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "listen", Got: "require " + strconv.Quote(l.Require), Want: "clients that show evidence"}
	}
	if l.Attests() {
		var err error
		if handshake, err = n.build.Handshake(l); err != nil {
			return nil, err
		}
	}
	limits := limitsOf(l.Limits)
	if l.HTTP != nil {
		routing, err := n.routing(l)
		if err != nil {
			return nil, err
		}
		return NewHTTP(n.engine, handshake, routing, log, limits), nil
	}
	if len(l.Passthrough) > 0 {
		var routes []PassthroughRoute
		for _, p := range l.Passthrough {
			m := n.clusters[p.Cluster]
			if m == nil {
				return nil, noCluster(p.Cluster)
			}
			routes = append(routes, PassthroughRoute{Names: p.Names, To: m.Cluster})
		}
		return NewPassthrough(n.engine, routes, log, limits)
	}
	if len(l.Forward) > 0 {
		dial, users, err := n.build.Forward(l)
		if err != nil {
			return nil, err
		}
		return NewForwardFor(n.engine, users, dial, log, limits), nil
	}
	c, err := n.only(l)
	if err != nil {
		return nil, err
	}
	if l.Transparent != "" {
		mode, err := transparent.ParseMode(l.Transparent)
		if err != nil {
			return nil, err
		}
		return NewTransparent(n.engine, mode, func(ctx context.Context, target string) (Conn, error) {
			if !c.Attested() {
				return nil, noCluster(l.Cluster)
			}
			return c.appraised(ctx, upstream.Identity{Address: target}, nil)
		}, log, limits), nil
	}
	switch {
	case !l.TCP:
		return NewHTTP(n.engine, handshake, RouteTo(c), log, limits), nil
	case l.Plain && c.Attested():
		return NewOutbound(n.engine, c.dialAny, log, limits), nil
	default:
		return NewTCP(n.engine, handshake, c, log, limits), nil
	}
}

func noCluster(name string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "cluster", Got: strconv.Quote(name), Want: "the name of a cluster"}
}

// only is the one cluster of a listener without routes.
func (n *next) only(l *config.Listener) (*Cluster, error) {
	if l.To == "" {
		if m := n.clusters[l.Cluster]; m != nil {
			return m.Cluster, nil
		}
		return nil, noCluster(l.Cluster)
	}
	b, err := ParseBackend(l.To)
	if err == nil && l.TCP {
		err = b.CheckRaw()
	}
	if err != nil {
		return nil, err
	}
	c, err := b.Cluster(0)
	if err == nil {
		c.Anywhere(l.UnsafeTo)
	}
	return c, err
}

// dialAny is Dial to any endpoint of an attested cluster.
func (c *Cluster) dialAny(ctx context.Context) (Conn, error) {
	conn, done, err := c.raw(ctx, nil, nil, randv2.Uint64)
	if err != nil {
		return nil, err
	}
	l, ok := conn.(*link)
	if !ok {
		resetConn(conn)
		done(upstream.NoVerdict)
		return nil, &attest.Error{Code: attest.CodeNoEvidence, Check: "evidence"}
	}
	return &counted{Conn: l.conn, link: l, done: done}, nil
}

// counted is a connection to an endpoint that tells of its end.
type counted struct {
	Conn
	link *link
	done func(upstream.Outcome)
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.done(upstream.Success) })
	return c.link.Close()
}

func (c *counted) Polled() bool { return c.link.Polled() }

// OnRefused, Explains, Refuse and RefuseSoon are those of the connection.
func (c *counted) OnRefused(end func(*attest.Result)) {
	if o, ok := c.Conn.(interface{ OnRefused(func(*attest.Result)) }); ok {
		o.OnRefused(end)
	}
}

func (c *counted) Explains() bool {
	e, ok := c.Conn.(interface{ Explains() bool })
	return ok && e.Explains()
}

func (c *counted) Refuse(r *attest.Result) {
	if o, ok := c.Conn.(interface{ Refuse(*attest.Result) }); ok {
		o.Refuse(r)
		return
	}
	loop.Reset(c.Conn.NetConn())
}

func (c *counted) RefuseSoon(r *attest.Result) {
	if o, ok := c.Conn.(interface{ RefuseSoon(*attest.Result) }); ok {
		o.RefuseSoon(r)
		return
	}
	loop.Reset(c.Conn.NetConn())
}

// Failed tells of a listener that has broken.
func (r *Runtime) Failed() <-chan error { return r.failed }

// ListenerStatus is what is known of a listener.
type ListenerStatus struct {
	Name     string
	Address  net.Addr
	Config   config.Listener
	Stats    Stats
	Requests tally.RequestStats
	Chains   []ChainStatus // in the order of the configuration, with that for all others last; of which it has none where they are not told apart
}

// Listeners are those of now, in order of their names.
func (r *Runtime) Listeners() []ListenerStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []ListenerStatus
	for _, p := range r.ports {
		stats, chains := p.status()
		all = append(all, ListenerStatus{p.config.Label(), p.listener.Addr(), p.config, stats, p.stats.tally.Stats(), chains})
	}
	slices.SortFunc(all, func(a, b ListenerStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Clusters are those of now, in order of their names.
func (r *Runtime) Clusters() []*Cluster {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*Cluster
	for _, m := range r.clusters {
		all = append(all, m.Cluster)
	}
	slices.SortFunc(all, func(a, b *Cluster) int { return strings.Compare(a.balance.Name(), b.balance.Name()) })
	return all
}

// Sockets are those that are listened on, by the addresses that the configuration has.
func (r *Runtime) Sockets() map[string]net.Listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]net.Listener, len(r.ports))
	for address, p := range r.ports {
		all[address] = p.listener
	}
	return all
}

// Leave stops accepting at all listeners: somebody else has their sockets. Shutdown does the rest, and hurries nobody, as
// Server.Retire does.
func (r *Runtime) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	for _, p := range r.ports {
		p.leave()
	}
}

// leave stops accepting.
func (p *port) leave() {
	p.once.Do(func() {
		close(p.gone)
		_ = p.accepts.Close()
	})
}

// Shutdown ends all listeners as Server.Shutdown does, and answers ctx's error when something had to be cut off.
func (r *Runtime) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	ports := r.ports
	end := (*Server).Shutdown
	if r.left { // closing what is idle could meet a request, for which there is somebody
		end = (*Server).Retire
	}
	r.mu.Unlock()
	var all sync.WaitGroup
	errs := make(chan error, len(ports))
	for _, p := range ports {
		p.leave()
		all.Go(func() { errs <- end(p.server.Load(), ctx) })
	}
	all.Wait()
	stop := context.AfterFunc(ctx, r.cancel) // those that were replaced have as much time
	r.retiring.Wait()
	stop()
	r.cancel()
	r.applying.Lock() // what is being made for nothing is let go of first
	defer r.applying.Unlock()
	r.work.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}
