package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/ratls/wellknown"
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
	Dialects []string      `json:"dialects,omitempty"` // of other programs, that the certificate speaks as well
	Session  sessionConfig `json:"session"`
	Proxy    config.Config `json:"proxy"`         // names policies as policies does
	Binding  string        `json:"binding"`       // --unsafe-binding of forward
	XDS      *xdsConfig    `json:"xds,omitempty"` // nil for none
	SDS      *sdsConfig    `json:"sds,omitempty"` // nil for none
	Process  processConfig `json:"process"`

	WellKnown bool `json:"well_known,omitempty"` // HTTP clients get evidence for a nonce

	policies  map[string]*policy.Policy
	source    string         // the file, "" where flags are all there is
	dir       string         // of the file, "" where there is none
	unsafe    []unsafeChoice // in the file, or the flags
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

// digest is the digest of the measured configuration: of everything that decides where plaintext goes and who is let in.
// Policies are in it by what they say, not by the names of their files.
func (c *serveConfig) digest() ([32]byte, error) {
	measured := *c
	var unknown error
	id := func(name string) string {
		p := c.policies[name]
		if p == nil {
			unknown = &attest.Error{Code: attest.CodeInternal, Check: "config", Got: fmt.Sprintf("the policy %.100q, which was not read", name)}
			return ""
		}
		return p.ID()
	}
	measured.Proxy, measured.XDS, measured.SDS = c.Proxy.WithPolicies(id), c.XDS.measured(id), c.SDS.measured(id)
	raw, err := json.Marshal(&measured)
	return sha256.Sum256(raw), errors.Join(unknown, err)
}

// serve runs the proxy before a service.
func (a *app) serve(ctx context.Context, args []string) error {
	fs := a.flags("serve --tee auto|snp|sim --listen ADDR --to ADDR [flags] | serve -c jurat.yaml [--check]")
	c := &serveConfig{}
	var in config.Listener
	var names list
	var file, logFormat string
	fs.StringVar(&file, "c", "", "configuration `FILE` instead of the flags")
	fs.StringVar(&file, "config", "", "the same as -c")
	check := fs.Bool("check", false, "check the configuration and stop")
	schema := fs.Bool("schema", false, "write the JSON Schema of configuration files and stop")
	fs.StringVar(&c.TEE, "tee", "auto", teeUsage())
	fs.StringVar(&in.Address, "listen", "", "`ADDR` to listen on: host:port, unix:/path or systemd:NAME")
	fs.StringVar(&in.To, "to", "", "`ADDR` of the service, on this machine: host:port, http://host:port, h2c://host:port or unix:/path")
	fs.BoolVar(&in.UnsafeTo, "unsafe-to", false, "the service may be another machine: what was protected up to here goes there in plain")
	fs.BoolVar(&in.TCP, "tcp", false, "carry raw bytes instead of HTTP")
	fs.Var(&names, "name", "`NAME` or IP address that clients connect by; repeat for more (default: localhost and this host)")
	fs.StringVar(&in.Require, "require", "", "`policy.yaml` that clients have to meet (mutual attestation)")
	fs.DurationVar(&in.Reattest, "reattest", 0, reattestUsage)
	fs.DurationVar(&c.Lifetime, "lifetime", ratls.DefaultLifetime, "validity of a leaf certificate; it is renewed after half of it")
	fs.BoolVar(&c.WellKnown, "well-known", false, "answer "+wellknown.Path+"?nonce= with evidence for the nonce, in place of the service")
	fs.Var((*list)(&c.Dialects), "dialect", "another program's form in which the certificate shows evidence as well (docs/dialects.md): "+strings.Join(dialect.Written(), ", ")+"; repeat for more")
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
	if *schema {
		_, err := a.stdout.Write(fileSchema())
		return err
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
		if to, err := config.ParseService(in.To); err == nil && !in.UnsafeTo && !to.Local() {
			return usageError("%s would get in plain what was protected up to here, and is not this machine; use a loopback address or a unix socket, or say --unsafe-to", in.To)
		}
		c.Names, c.Proxy.Listeners = names, []config.Listener{in}
		if err := c.complete(a, flagged(map[string]string{
			"listen[0].address": "--listen", "listen[0].to": "--to", "listen[0].reattest": "--reattest", "drain": "--drain",
		})); err != nil {
			return err
		}
	}
	if *check {
		plain := 0
		for i := range c.Proxy.Listeners {
			if c.Proxy.Listeners[i].PlainOnly() {
				plain++
			}
		}
		also := ""
		if c.XDS != nil {
			also = ", and what a control plane sends"
		}
		if c.SDS != nil {
			also += fmt.Sprintf(", and %d secrets for Envoy", len(c.SDS.Identities)+len(c.SDS.Peers))
		}
		_, err := fmt.Fprintf(a.stdout, "ok: listeners: %d, of them plain: %d, clusters: %d%s\n", len(c.Proxy.Listeners), plain, len(c.Proxy.Clusters), also)
		return err
	}
	return a.operate(ctx, c)
}

