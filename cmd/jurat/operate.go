package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/handover"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// resultOf is the verdict about a peer; nil where none was reached.
func resultOf(conn *ratls.Conn, err error) *attest.Result {
	var refusal *ratls.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Result
	case err == nil && conn != nil:
		return conn.Result()
	}
	return nil
}

// operation is a running proxy.
type operation struct {
	app       *app
	log       *slog.Logger
	level     *slog.LevelVar
	shared    *shared
	runtime   *proxy.Runtime
	access    *accesslog.Writer // nil where there is none
	metrics   *metrics.Metrics
	inherited *handover.Inherited
	listeners listeners
	adopted   []*net.UnixListener // taken over
	admin     net.Listener        // nil where there is none
	reloads   chan os.Signal
	reopens   chan os.Signal
	started   time.Time
	stop      context.CancelCauseFunc
	sharing   sharing // of public certificates

	draining atomic.Bool
	drained  atomic.Pointer[drained] // listeners that the admin API has ended: SIGHUP brings them back, and a control plane does not
	changing sync.Mutex              // of the configuration

	mu       sync.Mutex
	current  *generation
	follower *follower      // nil where there is no control plane
	secrets  *secrets       // nil where no Envoy gets any
	old      sync.WaitGroup // generations that are still needed
}

// operate runs a configuration until ctx ends, then drains.
func (a *app) operate(ctx context.Context, c *serveConfig) (err error) {
	level := new(slog.LevelVar)
	log := newLogger(a.stderr, c.jsonLog, level)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	o := &operation{app: a, log: log, level: level, started: a.now(), stop: stop, reloads: make(chan os.Signal, 1), reopens: make(chan os.Signal, 1)}
	// From now on they end nothing, whatever else goes on.
	signal.Notify(o.reloads, syscall.SIGHUP)
	signal.Notify(o.reopens, syscall.SIGUSR1)
	if err := keepMemory(); err != nil {
		log.Warn("the memory of this process may be written to disk", "error", err.Error())
	}
	o.metrics = metrics.New(metrics.Build{Version: buildInfo().Version, Go: runtime.Version()}, o.snapshot)
	endorser, err := c.endorsers.endorser(a)
	if err != nil {
		return err
	}
	records, err := c.evidence.recorder(a, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.close()) }()
	o.shared = &shared{endorser: endorser, records: records, listeners: o.listen, peers: new(peerTallies), vault: newVault(), renewed: func() { o.handing().publish() }}
	defer o.shared.vault.close()
	o.sharing = sharing{operation: o, served: map[string]*served{}}
	defer o.sharing.end()
	o.shared.enforcer = enforce.New((&appraisers{endorser: endorser}).of, a.now, swept(log))
	observer, closeLogs, err := o.observe(c)
	if err != nil {
		return err
	}
	defer closeLogs()
	engine, err := proxy.NewEngine(0, log)
	if err != nil {
		return err
	}
	defer engine.Close()
	if c.Process.Takeover != "" {
		if o.inherited, err = handover.Take(ctx, c.file(c.Process.Takeover)); err != nil {
			return &attest.Error{Code: attest.CodeListen, Check: "takeover", Err: err}
		}
		defer o.inherited.Close()
	}
	o.runtime = proxy.NewRuntime(engine, c.drain, observer, log)
	var work sync.WaitGroup
	work.Go(func() { endorser.run(ctx) })
	if !a.crowded {
		work.Go(func() { tidy(ctx) })
	}
	work.Go(func() { o.enforcing(ctx) })
	defer work.Wait()
	defer stop(nil)
	if err := o.begin(ctx, c); err != nil {
		o.runtime.Shutdown(ctx)
		return err
	}
	adminDone, err := o.serveAdmin(c)
	if err != nil {
		o.end(c.drain)
		return err
	}
	defer adminDone()
	defer o.end(c.drain)
	handed, err := o.hand(c)
	if err != nil {
		return err
	}
	defer handed()
	offer, err := o.succeed(c)
	if err != nil {
		return err
	}
	defer offer()
	followed, err := o.follow(ctx, c)
	if err != nil {
		return err
	}
	defer followed()
	work.Go(func() { watchdog(ctx, func() bool { return o.generation().healthy(a.now()) }) })
	notify(daemon.SdNotifyReady)
	o.wait(ctx, c)
	notify(daemon.SdNotifyStopping)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// succeed has the process before this one leave, and offers its place to the next one.
