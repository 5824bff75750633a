// Package protocol is what an xDS client says to a control plane, and when: a state machine for the aggregated discovery
// service (ADS), in both variants of the protocol, state of the world and delta.
//
// It starts no goroutine, reads no clock, draws no random number and knows no gRPC: all of that is handed in, so that every
// order of events can be tested. Package client runs it.
//
// # What it guarantees
//
// A response is judged as a whole before anything of it counts. What was accepted last stays as it is while a response is
// refused, while there is no stream, and while a server sends what makes no sense. Only a response that is valid, or the end
// of a time to live, removes anything.
//
// A server that is hostile can make it hold no more than Limits says, keeps no more than one response waiting for a verdict,
// and is not answered faster than is good for both: refusals of one type after another are spaced out, since servers exist that
// answer a refusal with the same response at once.
//
// # After a refusal
//
// A server that sends differences takes for known what it has sent, refused or not. So what came together with a bad resource does not come
// again until it changes, and what was to go with it stays. Whoever judges can keep that small by taking the others
// (Rejection.OthersTaken). Otherwise Adrift says when a new stream is due, which begins with what is really held.
//
// # Order
//
// Requests of a fresh stream go out in the order of resource.Rank: reference values, policies, clusters, endpoints, secrets,
// listeners, routes. A server that answers in the order of the questions then never refers to what it has not sent. To
// change without a gap, whoever judges the updates takes what is new first and lets go of what is old last: add clusters, wait
// until endpoints and secrets of new clusters are there (or are reported as missing), then change listeners and routes, then
// drop what no route names any more, by subscribing to less.
//
// An accepted change of a cluster subscribes to its endpoints anew in the delta protocol. The server has to send them again,
// which istiod relies on.
package protocol