// flagged answers errors about a configuration that flags made, with the flags in place of the paths of values.
func flagged(flags map[string]string) func(error) error {
	return func(err error) error { return placed(err, func(path string) string { return flags[path] }) }
}

// forward runs a plain local port before an attested peer.
func (a *app) forward(ctx context.Context, args []string) error {
	fs := a.flags("forward -p policy.yaml --listen ADDR TARGET | forward -p policy.yaml --listen ADDR --proxy --allow HOST[:PORT]... | forward --socks ADDR --connect ADDR --allow HOST[:PORT]=policy.yaml...")
	c := &serveConfig{Lifetime: ratls.DefaultLifetime}
	var out upstreamConfig
	var logFormat string
	var names list
	fs.StringVar(&out.Require, "policy", "", "appraisal policy `FILE`")
	fs.StringVar(&out.Require, "p", "", "short for --policy")
	fs.StringVar(&out.Listen, "listen", "", "`ADDR` to listen on, in plain: host:port or unix:/path")
	fs.StringVar(&c.TEE, "tee", "", teeUsage()+" (default: present none)")
	fs.Var(&names, "name", "`NAME` to put into our own leaf; repeat for more")
	fs.DurationVar(&out.Reattest, "reattest", 0, reattestUsage)
	fs.StringVar(&c.Binding, "unsafe-binding", "", unsafeBindingUsage)
	var fp forwardProxyFlags
	fp.register(fs)
	fs.BoolVar(&out.UnsafeListen, "unsafe-listen", false, "listen in plain on an address that other machines can reach")
	fs.DurationVar(&c.drain, "drain", defaultDrain, "time that open connections get at the end")
	fs.StringVar(&logFormat, "log", "text", "log `format`: text or json")
	c.endorsers.register(fs)
	c.evidence.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	addresses := fp.addresses(out.Listen)
	isProxy := len(addresses) > 0
	switch {
	case isProxy && (len(rest) != 0 || fp.proxy != (out.Listen != "")):
		return usageError("forward --proxy needs --listen ADDR and no TARGET: its clients name their own; --socks ADDR and --connect ADDR go without --listen")
	case !isProxy && (len(rest) != 1 || out.Listen == "" || out.Require == ""):
		return usageError("forward needs -p policy.yaml, --listen ADDR and one TARGET")
	case !isProxy:
		addresses = []string{out.Listen}
	}
	if err := fp.check(isProxy); err != nil {
		return err
	}
	if c.jsonLog, err = logJSON(logFormat); err != nil {
		return err
	}
	if err := c.evidence.check(); err != nil {
		return err
	}
	for _, address := range addresses {
		if !out.UnsafeListen && !config.Local(address) {
			return usageError("listening on %s would hand the attested connection to other machines in plain; use a loopback address, or say --unsafe-listen", address)
		}
	}
	if a.listen == nil && !out.UnsafeListen {
		a.listen = ownSockets()
	}
	c.Names = names
	if isProxy {
		if c.Proxy.Listeners, err = fp.listeners(out); err != nil {
			return err
		}
		flags := map[string]string{"drain": "--drain"}
		for i, l := range c.Proxy.Listeners {
			at := fmt.Sprintf("listen[%d]", i)
			flags[at+".address"] = map[string]string{out.Listen: "--listen", fp.socks: "--socks", fp.connect: "--connect"}[l.Address]
			for j := range l.Forward {
				flags[fmt.Sprintf("%s.forward[%d].reattest", at, j)] = "--reattest"
			}
		}
		if err := c.complete(a, flagged(flags)); err != nil {
			return err
		}
		return a.operate(ctx, c)
	}
	out.Target = rest[0]
	out.Name = out.Target
	l, cl, err := out.compile()
	if err != nil {
		return err
	}
	c.Proxy = config.Config{Listeners: []config.Listener{l}, Clusters: []config.Cluster{cl}}
	if err := c.complete(a, flagged(map[string]string{"listen[0].address": "--listen", "clusters[0].attested.reattest": "--reattest", "drain": "--drain"})); err != nil {
		return err
	}
	return a.operate(ctx, c)
}