func (o *operation) succeed(c *serveConfig) (done func(), err error) {
	if c.Process.Takeover == "" {
		return func() {}, nil
	}
	place, err := handover.Prepare(c.file(c.Process.Takeover))
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "takeover", Subject: c.Process.Takeover, Err: err, Hint: "name a socket in a directory that can be written"}
	}
	if err := o.inherited.Ready(); err != nil {
		o.log.Warn("the process before this one", "error", err.Error())
	}
	for _, ln := range o.adopted {
		ln.SetUnlinkOnClose(true)
	}
	offer, err := place.Offer(o.sockets, o.leave)
	if err != nil { // by now this process is the only one
		o.log.Error("no other process can take over", "error", err.Error())
		return func() {}, nil
	}
	return func() { _ = offer.Close() }, nil
}

// wait does what signals ask for until ctx ends.
func (o *operation) wait(ctx context.Context, c *serveConfig) {
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-o.runtime.Failed():
			o.stop(err)
		case <-o.reopens:
			go func() { // which a pipe that nobody reads can hold up
				ctx, cancel := context.WithTimeout(ctx, lastWords)
				defer cancel()
				if err := o.reopenLogs(ctx); err != nil {
					o.log.Error("access log", "error", err.Error())
				}
			}()
		case <-o.reloads:
			notify(daemon.SdNotifyReloading)
			o.reload(ctx, c)
			notify(daemon.SdNotifyReady)
		}
	}
}

func (o *operation) generation() *generation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// following is who takes the configuration of a control plane; nil where there is none.
func (o *operation) following() *follower {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.follower
}

// handing is who hands secrets out; nil where nobody does.
func (o *operation) handing() *secrets {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.secrets
}

// begin applies the first configuration.
func (o *operation) begin(ctx context.Context, c *serveConfig) error {
	g, err := o.app.newGeneration(context.WithoutCancel(ctx), c, o.shared, o.log)
	if err != nil {
		return err
	}
	if _, err := o.sharing.open(g); err != nil {
		g.end()
		return err
	}
	g.announce()
	if err := o.runtime.Apply(ctx, &c.Proxy, g.epoch, g); err != nil {
		g.end()
		return err
	}
	g.enforce(ctx)
	o.current = g
	o.listening(nil)
	if err := o.sharing.use(g); err != nil {
		g.end()
		return err
	}
	return nil
}

// listening tells of the addresses that are new.
func (o *operation) listening(before map[string]bool) {
	g := o.current
	for _, l := range o.runtime.Listeners() {
		if before[l.Config.Address] {
			continue
		}
		mode, to := "http", l.Config.To
		switch {
		case len(l.Config.Chains) > 0:
			mode, to = "chains", "by chain"
		case len(l.Config.Passthrough) > 0:
			mode, to = "passthrough", "by server name"
		case len(l.Config.Forward) > 0:
			mode, to = "forward-proxy", "where clients ask for"
		case l.Config.TCP && l.Config.Plain:
			mode = "forward"
		case l.Config.TCP:
			mode = "tcp"
		}
		switch {
		case len(l.Config.Chains) > 0:
		case l.Config.Cluster != "":
			to = l.Config.Cluster
		case l.Config.HTTP != nil:
			to = "routes"
		}
		g.log.Info("listening", "address", l.Address.String(), "to", to, "mode", mode)
	}
}

