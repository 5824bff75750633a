//go:build !noxds

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/inspect"
)

// localService serves methods of gRPC to whoever a server of HTTP/2 lets in, until stop is called.
func localService(handlers map[string]attested.Handler) (h http.Handler, stop func()) {
	s := attested.NewServer(func(context.Context, net.Conn) (attested.Conn, error) {
		return nil, errors.New("there are local clients alone")
	}, handlers, attested.Options{Message: 64 << 10})
	return s.LocalHTTP("admin"), s.Stop
}

// services are what the admin API has for clients of gRPC.
func (o *operation) services(c *serveConfig) (all map[string]http.Handler, stop func()) {
	if c.XDS == nil {
		return nil, func() {}
	}
	h, stop := localService(inspect.Handlers(o.clientStatus))
	return map[string]http.Handler{inspect.Service: h}, stop
}

// clientStatus is what CSDS says of this proxy, which is the only client that it knows.
func (o *operation) clientStatus(wanted func(id string) bool, contents bool) []inspect.Client {
	f := o.following()
	if f == nil {
		return nil
	}
	c := inspect.Client{Node: f.node()}
	if !wanted(c.Node.ID) {
		return nil
	}
	c.Resources = f.resources()
	return []inspect.Client{c}
}

// standings are those of the control plane, in the words of Envoy.
var standings = map[control.Standing]inspect.Standing{
	control.Synced: inspect.Synced, control.NotSent: inspect.NotSent, control.Stale: inspect.Stale, control.Rejected: inspect.Rejected,
}

// clientsOf is what CSDS says of those who are connected to a control plane.
func clientsOf(plane *control.Control) inspect.Source {
	return func(wanted func(id string) bool, contents bool) (all []inspect.Client) {
		for _, c := range plane.Clients(wanted, contents) {
			one := inspect.Client{Node: inspect.Node{ID: c.ID, Cluster: c.Group, Agent: c.Agent}, Scope: c.Protocol}
			for _, h := range c.Held {
				r := inspect.Resource{Resource: h.Resource, Standing: standings[h.Standing]}
				if h.Standing == control.Rejected {
					r.Refusal = &inspect.Refusal{Version: h.Refused, Reason: h.Reason, Time: h.RefusedAt}
				}
				one.Resources = append(one.Resources, r)
			}
			all = append(all, one)
		}
		return all
	}
}

// controlAdmin is the admin API of a control plane, with CSDS for clients of gRPC.
func controlAdmin(plane *control.Control, log *slog.Logger) (api *http.Server, stop func()) {
	h, stop := localService(inspect.Handlers(clientsOf(plane)))
	mux := http.NewServeMux()
	mux.Handle("/", plane.Admin())
	mux.Handle("POST /"+inspect.Service+"/", h)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: mux, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 16}, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}, stop
}
