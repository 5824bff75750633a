package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/guard"
)

// xdsConfig is a control plane that this proxy takes configuration from, within limits.
type xdsConfig struct {
	Server   string        `yaml:"server,required" json:"server"`   // HOST[:PORT] of the control plane, default port 443
	Require  string        `yaml:"require,required" json:"require"` // the policy that it has to meet before a word is believed, a file beside this one
	Name     string        `yaml:"name" json:"name"`                // what its evidence has to be for, default the host in server
	Reattest time.Duration `yaml:"reattest" json:"reattest"`        // how often it has to attest anew, default (and at most) half of the policy's freshness.evidence

	Node     nodeConfig    `yaml:"node" json:"node"`                                  // what this proxy calls itself, which a control plane of sense does not believe
	Protocol string        `yaml:"protocol,one=delta|sotw" json:"protocol"`           // what changed, or all of it each time, default delta
	Fetch    time.Duration `yaml:"initial_fetch_timeout,negative=never" json:"fetch"` // how long endpoints are waited for before a cluster is used without any, default 15 s
	// A directory, made with mode 0700, for what was accepted last and for serials, so that a restart needs no control plane and takes
	// back nothing. Whoever can write there can play back what was kept before, within the limits.
	State string `yaml:"state" json:"state"`
	// Whether state is sealed, so that only this software on this machine can read and write it: by the TEE of the identity, which has to be
	// SEV-SNP, SGX with Gramine or EGo, Azure's, or a TPM. No resource that has a secret in it is kept unsealed, and what is anybody can
	// write, default tee
	Seal   string       `yaml:"seal,one=tee|off" json:"seal"`
	Limits guard.Limits `yaml:"limits,required" json:"limits"` // what it may bring about, at most
}

// nodeConfig is the node of xDS.
type nodeConfig struct {
	// Default the first of identity.names that is neither an address nor localhost, with / and the name of this host behind it, or that name alone
	ID       string            `yaml:"id"`
	Cluster  string            `yaml:"cluster"`  // the group of proxies
	Metadata map[string]string `yaml:"metadata"` // anything that the control plane asks for; what is a map or a list in JSON is sent as that, such as '{"app": "pay"}'
}

const (
	defaultFetch   = 15 * time.Second
	atControlPlane = "control plane" // the place where it is appraised
)

// fetch is how long what is referred to is waited for; 0 is for ever.
func (x *xdsConfig) fetch() time.Duration {
	if x.Fetch < 0 {
		return 0
	}
	return cmp.Or(x.Fetch, defaultFetch)
}

// files are the policies that it names.
func (x *xdsConfig) files() (all []string) {
	if x == nil {
		return nil
	}
	if all = append(all, x.Require); x.Limits.Floor != "" {
		all = append(all, x.Limits.Floor)
	}
	return all
}

// measured is x with id(name) in place of the names of policies.
func (x *xdsConfig) measured(id func(string) string) *xdsConfig {
	if x == nil {
		return nil
	}
	out := *x
	if out.Require = id(x.Require); x.Limits.Floor != "" {
		out.Limits.Floor = id(x.Limits.Floor)
	}
	return &out
}

// sealed reports whether what is kept is sealed.
func (x *xdsConfig) sealed() bool { return x.Seal != sealOff }

const sealOff = "off"

// unsealed is err, of sealing, with what to do about it.
func unsealed(err error) error {
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return err
	}
	e := *coded
	e.Subject, e.Hint = "xds.seal", "say seal: off beside state to keep what is no secret as it is, or leave state out to keep nothing"
	return &e
}

// check reports what is not allowed beside what c has; the subjects are paths.
func (x *xdsConfig) check(c *serveConfig) error {
	if !haveXDS {
		return badValue("xds", "a control plane", "none: this build has nothing of xDS")
	}
	if _, err := targetAddress(x.Server); err != nil {
		return badValue("xds.server", fmt.Sprintf("%.100q", x.Server), "HOST[:PORT]")
	}
	if x.Name != "" {
		if err := ratls.CheckName(x.Name); err != nil {
			return withSubject(err, "xds.name")
		}
	}
	if x.Reattest != 0 && x.Reattest < config.MinReattest {
		return badValue("xds.reattest", x.Reattest.String(), "at least "+config.MinReattest.String())
	}
	if x.State != "" && x.sealed() && !seals(c.TEE) {
		return unsealed(noSealing(teeName(c.TEE)))
	}
	for key, text := range x.Node.Metadata {
		if key == "jurat" {
			return badValue("xds.node.metadata."+key, strconv.Quote(key), "another name: under this one the proxy tells of its connections")
		}
		if _, err := metadata(text); err != nil {
			return badValue("xds.node.metadata."+key, fmt.Sprintf("%.100q", text), "a text, or a map or a list in JSON")
		}
	}
	for i, l := range x.Limits.Listeners {
		at := fmt.Sprintf("xds.limits.listeners[%d].address", i)
		for _, s := range c.Proxy.Listeners {
			if s.Address == l.Address {
				return badValue(at, strconv.Quote(l.Address), "an address that no listener of this file has: those stay as they are")
			}
		}
		if a := c.Process.Admin; a != nil && a.Address == l.Address {
			return badValue(at, strconv.Quote(l.Address), "an address that admin does not have")
		}
	}
	return nil
}

// fixed reports what differs between two configurations with or without a control plane and can't while the process runs: who it is, what it is
// told of us, and what was kept of it. The limits, the floor and the policies can.
func fixedXDS(first, next *serveConfig) error {
	fixed := func(key string) error {
		return &attest.Error{
			Code: attest.CodeConfigValue, Check: "config", Subject: key, Got: "another value than at the start", Want: "the same as long as the process runs",
			Hint: "restart, or take the change back",
		}
	}
	a, b := first.XDS, next.XDS
	if a == nil || b == nil {
		if a != b {
			return fixed("xds")
		}
		return nil
	}
	for _, f := range []struct {
		key  string
		same bool
	}{
		{"xds.server", a.Server == b.Server},
		{"xds.protocol", a.Protocol == b.Protocol},
		{"xds.initial_fetch_timeout", a.Fetch == b.Fetch},
		{"xds.state", a.State == b.State},
		{"xds.node", reflect.DeepEqual(a.Node, b.Node)},
		{"identity.names", a.Node.ID != "" || slices.Equal(first.Names, next.Names)}, // the node is called by them
	} {
		if !f.same {
			return fixed(f.key)
		}
	}
	return nil
}

// metadata is what a text stands for.
func metadata(text string) (any, error) {
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return text, nil
	}
	var v any
	err := json.Unmarshal([]byte(text), &v)
	return v, err
}

// checkLimits compiles the limits.
func (x *xdsConfig) checkLimits(policies map[string]*policy.Policy) error {
	_, err := guard.New(x.Limits, policies[x.Limits.Floor])
	return placed(err, func(path string) string { return "xds.limits." + path })
}

// address is where the control plane is.
func (x *xdsConfig) address() (string, error) {
	address, err := targetAddress(x.Server)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	n, err := net.LookupPort("tcp", port)
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(n)), err
}