// reload applies the configuration file anew. What is wrong with it changes nothing.
func (o *operation) reload(ctx context.Context, first *serveConfig) {
	if first.source == "" || first.source == "-" {
		o.log.Warn("nothing to load anew: the configuration came from flags")
		return
	}
	c := &serveConfig{jsonLog: first.jsonLog, endorsers: first.endorsers, evidence: first.evidence}
	if err := o.app.loadConfig(first.source, c); err != nil {
		o.log.Error("the configuration stays as it is", "code", string(attest.CodeOf(err)), "error", err.Error())
		return
	}
	if err := fixedXDS(first, c); err != nil {
		o.log.Error("the configuration stays as it is", "code", string(attest.CodeOf(err)), "error", err.Error())
		return
	}
	if !c.Process.equal(&first.Process) || c.drain != first.drain {
		o.log.Warn("admin, access_log, tracing, takeover and drain change with a restart only")
		c.Process, c.drain = first.Process, first.drain
	}
	if !c.SDS.movesTo(first.SDS) {
		o.log.Warn("sds.address changes with a restart only")
		return
	}
	g, err := o.app.newGeneration(context.WithoutCancel(ctx), c, o.shared, o.log)
	if err == nil && g.epoch == o.generation().epoch && !o.draining.Load() && o.drained.Load() == nil {
		g.end()
		o.log.Info("the configuration is the same", "digest", g.epoch)
		return
	}
	undo := func() {}
	if err == nil {
		if undo, err = o.sharing.open(g); err != nil {
			g.end()
		}
	}
	if err == nil {
		exchange := func(carry func(*generation) error) error { return o.exchange(ctx, g, first.drain, carry) }
		if f := o.following(); f != nil {
			err = f.replace(c, exchange)
		} else {
			err = exchange(func(g *generation) error { return g.carry(ctx, o.generation(), o.runtime) })
		}
		if err != nil {
			undo()
			g.end()
		}
	}
	if err != nil {
		o.log.Error("the configuration stays as it is", "code", string(attest.CodeOf(err)), "error", err.Error())
	}
}

// exchange puts a generation in the place of the one before, once carry has carried it out. That one goes on until its connections are drained.
func (o *operation) exchange(ctx context.Context, g *generation, drain time.Duration, carry func(*generation) error) error {
	o.changing.Lock()
	defer o.changing.Unlock()
	old, held := o.generation(), o.drained.Swap(nil)
	before := map[string]bool{}
	for _, l := range o.runtime.Listeners() {
		before[l.Config.Address] = true
	}
	if err := carry(g); err != nil {
		o.drained.Store(held)
		return err
	}
	o.mu.Lock()
	o.current = g
	o.mu.Unlock()
	o.draining.Store(false)
	o.handing().use(g)
	if err := o.sharing.use(g); err != nil {
		o.log.Error("replicas are served as before", "code", string(attest.CodeOf(err)), "error", err.Error())
	}
	o.log.Info("configuration changed", "digest", g.epoch)
	if o.following() == nil {
		o.listening(before)
	}
	// Its connections may attest anew until they are drained.
	o.old.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(drain + time.Second):
		}
		old.end()
	})
	return nil
}

// carry carries a generation out in the place of another one.
func (g *generation) carry(ctx context.Context, old *generation, run *proxy.Runtime) error {
	g.replaced = old
	g.announce()
	if err := run.Apply(ctx, &g.Proxy, g.epoch, g); err != nil {
		g.withdraw()
		return err
	}
	g.enforce(ctx) // before anything else: what the new policies refuse is not to go on until it is drained
	g.replaced = nil
	return nil
}

