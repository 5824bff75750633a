// Package upstream is clusters: the endpoints behind a route, which of them a request goes to, and what is learnt of them.
//
// A Cluster does no I/O. Pick chooses an endpoint, the caller connects to it and reports with Begin and Done what came of
// it; health checks and DNS go through interfaces. Any number of goroutines may pick and report: both work on an immutable
// snapshot and on atomics, take no lock and allocate nothing. What changes the snapshot (an update, a health check, a
// Done that ejects) takes the cluster's lock and builds another one.
//
// An Endpoint lives as long as its Identity is among the endpoints of its cluster: a connection pool keyed by *Endpoint
// survives every update that keeps it.
package upstream
