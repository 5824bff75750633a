//go:build noxds

package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/metrics"
)

// haveXDS says that this build has none of xDS, so that less is measured.
const haveXDS = false

// follower is nobody.
type follower struct{}

func (o *operation) follow(context.Context, *serveConfig) (done func(), err error) {
	return func() {}, nil
}

func (*follower) running() (*config.Config, proxy.Builder) { return nil, nil }

func (*follower) replace(*serveConfig, func(func(*generation) error) error) error { return nil }

func (*follower) dump() any { return nil }

// envoyConfigs are none: what they are written in is not part of this build.
func (o *operation) envoyConfigs(bool) ([]json.RawMessage, error) { return nil, nil }

// services are none: gRPC is not part of this build.
func (o *operation) services(*serveConfig) (all map[string]http.Handler, stop func()) {
	return nil, func() {}
}

func (*follower) stats() *metrics.ControlPlane { return nil }
