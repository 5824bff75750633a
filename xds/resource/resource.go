// Package resource is what crosses the rooms of xds: serialized resources, with their names.
package resource

import "time"

// The types of resources.
const (
	Listener          = "type.googleapis.com/envoy.config.listener.v3.Listener"
	Route             = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	Cluster           = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Endpoints         = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Secret            = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	AttestationPolicy = "type.googleapis.com/jurat.config.v1alpha1.AttestationPolicy"
	ReferenceValues   = "type.googleapis.com/jurat.config.v1alpha1.ReferenceValues"
)

// Resource is a resource as a control plane sends it.
type Resource struct {
	Type, Name, Version string
	Body                []byte        // the serialized message of Type: the value of google.protobuf.Any
	TTL                 time.Duration // after which it is to be dropped; 0 is never
}
