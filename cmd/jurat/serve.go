package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

const (
	defaultDrain = 30 * time.Second
	quoteTimeout = time.Minute // for the first leaf
)

// serveConfig is what serve and forward run. Its JSON is what the configuration digest in every leaf is made of.
type serveConfig struct {
	TEE      string        `json:"tee"` // "" presents no evidence
	Names    []string      `json:"names"`
	Lifetime time.Duration `json:"lifetime"`
	Session  sessionConfig `json:"session"`
	Inbound  []inbound     `json:"inbound"`
	Outbound []outbound    `json:"outbound"`

	drain     time.Duration
	jsonLog   bool
	endorsers endorserFlags
	evidence  logFlags
}

// sessionConfig is what both ends of a session have to agree on beforehand.
type sessionConfig struct {
	Profile   session.Profile `json:"profile"`
	Extension uint16          `json:"extension"` // codepoint of cmw_attestation; 0 for ours
}

// inbound takes attested connections to a plain service.
type inbound struct {
	Address string `json:"address"`
	To      string `json:"to"`
	TCP     bool   `json:"tcp"`
	Policy  string `json:"policy"` // id of the policy that clients have to meet; "" asks them for nothing
	// Reattest is how often clients have to attest anew; 0 for half of the policy's freshness.evidence.
	Reattest time.Duration `json:"reattest"`

	backend proxy.Backend
	require *policy.Policy
}

// outbound takes plain connections to an attested peer.
type outbound struct {
	Address string `json:"address"`
	Target  string `json:"target"`
	Policy  string `json:"policy"`
	// Reattest is how often the peer has to attest anew; 0 for half of the policy's freshness.evidence.
	Reattest time.Duration `json:"reattest"`

	require *policy.Policy
}

// digest is the digest of the measured configuration.
func (c *serveConfig) digest() ([32]byte, error) {
	raw, err := json.Marshal(c)
	return sha256.Sum256(raw), err
}

// serve runs the proxy before a service.
func (a *app) serve(ctx context.Context, args []string) error {
	fs := a.flags("serve --tee auto|snp|sim --listen ADDR --to ADDR [flags] | serve -c jurat.yaml [--check]")
	c := &serveConfig{}
	var in inbound
	var names list
	var require, file, logFormat string
	fs.StringVar(&file, "c", "", "configuration `FILE` instead of the flags")
	fs.StringVar(&file, "config", "", "the same as -c")
	check := fs.Bool("check", false, "check the configuration and stop")
	fs.StringVar(&c.TEE, "tee", "auto", teeUsage())
	fs.StringVar(&in.Address, "listen", "", "`ADDR` to listen on: host:port, unix:/path or systemd:NAME")
	fs.StringVar(&in.To, "to", "", "`ADDR` of the service: host:port, h2c://host:port or unix:/path")
	fs.BoolVar(&in.TCP, "tcp", false, "carry raw bytes instead of HTTP")
	fs.Var(&names, "name", "`NAME` or IP address that clients connect by; repeat for more (default: localhost and this host)")
	fs.StringVar(&require, "require", "", "`policy.yaml` that clients have to meet (mutual attestation)")
	fs.DurationVar(&in.Reattest, "reattest", 0, reattestUsage)
	fs.DurationVar(&c.Lifetime, "lifetime", ratls.DefaultLifetime, "validity of a leaf certificate; it is renewed after half of it")
	fs.DurationVar(&c.drain, "drain", defaultDrain, "time that open connections get at the end")
	fs.StringVar(&logFormat, "log", "text", "log `format`: text or json")
	c.endorsers.register(fs)
	c.evidence.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return usageError("serve takes no argument, got %.40q", rest[0])
	}
	if c.jsonLog, err = logJSON(logFormat); err != nil {
		return err
	}
	if err := c.evidence.check(); err != nil {
		return err
	}
	set := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	if file != "" {
		for name := range set {
			if !slices.Contains(append(endorserFlagNames(), "c", "config", "check", "log", "log-dir", "log-key"), name) {
				return usageError("--%s belongs into %s, or leave out -c", name, file)
			}
		}
		if err := a.loadConfig(file, c); err != nil {
			return err
		}
	} else {
		if in.Address == "" || in.To == "" {
			return usageError("serve needs --listen ADDR and --to ADDR, or -c jurat.yaml")
		}
		c.Names = names
		if require != "" {
			if in.require, err = a.loadPolicy(require); err != nil {
				return err
			}
		}
		c.Inbound = []inbound{in}
	}
	if err := c.complete(); err != nil {
		return err
	}
	if *check {
		_, err := fmt.Fprintf(a.stdout, "ok: %d to listen on, %d to forward\n", len(c.Inbound), len(c.Outbound))
		return err
	}
	return a.operate(ctx, c)
}

