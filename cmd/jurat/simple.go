package main

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
)

// simple answers the configuration as what open makes servers of: attested connections to one service each, and plain
// ones to one attested peer each. Nothing that is configured is passed over: what they can't do is an error.
func (c *serveConfig) simple() (in []inbound, out []outbound, err error) {
	refuse := func(what string) error {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "config", Got: what, Want: "what serve carries: an attested listener with to, or a plain one to one attested endpoint; --check takes the rest"}
	}
	if p := c.Process; p.Admin != nil || p.AccessLog != nil || p.Tracing != nil {
		return nil, nil, refuse("admin, access_log or tracing")
	}
	for i := range c.Proxy.Listeners {
		l := &c.Proxy.Listeners[i]
		if e, ok := c.asInbound(l); ok {
			in = append(in, e)
		} else if e, ok := c.asOutbound(l); ok {
			out = append(out, e)
		} else {
			return nil, nil, refuse(fmt.Sprintf("the listener %.100q", l.Label()))
		}
	}
	return in, out, nil
}

func (c *serveConfig) asInbound(l *config.Listener) (inbound, bool) {
	backend, err := proxy.ParseBackend(l.To)
	plain := config.Listener{Name: l.Name, Address: l.Address, To: l.To, TCP: l.TCP, Require: l.Require, Reattest: l.Reattest}
	return inbound{l.Address, l.TCP, l.Reattest, backend, c.policies[l.Require]}, err == nil && l.Equal(&plain)
}

func (c *serveConfig) asOutbound(l *config.Listener) (outbound, bool) {
	cl := c.Proxy.Cluster(l.Cluster)
	if cl == nil || cl.Attested == nil || len(cl.Endpoints) != 1 {
		return outbound{}, false
	}
	target := cl.Endpoints[0].Address
	u := upstreamConfig{Name: cl.Name, Listen: l.Address, Target: target, Require: cl.Attested.Require, UnsafeListen: l.UnsafeListen, Reattest: cl.Attested.Reattest}
	sameListener, sameCluster, _ := u.compile()
	sameListener.Name = l.Name
	return outbound{l.Address, target, cl.Attested.Reattest, c.policies[cl.Attested.Require]}, l.Equal(&sameListener) && cl.Equal(&sameCluster)
}
