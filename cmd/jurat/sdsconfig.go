package main

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/ratls"
)

// sdsConfig is what an Envoy beside this process takes from it: certificates with evidence, and the keys of peers that were appraised.
type sdsConfig struct {
	Address    string        `yaml:"address,required" json:"address"` // unix:/path of a socket that only the user of this process can open: whoever can gets private keys
	Identities []sdsIdentity `yaml:"identities" json:"identities"`    // certificates with evidence, each with a key of its own
	Peers      []sdsPeers    `yaml:"peers" json:"peers"`              // lists of peers that were appraised, which Envoy knows by their keys
}

// sdsIdentity is a certificate with evidence, which Envoy presents.
type sdsIdentity struct {
	Name     string        `yaml:"name,required" json:"name"` // by which Envoy asks for it
	Names    []string      `yaml:"names" json:"names"`        // by which clients connect to that Envoy, default those of identity
	Lifetime time.Duration `yaml:"lifetime" json:"lifetime"`  // of a certificate, which is replaced after half of it, default that of identity
	// Required to be true. A key is made for this certificate, apart from that of identity, and leaves this process: whoever gets hold
	// of it is taken for this TEE, until its certificate ends.
	UnsafeGivePrivateKeyToEnvoy bool `yaml:"unsafe_give_private_key_to_envoy" json:"unsafe_give_private_key_to_envoy"`
}

// sdsPeers are peers that Envoy is to take for one purpose, such as the endpoints of a cluster.
type sdsPeers struct {
	Name    string `yaml:"name,required" json:"name"`       // by which Envoy asks for it
	Require string `yaml:"require,required" json:"require"` // the policy that they have to meet, a file beside this one; it has to take binding: pinned
	// How often each is appraised, default 10 s. Where a peer replaces its key without showing the next one beforehand, Envoy refuses it for
	// that long at most.
	Every   time.Duration `yaml:"every" json:"every"`
	Targets []sdsTarget   `yaml:"targets,required" json:"targets"` // where they are
}

// sdsTarget is where a peer is appraised.
type sdsTarget struct {
	Address string `yaml:"address,required" json:"address"` // HOST[:PORT], default port 443
	Name    string `yaml:"name" json:"name"`                // that its evidence has to be for, default the host
}

const (
	defaultEvery = 10 * time.Second
	minEvery     = time.Second
	sdsSocket    = "sds " // by which the socket is handed over
)

// atSDS is the place where the peers of a list are appraised.
func atSDS(name string) string { return "sds " + name }

// files are the policies that it names.
func (s *sdsConfig) files() (all []string) {
	if s == nil {
		return nil
	}
	for _, p := range s.Peers {
		all = append(all, p.Require)
	}
	return all
}

// attests reports whether an Envoy gets evidence.
func (s *sdsConfig) attests() bool { return s != nil && len(s.Identities) > 0 }

// places adds where its peers are appraised.
func (s *sdsConfig) places(all map[string][]string) {
	if s == nil {
		return
	}
	for _, p := range s.Peers {
		all[atSDS(p.Name)] = []string{p.Require}
	}
}

// measured is s with id(name) in place of the names of policies.
func (s *sdsConfig) measured(id func(string) string) *sdsConfig {
	if s == nil {
		return nil
	}
	out := *s
	out.Peers = nil
	for _, p := range s.Peers {
		p.Require = id(p.Require)
		out.Peers = append(out.Peers, p)
	}
	return &out
}

// checkPolicies checks that the policies take what Envoy relies on.
func (s *sdsConfig) checkPolicies(policies map[string]*policy.Policy, now time.Time) error {
	if s == nil {
		return nil
	}
	for i, p := range s.Peers {
		if least := policies[p.Require].Binding(now); !attest.LevelPinned.AtLeast(least) {
			return badValue(fmt.Sprintf("sds.peers[%d].require", i), fmt.Sprintf("a policy with binding: %s", least), "one that says binding: pinned, for Envoy compares keys and sees no evidence")
		}
	}
	return nil
}

// movesTo reports whether a process that was started with first can go on with s: without opening another socket.
func (s *sdsConfig) movesTo(first *sdsConfig) bool {
	return s == nil || first != nil && s.Address == first.Address
}

// every is how often peers are appraised.
func (p *sdsPeers) every() time.Duration { return cmp.Or(p.Every, defaultEvery) }

// target answers the address with a port, and the name.
func (t sdsTarget) target() (address, name string, err error) {
	if address, err = targetAddress(t.Address); err != nil {
		return "", "", err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", err
	}
	n, err := net.LookupPort("tcp", port)
	return net.JoinHostPort(host, strconv.Itoa(n)), cmp.Or(t.Name, host), err
}

// check reports what is not allowed; the subjects are paths.
func (s *sdsConfig) check() error {
	if !haveXDS {
		return badValue("sds", "secrets for an Envoy", "none: this build has nothing of xDS")
	}
	if path, ok := strings.CutPrefix(s.Address, "unix:"); !ok || path == "" || path[0] == '@' {
		return badValue("sds.address", fmt.Sprintf("%.100q", s.Address), "unix:/path: private keys go over it, which nobody else is to read")
	}
	if len(s.Identities)+len(s.Peers) == 0 {
		return badValue("sds", "neither identities nor peers", "one of them at least")
	}
	taken := map[string]bool{}
	name := func(at, name string) error {
		if err := checkSecretName(name); err != nil {
			return withSubject(err, at)
		}
		if taken[name] {
			return badValue(at, strconv.Quote(name), "a name that no other secret has")
		}
		taken[name] = true
		return nil
	}
	for i, id := range s.Identities {
		at := fmt.Sprintf("sds.identities[%d].", i)
		if err := name(at+"name", id.Name); err != nil {
			return err
		}
		for j, n := range id.Names {
			if err := ratls.CheckName(n); err != nil {
				return withSubject(err, fmt.Sprintf("%snames[%d]", at, j))
			}
		}
		if id.Lifetime != 0 {
			if err := ratls.CheckLifetime(id.Lifetime); err != nil {
				return withSubject(err, at+"lifetime")
			}
		}
		if !id.UnsafeGivePrivateKeyToEnvoy {
			return badValue(at+"unsafe_give_private_key_to_envoy", "false", "true: a private key leaves this process, which is to be said")
		}
	}
	for i, p := range s.Peers {
		at := fmt.Sprintf("sds.peers[%d].", i)
		if err := name(at+"name", p.Name); err != nil {
			return err
		}
		if p.Every != 0 && p.Every < minEvery {
			return badValue(at+"every", p.Every.String(), "at least "+minEvery.String())
		}
		if len(p.Targets) == 0 {
			return badValue(at+"targets", "none", "one at least")
		}
		for j, t := range p.Targets {
			if _, _, err := t.target(); err != nil {
				return badValue(fmt.Sprintf("%stargets[%d].address", at, j), fmt.Sprintf("%.100q", t.Address), "HOST[:PORT]")
			}
			if t.Name != "" {
				if err := ratls.CheckName(t.Name); err != nil {
					return withSubject(err, fmt.Sprintf("%stargets[%d].name", at, j))
				}
			}
		}
	}
	return nil
}
