// Package attested carries gRPC over attested connections, at both ends. A handler learns from its Stream who the peer is: what the
// hardware signed and the policy affirmed, and nothing that a request says about itself.
//
// Messages are bytes here: who encodes one message for a thousand streams does it once, and no type of gRPC is seen outside.
//
// Invariants:
//   - no handler runs, and no message is read or sent, for a peer that is not affirmed;
//   - what strangers can make the server hold is bounded: connections that wait for their handshake, handshakes under way,
//     connections, streams, the size of a message and the time that one waits to be taken.
package attested