// end drains, and says what was carried.
func (o *operation) end(limit time.Duration) {
	g := o.generation()
	g.log.Info("draining", "limit", limit.String())
	o.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := o.runtime.Shutdown(ctx); err != nil {
		g.log.Warn("connections cut off", "error", err.Error())
	}
	for _, l := range o.runtime.Listeners() {
		st := l.Stats
		g.log.Info("totals", "address", l.Address.String(), "accepted", st.Accepted, "handshakes", st.Handshakes, "bindings", st.Bindings,
			"refused", st.Refused, "requests", st.Requests, "bytes_in", st.BytesIn, "bytes_out", st.BytesOut)
	}
	o.old.Wait()
	g.end()
}

// listen opens an address of a listener.
func (o *operation) listen(address string) (net.Listener, error) {
	return o.obtain(address, func() (net.Listener, error) { return o.bind(address) })
}

// bind opens an address.
func (o *operation) bind(address string) (net.Listener, error) {
	if o.app.listen != nil {
		return o.app.listen(address)
	}
	return o.listeners.open(address)
}

// obtain takes a socket over from the process before this one, or opens it where there is none.
func (o *operation) obtain(name string, open func() (net.Listener, error)) (net.Listener, error) {
	ln, ok := o.inherited.Listener(name)
	if !ok {
		return open()
	}
	if u, ok := ln.(*net.UnixListener); ok && !isSystemd(name) {
		o.adopted = append(o.adopted, u)
	}
	return ln, nil
}

// adminSocket is the name that the socket of the admin API is handed over by.
const adminSocket = "admin "

// sockets answers those that are in use.
func (o *operation) sockets() map[string]net.Listener {
	all := o.runtime.Sockets()
	if o.admin != nil {
		all[adminSocket] = o.admin
	}
	if ln := o.handing().listener(); ln != nil {
		all[sdsSocket] = ln
	}
	maps.Copy(all, o.sharing.sockets())
	return all
}

// leave makes room for the process that has taken over: it accepts no more, and drains.
func (o *operation) leave() {
	for _, ln := range o.sockets() {
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it is the successor's
		}
	}
	o.log.Info("another process has taken over")
	o.runtime.Leave()
	if o.admin != nil {
		_ = o.admin.Close()
	}
	if ln := o.handing().listener(); ln != nil {
		_ = ln.Close()
	}
	for _, ln := range o.sharing.sockets() {
		_ = ln.Close()
	}
	o.stop(nil)
}

// observe opens what is told of requests.
func (o *operation) observe(c *serveConfig) (observer proxy.Observer, done func(), err error) {
	tracer, flush, err := o.tracing(c)
	if err != nil {
		return observer, nil, err
	}
	observer.Tracer = tracer
	end := func(last func(context.Context)) {
		ctx, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		last(ctx)
	}
	closeLog, err := o.openLog(c, &observer)
	if err != nil {
		end(flush)
		return observer, nil, err
	}
	return observer, func() {
		end(closeLog)
		end(flush)
	}, nil
}

// lastWords is how long the end of the process waits for what is to be told.
const lastWords = 5 * time.Second

// openLog opens the access log, where there is to be one.
func (o *operation) openLog(c *serveConfig, observer *proxy.Observer) (done func(context.Context), err error) {
	cfg := c.Process.AccessLog
	if cfg == nil {
		return func(context.Context) {}, nil
	}
	format, err := accesslog.ParseFormat(cmp.Or(cfg.Format, "text"))
	if err != nil {
		return nil, err
	}
	var open accesslog.Opener
	switch cfg.Path {
	case "-", "stdout":
		open = accesslog.Stream(o.app.stdout)
	case "stderr":
		open = accesslog.Stream(o.app.stderr)
	default:
		open = accesslog.File(c.file(cfg.Path))
	}
	if o.access, err = accesslog.New(open, accesslog.Options{Format: format, Log: o.log}); err != nil {
		return nil, err
	}
	observer.Log = o.access.Log
	return func(ctx context.Context) {
		if err := o.access.Close(ctx); err != nil {
			o.log.Error("access log", "error", err.Error())
		}
	}, nil
}

func (o *operation) reopenLogs(ctx context.Context) error { return o.access.Reopen(ctx) }
