// Package enforce has policies hold for connections that are open already. An Enforcer knows the policies by name, which of them
// each place demands (a listener, or a cluster that is connected to), and every open connection whose peer was appraised there,
// with its Attestation Result. When a policy is replaced, or endorsements have changed, all Results are judged again at once,
// and connections whose peer is affirmed no more end.
//
// Invariants:
//   - what a place demands has to be affirmed by all of its policies; one that is missing refuses, and so does a place that is
//     not known;
//   - a change and the list of connections that it concerns are taken in one step: a connection is either on the list, or its
//     Result is compared with the change before it is used;
//   - a Result that was found under an earlier epoch never takes the place of one of a later epoch without being judged anew;
//   - time alone, a panic in a policy, or an end that does not read holds up no other connection.
package enforce