// forward runs a plain local port before an attested peer.
func (a *app) forward(ctx context.Context, args []string) error {
	fs := a.flags("forward -p policy.yaml --listen ADDR TARGET")
	c := &serveConfig{Lifetime: ratls.DefaultLifetime}
	var out outbound
	var policyFile, logFormat, binding string
	var names list
	fs.StringVar(&policyFile, "policy", "", "appraisal policy `FILE`")
	fs.StringVar(&policyFile, "p", "", "short for --policy")
	fs.StringVar(&out.Address, "listen", "", "`ADDR` to listen on, in plain: host:port or unix:/path")
	fs.StringVar(&c.TEE, "tee", "", teeUsage()+" (default: present none)")
	fs.Var(&names, "name", "`NAME` to put into our own leaf; repeat for more")
	fs.DurationVar(&out.Reattest, "reattest", 0, reattestUsage)
	fs.StringVar(&binding, "unsafe-binding", "", unsafeBindingUsage)
	unsafeListen := fs.Bool("unsafe-listen", false, "listen in plain on an address that other machines can reach")
	fs.DurationVar(&c.drain, "drain", defaultDrain, "time that open connections get at the end")
	fs.StringVar(&logFormat, "log", "text", "log `format`: text or json")
	c.endorsers.register(fs)
	c.evidence.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || out.Address == "" || policyFile == "" {
		return usageError("forward needs -p policy.yaml, --listen ADDR and one TARGET")
	}
	if c.jsonLog, err = logJSON(logFormat); err != nil {
		return err
	}
	if err := c.evidence.check(); err != nil {
		return err
	}
	if out.require, err = a.loadPolicy(policyFile); err != nil {
		return err
	}
	if out.require, err = a.tolerate(out.require, binding); err != nil {
		return err
	}
	if !*unsafeListen && !isLocal(out.Address) {
		return usageError("--listen %s would hand the attested connection to other machines in plain; use a loopback address, or say --unsafe-listen", out.Address)
	}
	out.Target, c.Names = rest[0], names
	c.Outbound = []outbound{out}
	if err := c.complete(); err != nil {
		return err
	}
	return a.operate(ctx, c)
}

const reattestUsage = "how often a peer has to attest anew while its connection is open (default, and at most: half of the policy's freshness.evidence)"

func checkReattest(d time.Duration) error {
	if d != 0 && d < minReattest {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "reattest", Got: d.String(), Want: "at least " + minReattest.String()}
	}
	return nil
}

// longestReattest is half of the age at which a policy takes evidence no more: the answer may take as long again, and a
// connection is not to outlive what it stands on.
func longestReattest(p *policy.Policy) time.Duration { return max(p.EvidenceAge()/2, minReattest) }

func checkSeldom(d time.Duration, p *policy.Policy) error {
	if most := longestReattest(p); d > most {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "reattest", Got: d.String(), Want: "at most " + most.String() + ", half of the policy's freshness.evidence"}
	}
	return nil
}

func logJSON(format string) (bool, error) {
	switch format {
	case "json":
		return true, nil
	case "text":
		return false, nil
	}
	return false, usageError("--log %.40q is not known; it is text or json", format)
}

