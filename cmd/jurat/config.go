package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

// fileConfig is a configuration file. docs/config.md is made of it, of its comments and of those of the types in it.
type fileConfig struct {
	Identity  *identityConfig  `yaml:"identity"` // what we present; from where only plain listeners are it is left out to present nothing
	Session   fileSession      `yaml:"session"`  // what both ends agree on beforehand, where others than this program are met
	Proxy     config.Config    `yaml:",inline"`
	Upstreams []upstreamConfig `yaml:"upstreams"` // a short form: a plain listener, and a cluster with one attested endpoint
	XDS       *xdsConfig       `yaml:"xds"`       // a control plane that more configuration comes from, and what it may bring about
	SDS       *sdsConfig       `yaml:"sds"`       // secrets for an Envoy beside this process: certificates with evidence, and keys of peers that were appraised
	Drain     time.Duration    `yaml:"drain"`     // how long open connections get at the end, default 30 s
	Process   processConfig    `yaml:",inline"`
}

// identityConfig is what the evidence in our certificate is of.
type identityConfig struct {
	TEE      string        `yaml:"tee"`      // auto, the name of a platform, or sim for a rehearsal: as --tee of jurat serve, default auto
	Names    []string      `yaml:"names"`    // by which clients connect: DNS names and IP addresses, default localhost and those of this host
	Lifetime time.Duration `yaml:"lifetime"` // of a leaf certificate, which is renewed after half of it, default 1 h
	Dialects []string      `yaml:"dialects"` // other programs' forms in which the certificate shows evidence as well (docs/dialects.md): dice, ego, openenclave, gramine-legacy, dstack

	// HTTP listeners that present evidence answer /.well-known/attestation?nonce= themselves, with evidence for that nonce, in place of
	// their services; default false.
	WellKnown bool `yaml:"well_known"`
}

// fileSession is what both ends of a session have to agree on beforehand: nothing, but where others are met.
type fileSession struct {
	Profile   string `yaml:"profile,one=expat-03"` // another binder: that of draft-fossati-seat-expat-03
	Extension uint16 `yaml:"extension"`            // another codepoint of cmw_attestation
}

// upstreamConfig is a plain listener before one attested peer.
type upstreamConfig struct {
	Name         string        `yaml:"name"`             // in logs and metrics, default the target
	Listen       string        `yaml:"listen,required"`  // host:port, unix:/path or systemd:NAME, in plain
	Target       string        `yaml:"target,required"`  // HOST[:PORT] of the peer, default port 443
	Require      string        `yaml:"require,required"` // the policy that it has to meet, a file beside this one
	UnsafeListen bool          `yaml:"unsafe_listen"`    // other machines may connect in plain
	Reattest     time.Duration `yaml:"reattest"`         // how often it has to attest anew, default (and at most) half of the policy's freshness.evidence
}

// loadConfig reads jurat.yaml. Files that it names are relative to it.
func (a *app) loadConfig(file string, c *serveConfig) error {
	raw, err := a.readFile(file)
	if err != nil {
		return err
	}
	root, err := strictyaml.Parse(file, raw)
	if err != nil {
		return err
	}
	f := fileConfig{Drain: defaultDrain}
	if err := strictyaml.Decode(root, &f); err != nil {
		return err
	}
	c.source, c.dir = file, filepath.Dir(file)
	c.unsafe = unsafeChoices("", reflect.ValueOf(f))
	place := func(err error) error { return root.Locate(placed(err, f.place)) }
	if err := f.into(c); err != nil {
		return place(err)
	}
	err = c.complete(a, place)
	var unread *fs.PathError
	if attest.CodeOf(err) == attest.CodeUsage && errors.As(err, &unread) { // the file named it, and no command line
		return &attest.Error{
			Code: attest.CodeConfigValue, Check: "config", Subject: file, Got: fmt.Sprintf("%.200q", unread.Path), Want: "a file that can be read", Err: unread.Err,
			Hint: "names of files are relative to " + file,
		}
	}
	return err
}

