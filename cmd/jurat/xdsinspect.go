//go:build !noxds

package main

import (
	"encoding/json"
	"net"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/inspect"
)

// conditions are those of the client, in the words of Envoy.
var conditions = map[protocol.Condition]inspect.Condition{
	protocol.Requested: inspect.Requested, protocol.Late: inspect.TimedOut, protocol.DoesNotExist: inspect.DoesNotExist, protocol.Accepted: inspect.Accepted,
	protocol.RefusedLast: inspect.Refused, protocol.ReceivedError: inspect.ReceivedError,
}

// envoyConfigs is what /config_dump shows in Envoy's shape.
func (o *operation) envoyConfigs(endpoints bool) ([]json.RawMessage, error) {
	g := o.generation()
	b := &inspect.Bootstrap{Since: o.started, Node: inspect.Node{Agent: "jurat", Version: buildInfo().Version}}
	if o.admin != nil {
		switch addr := o.admin.Addr().(type) {
		case *net.TCPAddr:
			b.Admin, b.Port = addr.IP.String(), addr.Port
		case *net.UnixAddr:
			b.Admin = addr.Name
		}
	}
	f := o.following()
	if f == nil {
		return inspect.Dump(b, nil, nil, endpoints)
	}
	b.Server, b.Delta, b.Node = g.XDS.Server, f.settings.Kind == client.Delta, f.node()
	versions := map[string]string{}
	for _, t := range f.client.Status().Types {
		versions[t.Type] = t.Version
	}
	return inspect.Dump(b, f.resources(), versions, endpoints)
}

// node is what the proxy calls itself.
func (f *follower) node() inspect.Node {
	n := &f.settings.Node
	return inspect.Node{ID: n.ID, Cluster: n.Cluster, Agent: n.UserAgent, Version: n.UserVersion, Metadata: n.Metadata}
}

// resources are all that was asked for, and what runs of it, by the rank of types and by name.
func (f *follower) resources() (all []inspect.Resource) {
	running := f.agent.Running() // first: what comes meanwhile waits, and what goes is not taken for something else
	for _, t := range f.client.Status().Types {
		for _, r := range f.client.Resources(t.Type) {
			shown := inspect.Resource{Resource: r.Resource, Condition: conditions[r.Condition], Since: r.Since}
			if !r.Rejected.At.IsZero() {
				shown.Refusal = &inspect.Refusal{Version: r.Rejected.Version, Reason: r.Rejected.Reason, Time: r.Rejected.At}
			}
			key := envoy.Key{Type: r.Type, Name: r.Name}
			if used, ok := running[key]; ok {
				shown.Running = &used
				delete(running, key)
			}
			all = append(all, shown)
		}
		// What is gone is carried out as long as something leads there.
		var gone []inspect.Resource
		for key, used := range running {
			if key.Type == t.Type {
				shown := inspect.Resource{Condition: inspect.DoesNotExist, Running: &used}
				shown.Type, shown.Name = key.Type, key.Name
				gone = append(gone, shown)
			}
		}
		slices.SortFunc(gone, func(a, b inspect.Resource) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, gone...)
	}
	return all
}