// isLocal reports whether only this machine can reach a listening address.
func isLocal(address string) bool {
	kind, addr := network(address)
	if kind == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// complete checks what can be checked before anything is opened.
func (c *serveConfig) complete() error {
	if len(c.Inbound)+len(c.Outbound) == 0 {
		return &attest.Error{Code: attest.CodeConfigMissing, Check: "config", Want: "an entry in listen or upstreams"}
	}
	if c.TEE != "" || len(c.Inbound) > 0 {
		if err := checkTEE(c.TEE); err != nil {
			return err
		}
	}
	if err := ratls.CheckLifetime(c.Lifetime); err != nil {
		return err
	}
	if c.drain < 0 {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "drain", Got: c.drain.String(), Want: "a length of time"}
	}
	for i := range c.Inbound {
		in := &c.Inbound[i]
		backend, err := in.parseBackend()
		if err != nil {
			return err
		}
		in.backend = backend
		if err := checkReattest(in.Reattest); err != nil {
			return err
		}
		if in.require != nil {
			in.Policy = in.require.ID()
			if err := checkSeldom(in.Reattest, in.require); err != nil {
				return err
			}
		} else if in.Reattest != 0 {
			return &attest.Error{Code: attest.CodeConfigMissing, Check: "reattest", Got: "reattest " + in.Reattest.String() + " of clients that are asked for no evidence", Want: "require beside it"}
		}
		if err := checkAddress(in.Address); err != nil {
			return err
		}
	}
	for i := range c.Outbound {
		out := &c.Outbound[i]
		target, err := targetAddress(out.Target)
		if err != nil {
			return err
		}
		out.Target, out.Policy = target, out.require.ID()
		if err := errors.Join(checkReattest(out.Reattest), checkSeldom(out.Reattest, out.require)); err != nil {
			return err
		}
		if err := checkAddress(out.Address); err != nil {
			return err
		}
	}
	if len(c.Inbound) > 0 && len(c.Names) == 0 {
		c.Names = c.defaultNames()
	}
	for _, n := range c.Names {
		if err := ratls.CheckName(n); err != nil {
			return err
		}
	}
	slices.Sort(c.Names)
	c.Names = slices.Compact(c.Names)
	return nil
}

func (in *inbound) parseBackend() (proxy.Backend, error) {
	backend, err := proxy.ParseBackend(in.To)
	if err == nil && in.TCP {
		err = backend.CheckRaw()
	}
	return backend, err
}

func checkAddress(address string) error {
	kind, addr := network(address)
	ok := addr != ""
	if kind == "tcp" && !isSystemd(address) {
		_, port, err := net.SplitHostPort(addr)
		if ok = err == nil; ok {
			_, err = net.LookupPort("tcp", port)
			ok = err == nil
		}
	}
	if !ok {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "listen", Got: fmt.Sprintf("%.100q", address), Want: "host:port, unix:/path or systemd:NAME"}
	}
	return nil
}

// defaultNames are those by which this machine and its own users reach it.
func (c *serveConfig) defaultNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && ratls.CheckName(host) == nil {
		names = append(names, host)
	}
	for _, in := range c.Inbound {
		host, _, err := net.SplitHostPort(in.Address)
		if ip := net.ParseIP(host); err != nil || host == "" || isSystemd(in.Address) || ip != nil && ip.IsUnspecified() {
			continue
		}
		names = append(names, host)
	}
	return names
}

// running is one server with its listener.
type running struct {
	server   *proxy.Server
	listener net.Listener
	mode     string
	to       string
}