const reattestUsage = "how often a peer has to attest anew while its connection is open (default, and at most: half of the policy's freshness.evidence)"

// longestReattest is half of the age at which a policy takes evidence no more: the answer may take as long again, and a
// connection is not to outlive what it stands on.
func longestReattest(p *policy.Policy) time.Duration { return halfOf(p.EvidenceAge()) }

func halfOf(age time.Duration) time.Duration { return max(age/2, config.MinReattest) }

func logJSON(format string) (bool, error) {
	switch format {
	case "json":
		return true, nil
	case "text":
		return false, nil
	}
	return false, usageError("--log %.40q is not known; it is text or json", format)
}

// attests reports whether some client, a control plane, or an Envoy, gets our evidence.
func (c *serveConfig) attests() bool {
	return c.XDS != nil || c.SDS.attests() || slices.ContainsFunc(c.Proxy.Listeners, func(l config.Listener) bool { return l.Attests() })
}

// complete checks what can be checked before anything is opened, reads the policies, and fills in the names. place turns
// an error, or a joined one, whose subject is the path of a value into what is told.
func (c *serveConfig) complete(a *app, place func(error) error) error {
	if err := c.check(place); err != nil {
		return err
	}
	if c.source == "" {
		c.unsafe = unsafeChoices("", reflect.ValueOf(c.Proxy))
	}
	c.policies = map[string]*policy.Policy{}
	for _, name := range slices.Concat(c.Proxy.Policies(), c.XDS.files(), c.SDS.files()) {
		if name == "-" && c.dir != "" {
			return usageError("a configuration cannot name standard input")
		}
		p, err := a.loadPolicy(c.file(name))
		if err != nil {
			return err
		}
		if c.policies[name], err = a.tolerate(p, c.Binding); err != nil {
			return err
		}
	}
	if err := c.checkSeldom(); err != nil {
		return place(err)
	}
	if c.XDS != nil {
		if err := c.XDS.checkLimits(c.policies); err != nil {
			return place(err)
		}
	}
	if err := c.SDS.checkPolicies(c.policies, a.now()); err != nil {
		return place(err)
	}
	if err := c.checkPublic(a); err != nil {
		return place(err)
	}
	if c.attests() && len(c.Names) == 0 {
		c.Names = c.defaultNames()
	}
	c.Names = slices.Clone(c.Names)
	slices.Sort(c.Names)
	c.Names = slices.Compact(c.Names)
	return nil
}

