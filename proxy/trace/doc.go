// Package trace records what becomes of requests as spans, and carries W3C Trace Context (Recommendation of 23 November 2021,
// with the random flag of level 2) through the proxy.
//
// Whether a request is recorded is decided once, by Tracer.Start: as its traceparent says, or by chance where it has none, and
// either within a limit of spans per second, since it is strangers who send the one and the other. Where nothing is recorded
// nothing is changed: the fields of the request pass through, which is what the specification calls forwarding, and it
// allocates nothing. Where something is, the service sees the proxy's span as its parent.
//
// A Record holds a closed set of attributes, after OpenTelemetry's semantic conventions for HTTP and, under "jurat.", about
// attestation. No value of a header gets into it but the authority, and no query.
package trace