// operate runs a configuration until ctx ends, then drains.
func (a *app) operate(ctx context.Context, c *serveConfig) error {
	log := newLogger(a.stderr, c.jsonLog)
	endorser, err := c.endorsers.endorser(a)
	if err != nil {
		return err
	}
	var id *ratls.Identity
	if c.TEE != "" {
		if id, log, err = c.identity(ctx, a, endorser, log); err != nil {
			return err
		}
	}
	records, err := c.evidence.recorder(a, log)
	if err != nil {
		return err
	}
	engine, err := proxy.NewEngine(0, log)
	if err != nil {
		return errors.Join(err, records.close())
	}
	defer engine.Close()
	servers, err := a.open(c, engine, id, endorser, records, log)
	if err != nil {
		return errors.Join(err, records.close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	if id != nil {
		work.Go(func() { id.Run(ctx) })
	}
	work.Go(func() { endorser.run(ctx) })
	for _, s := range servers {
		work.Go(func() {
			if err := s.server.Serve(s.listener); err != nil {
				cancel(&attest.Error{Code: attest.CodeListen, Check: "listen", Subject: s.listener.Addr().String(), Err: err})
			}
		})
		log.Info("listening", "address", s.listener.Addr().String(), "to", s.to, "mode", s.mode)
	}
	work.Go(func() { watchdog(ctx, func() bool { return healthy(id, a.now()) }) })
	notify(daemon.SdNotifyReady)
	<-ctx.Done()
	notify(daemon.SdNotifyStopping)
	log.Info("draining", "limit", c.drain.String())
	drain(servers, c.drain, log)
	work.Wait()
	if id != nil {
		q := id.Quotes()
		log.Info("quotes", "made", q.Quotes, "sessions", q.Sessions, "failed", q.Failures, "crowded_out", q.Crowded, "breaker", q.Breaker)
		id.Close()
	}
	if err := records.close(); err != nil {
		log.Error("evidence log", "error", err.Error())
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// healthy reports whether there is a leaf to serve.
func healthy(id *ratls.Identity, now time.Time) bool {
	return id == nil || now.Before(id.Leaf().Certificate.NotAfter)
}

func (c *serveConfig) identity(ctx context.Context, a *app, endorser attest.Endorser, log *slog.Logger) (*ratls.Identity, *slog.Logger, error) {
	tee, err := openTEE(c.TEE, endorser, log)
	if err != nil {
		return nil, nil, err
	}
	if tee.simulated {
		log = log.With("platform", "SIMULATED")
	}
	digest, err := c.digest()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, quoteTimeout)
	defer cancel()
	id, err := ratls.NewIdentity(ctx, tee, c.Names, digest, ratls.IdentityOptions{
		Lifetime: c.Lifetime, Now: a.now,
		OnRenew: func(leaf *ratls.Leaf, err error) {
			if err != nil {
				log.Error("no new leaf", "code", string(attest.CodeOf(err)), "error", err.Error())
				return
			}
			log.Info("new leaf", "pin", ratls.Pin(leaf.Certificate), "names", c.Names, "until", leaf.Certificate.NotAfter.UTC().Format(time.RFC3339), "evidence", fmt.Sprintf("%x", leaf.Digest), "tee", tee.name)
		},
	})
	return id, log, err
}

// open opens every listener and makes its server. On an error nothing stays open.
func (a *app) open(c *serveConfig, engine *proxy.Engine, id *ratls.Identity, endorser attest.Endorser, records *recorder, log *slog.Logger) (servers []running, err error) {
	defer func() {
		if err != nil {
			for _, s := range servers {
				_ = s.listener.Close()
			}
		}
	}()
	var inherited listeners
	for _, in := range c.Inbound {
		acceptor := in.acceptor(a, id, recording{endorser}, c.Session, log)
		handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
			ctx, fetched := records.watch(ctx, endorser)
			conn, err := acceptor.Handshake(ctx, raw)
			records.appraised(conn, err, &record.Record{Target: raw.RemoteAddr().String(), Client: true}, fetched)
			if err != nil {
				return nil, err
			}
			return conn, nil
		}
		s := running{mode: "http", to: in.backend.String()}
		if in.TCP {
			s.mode = "tcp"
			s.server, err = proxy.NewInboundTCP(engine, handshake, in.backend, log, proxy.Limits{})
		} else {
			s.server, err = proxy.NewInboundHTTP(engine, handshake, in.backend, log, proxy.Limits{})
		}
		if err != nil {
			return servers, err
		}
		if s.listener, err = inherited.open(in.Address); err != nil {
			return servers, err
		}
		servers = append(servers, s)
	}
	for _, out := range c.Outbound {
		dial := out.dialer(a, id, endorser, records, c.Session, log)
		s := running{mode: "forward", to: out.Target, server: proxy.NewOutbound(engine, dial, log, proxy.Limits{})}
		if s.listener, err = inherited.open(out.Address); err != nil {
			return servers, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func (in *inbound) acceptor(a *app, id *ratls.Identity, endorser attest.Endorser, sc sessionConfig, log *slog.Logger) *ratls.Acceptor {
	protos := []string{"h2", "http/1.1"}
	if in.TCP {
		protos = nil
	}
	opts := sc.options(a, in.require, in.Reattest, log.With("address", in.Address))
	if in.require == nil {
		return ratls.NewAcceptor(id, protos...).WithSession(opts)
	}
	rp := &relying{policy: in.require, endorser: endorser, now: a.now}
	return ratls.NewMutualAcceptor(id, rp.party(endorser), protos...).WithSession(opts)
}

// options are those of a listener or an upstream. Peers are asked for evidence again at half of the age at which the
// policy takes it no more, so that a connection never outlives what it stands on.
func (sc sessionConfig) options(a *app, require *policy.Policy, every time.Duration, log *slog.Logger) session.Options {
	opts := session.Options{Profile: sc.Profile, Extension: sc.Extension, Store: session.NewStore(session.DefaultEntries, a.now)}
	if require == nil {
		return opts
	}
	opts.Reattest = every
	if every == 0 {
		opts.Reattest = longestReattest(require)
	}
	opts.OnReattest = func(r *attest.Result) {
		if r.Affirmed() {
			log.Debug("peer attested anew", "evidence", r.EvidenceDigest())
			return
		}
		log.Warn("peer refused on an open connection", "code", string(r.Code()), "error", r.Err().Error())
	}
	return opts
}

// minReattest keeps peers from being asked faster than a TEE can answer.
const minReattest = time.Second

func (out *outbound) dialer(a *app, id *ratls.Identity, endorser attest.Endorser, records *recorder, sc sessionConfig, log *slog.Logger) proxy.Dial {
	rp := &relying{policy: out.require, endorser: endorser, now: a.now}
	connector := ratls.NewConnector(rp.party(recording{endorser}))
	if id != nil {
		connector = ratls.NewMutualConnector(id, rp.party(recording{endorser}))
	}
	connector = connector.WithSession(sc.options(a, out.require, out.Reattest, log.With("target", out.Target)))
	shake := func(ctx context.Context, connector *ratls.Connector) (*ratls.Conn, string, error) {
		raw, name, err := ratls.Connect(ctx, out.Target)
		if err != nil {
			return nil, name, err
		}
		conn, err := connector.Handshake(ctx, proxy.Watch(raw), name)
		return conn, name, err
	}
	return func(ctx context.Context) (proxy.Conn, error) {
		ctx, fetched := records.watch(ctx, endorser)
		conn, name, err := shake(ctx, connector)
		if ratls.NoSession(err) {
			conn, name, err = shake(ctx, connector.CertificateOnly()) // which is judged as what it is
		}
		records.appraised(conn, err, &record.Record{Target: out.Target, ServerName: name}, fetched)
		if err != nil {
			return nil, withSubject(err, out.Target)
		}
		return conn, nil
	}
}

// drain ends all servers at once, and says what they carried.
func drain(servers []running, limit time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var work sync.WaitGroup
	for _, s := range servers {
		work.Go(func() {
			if err := s.server.Shutdown(ctx); err != nil {
				log.Warn("connections cut off", "address", s.listener.Addr().String(), "error", err.Error())
			}
			st := s.server.Stats()
			log.Info("totals", "address", s.listener.Addr().String(), "accepted", st.Accepted, "handshakes", st.Handshakes, "bindings", st.Bindings,
				"refused", st.Refused, "requests", st.Requests, "bytes_in", st.BytesIn, "bytes_out", st.BytesOut)
		})
	}
	work.Wait()
}