func (c *serveConfig) check(place func(error) error) error {
	about := func(path string, err error) error {
		if err == nil {
			return nil
		}
		var coded *attest.Error
		if errors.As(err, &coded) && coded.Subject != "" {
			return err // of a file of the TEE's
		}
		return place(withSubject(err, path))
	}
	if c.TEE != "" || c.attests() {
		if err := about("identity.tee", checkTEE(c.TEE)); err != nil {
			return err
		}
	}
	if err := about("identity.lifetime", ratls.CheckLifetime(c.Lifetime)); err != nil {
		return err
	}
	if _, err := dialect.NewWriters(c.Dialects...); err != nil {
		return about("identity.dialects", err)
	}
	for i, n := range c.Names {
		if err := about(fmt.Sprintf("identity.names[%d]", i), ratls.CheckName(n)); err != nil {
			return err
		}
	}
	switch {
	case c.drain < 0:
		return place(badValue("drain", c.drain.String(), "a length of time"))
	case c.Session.Extension == signatureAlgorithms:
		return place(badValue("session.extension", fmt.Sprint(signatureAlgorithms)+", which is another extension's", "the codepoint of cmw_attestation"))
	}
	proxy := c.Proxy
	if (c.XDS != nil || c.SDS != nil) && len(proxy.Listeners) == 0 { // all of them may come from the control plane, or be an Envoy's
		proxy.Listeners = []config.Listener{{Address: "127.0.0.1:0", Serving: config.Serving{Plain: true, To: "127.0.0.1:1"}}}
	}
	if err := proxy.Check(); err != nil {
		return place(err)
	}
	for i, cl := range c.Proxy.Clusters {
		if a := cl.Attested; a != nil {
			if _, err := dialect.NewReader(a.Dialects...); err != nil {
				return about(fmt.Sprintf("clusters[%d].attested.dialects", i), err)
			}
		}
	}
	if c.XDS != nil {
		if err := c.XDS.check(c); err != nil {
			return place(err)
		}
	}
	if c.SDS != nil {
		if err := c.SDS.check(); err != nil {
			return place(err)
		}
	}
	if err := c.Process.check(c.Proxy.Listeners); err != nil {
		return place(err)
	}
	return nil
}

// signatureAlgorithms is the codepoint of the extension that stands beside cmw_attestation in each request.
const signatureAlgorithms = 13

// checkSeldom checks that peers are asked anew before what they have shown is too old for their policies.
func (c *serveConfig) checkSeldom() error {
	var errs []error
	check := func(path string, d time.Duration, name string) {
		if most := longestReattest(c.policies[name]); d > most {
			errs = append(errs, badValue(path, d.String(), "at most "+most.String()+", half of the policy's freshness.evidence"))
		}
	}
	for i := range c.Proxy.Listeners {
		for place, s := range c.Proxy.Listeners[i].Servings() {
			at := strings.TrimSuffix(fmt.Sprintf("listen[%d].%s", i, place), ".")
			if s.Require != "" {
				check(at+".reattest", s.Reattest, s.Require)
			}
			for j, f := range s.Forward {
				check(fmt.Sprintf("%s.forward[%d].reattest", at, j), f.Reattest, f.Require)
			}
		}
	}
	if c.XDS != nil {
		check("xds.reattest", c.XDS.Reattest, c.XDS.Require)
	}
	for i, cl := range c.Proxy.Clusters {
		if cl.Attested != nil {
			check(fmt.Sprintf("clusters[%d].attested.reattest", i), cl.Attested.Reattest, cl.Attested.Require)
		}
	}
	return errors.Join(errs...)
}

// defaultNames are those by which this machine and its own users reach it.
func (c *serveConfig) defaultNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && ratls.CheckName(host) == nil {
		names = append(names, host)
	}
	for _, l := range c.Proxy.Listeners {
		host, _, err := net.SplitHostPort(l.Address)
		if ip := net.ParseIP(host); err != nil || host == "" || !l.Attests() || isSystemd(l.Address) || ip != nil && ip.IsUnspecified() {
			continue
		}
		names = append(names, host)
	}
	return names
}
