// Package guard says whether a configuration that came over xDS may be used.
//
// A control plane is outside of the TEE: whoever runs it, or gets at it, decides what it sends. What peers have measured is
// the static file alone, so what xDS may do is bounded by the limits in that file. Nothing that passes Check can
//
//   - change, replace or shadow a listener or a cluster of the static file,
//   - listen where the limits name no listener, or take clients there that have not proved what the limits demand,
//   - send a byte from a listener to a place that is not in the targets which the limits name for that listener,
//   - reach a target in plain that is to be attested, or attest it under a policy that is looser than the floor, under a
//     weaker binding, for another name, or too seldom,
//   - get bytes past these rules: by TLS that is not ended here, copies in plain, targets of the clients' choice, redirects,
//     or answers and edits that an attested peer seems to have made.
//
// Marks keep serials from going back. The package is pure: nothing is opened, resolved or asked.
package guard

import (
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Limits is what a control plane may bring about, at most. What is not named is not allowed: without anything here it can
// change nothing. They are measured with the rest of the file.
type Limits struct {
	// The policy that every peer has to meet beside the one that the control plane names, a file beside this one.
	Floor string `yaml:"floor"`
	// How strongly evidence has to be bound at least, whatever policies say, default session
	Binding string `yaml:"binding,one=none|pinned|key|nonce|session"`
	// Names of policies that may be pushed; a * at the end stands for any rest. Those of this file may be referred to anyway.
	Policies []string `yaml:"policies"`
	// Names of clusters that are attested wherever they lead; a * at the end stands for any rest.
	Attested []string `yaml:"attested"`

	Targets   []Target   `yaml:"targets"`   // where bytes may go
	Listeners []Listener `yaml:"listeners"` // where connections may come in, beside the listeners of this file

	Redirects []string `yaml:"redirects"` // hosts that clients may be sent to: a name, *.example, an address or a prefix; a redirect that keeps the host, and the port or the listener's own, is allowed anyway
	Rewrite   bool     `yaml:"rewrite"`   // requests and answers may be edited: headers, cookies, paths and hosts
	Answers   bool     `yaml:"answers"`   // requests may be answered without a service; errors without a body may be anyway

	// Resources of every type have whole numbers as versions, which never go back. Without it that holds for the serials of policies and
	// reference values alone, since most control planes have no such versions.
	Versions bool `yaml:"ordered_versions"`
	// How long what xDS has brought is used without a control plane, counted anew with each start of the process; then nothing but this
	// file is, default 24 h
	Outage time.Duration `yaml:"longest_outage,negative=never"`

	Most Most `yaml:"most"` // bounds
}

// Target is places that bytes may be sent to, and what has to be met there.
type Target struct {
	Name string `yaml:"name,required"` // what listeners of these limits call it
	// HOST[:PORT] or unix:/path, where HOST is a prefix such as 10.0.0.0/8, an address, loopback, a name, *.example for all below
	// it, or * for all; a path may end in /* for all below it. What counts is what the configuration says, before DNS. Where connections were
	// going before a transparent listener took them is in * where it is attested, and in loopback where it has to be this machine; both
	// without a port.
	To          []string `yaml:"to,required"`
	Plain       bool     `yaml:"plain"`                          // it is reached in plain, and never attested: for what runs beside this proxy; otherwise always attested
	UnsafePlain bool     `yaml:"unsafe_plain" json:",omitempty"` // what is reached in plain may be other machines: what was protected up to here goes there
	Names       []string `yaml:"names"`                          // what its evidence has to be for: hosts as in to, default the hosts in to
	Policies    []string `yaml:"policies"`                       // names of the policies that it may be attested under, one of which it is; a * at the end stands for any rest, default all
}

// Listener is an address that xDS may have listened on.
type Listener struct {
	Address string `yaml:"address,required"` // as the listener has it: host:port or unix:/path
	// What clients are: attested ones have to meet a policy, anybody gets our evidence and may have none, and plain ones are programs of
	// this machine, default attested
	Clients  string   `yaml:"clients,one=attested|anybody|plain"`
	Policies []string `yaml:"policies"` // names of the policies that clients may be held to; a * at the end stands for any rest, default all
	// Other machines may connect although clients are plain.
	UnsafeListen bool `yaml:"unsafe_listen"`
	// The kernel may hand over connections that were meant for others, which go where chains say.
	Transparent bool `yaml:"transparent"`
	// The prefixes of addresses that may say in a PROXY header where a connection comes from, default none
	ProxyProtocol []string `yaml:"proxy_protocol"`
	To            []string `yaml:"to,required"` // the names of the targets that it may lead to
}

// Most is how much xDS may bring, all of it together.
type Most struct {
	Listeners int `yaml:"listeners"` // default 64
	Clusters  int `yaml:"clusters"`  // default 4096
	Endpoints int `yaml:"endpoints"` // of all clusters, default 65536
	Routes    int `yaml:"routes"`    // and virtual hosts and chains, of all listeners, default 65536
	Policies  int `yaml:"policies"`  // that are pushed, default 256
	Points    int `yaml:"points"`    // of the tables of ring_hash and maglev, in all clusters, default 16777216
}

// Defaults of what Limits don't say.
const (
	DefaultOutage = 24 * time.Hour

	defaultListeners = 64
	defaultClusters  = 4096
	defaultEndpoints = 65536
	defaultRoutes    = 65536
	defaultPolicies  = 256
	defaultPoints    = 16 << 20
)

// maxTargets is how many targets limits can have: sets of them are bits of a word.
const maxTargets = 64

// LongestOutage is how long what xDS has brought may be used without a control plane; 0 is for ever.
func (l *Limits) LongestOutage() time.Duration {
	switch {
	case l.Outage < 0:
		return 0
	case l.Outage == 0:
		return DefaultOutage
	}
	return l.Outage
}

// binding is the least level of binding.
func (l *Limits) binding() attest.Level {
	if l.Binding == "" {
		return attest.LevelSession
	}
	return attest.Level(l.Binding)
}

func (m Most) complete() Most {
	for _, f := range []struct {
		n   *int
		def int
	}{
		{&m.Listeners, defaultListeners},
		{&m.Clusters, defaultClusters},
		{&m.Endpoints, defaultEndpoints},
		{&m.Routes, defaultRoutes},
		{&m.Policies, defaultPolicies},
		{&m.Points, defaultPoints},
	} {
		if *f.n == 0 {
			*f.n = f.def
		}
	}
	return m
}