// into fills c. Errors have the paths of values as their subjects, of which place knows where they came from.
func (f *fileConfig) into(c *serveConfig) error {
	c.Proxy, c.XDS, c.SDS, c.Process, c.drain = f.Proxy, f.XDS, f.SDS, f.Process, f.Drain
	c.Session = sessionConfig{session.Profile(f.Session.Profile), f.Session.Extension}
	taken := map[string]bool{}
	for _, cl := range f.Proxy.Clusters {
		taken[cl.Name] = true
	}
	for i := range f.Upstreams {
		u := f.Upstreams[i]
		u.Name = unused(taken, cmp.Or(u.Name, u.Target))
		l, cl, err := u.compile()
		if err != nil {
			return &attest.Error{Code: attest.CodeConfigValue, Check: "target", Subject: fmt.Sprintf("upstreams[%d].target", i), Got: fmt.Sprintf("%.100q", u.Target), Want: "HOST[:PORT]"}
		}
		c.Proxy.Listeners, c.Proxy.Clusters = append(c.Proxy.Listeners, l), append(c.Proxy.Clusters, cl)
	}
	c.TEE, c.Lifetime = "auto", ratls.DefaultLifetime
	switch id := f.Identity; {
	case id != nil:
		c.TEE, c.Names, c.Lifetime, c.Dialects = cmp.Or(id.TEE, c.TEE), id.Names, cmp.Or(id.Lifetime, c.Lifetime), id.Dialects
		c.WellKnown = id.WellKnown
	case !c.attests():
		c.TEE = "" // who only asks others for evidence needs no TEE
	}
	return nil
}

// unused answers name, or name with a number behind it where it is taken.
func unused(taken map[string]bool, name string) string {
	free := name
	for n := 2; taken[free]; n++ {
		free = name + "#" + strconv.Itoa(n)
	}
	taken[free] = true
	return free
}

// compile answers what u is short for.
func (u *upstreamConfig) compile() (config.Listener, config.Cluster, error) {
	address, err := targetAddress(u.Target)
	if err != nil {
		return config.Listener{}, config.Cluster{}, err
	}
	host, port, _ := net.SplitHostPort(address)
	if n, err := net.LookupPort("tcp", port); err == nil {
		address = net.JoinHostPort(host, strconv.Itoa(n))
	}
	l := config.Listener{Address: u.Listen, UnsafeListen: u.UnsafeListen, Serving: config.Serving{Plain: true, TCP: true, Cluster: u.Name}}
	c := config.Cluster{
		Config: upstream.Config{
			Name: u.Name,
			// The listener bounds what goes through. There is one endpoint, and nothing to save from it.
			CircuitBreakers: upstream.CircuitBreakers{MaxConnections: -1, MaxPendingRequests: -1, MaxRequests: -1},
		},
		Attested:  &config.Attested{Require: u.Require, Reattest: u.Reattest},
		Endpoints: []upstream.EndpointConfig{{Identity: upstream.Identity{Address: address}}},
	}
	return l, c, nil
}

// place answers the path in the file of a value of the configuration that it became.
func (f *fileConfig) place(path string) string {
	var i int
	var rest string
	if n, _ := fmt.Sscanf(path, "listen[%d]", &i); n == 1 && i >= len(f.Proxy.Listeners) {
		i, rest = i-len(f.Proxy.Listeners), "listen" // of which only the address is the file's
	} else if n, _ := fmt.Sscanf(path, "clusters[%d]", &i); n == 1 && i >= len(f.Proxy.Clusters) {
		_, rest, _ = strings.Cut(path, "].")
		i -= len(f.Proxy.Clusters)
		if strings.HasPrefix(rest, "endpoints") {
			rest = "target"
		}
		rest = strings.TrimPrefix(rest, "attested.")
	} else {
		return path
	}
	return fmt.Sprintf("upstreams[%d].%s", i, rest)
}

// placed answers err, or what it joins, with place(path) for the paths that are the subjects.
func placed(err error, place func(path string) string) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, placed(e, place))
		}
		return errors.Join(all...)
	}
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return err
	}
	e := *coded
	e.Subject = place(e.Subject)
	return &e
}

// file answers where a file is that the configuration names.
func (c *serveConfig) file(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.dir, name)
}
