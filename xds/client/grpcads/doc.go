// Package grpcads carries the xDS protocol of package client over gRPC: one stream of the aggregated discovery service, or of
// the service of a single type.
//
// It does no TLS. gRPC runs as it is over the connection that the dialer returns, so that dialer is where everything is decided:
// it has to return a connection that is encrypted, and whose peer has been appraised. Package attested has one. A dialer that
// returns a bare TCP connection gives the network the configuration of the proxy, secrets included.
//
// Messages are read here and not by generated code, whose memory a server could make 40 times the size of a message; limits
// are applied while reading, before anything is allocated.
package grpcads
