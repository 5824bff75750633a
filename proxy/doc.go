// Package proxy is the data plane: it carries application bytes between attested connections and ordinary ones, and knows
// nothing of TEEs or of how a connection is attested.
//
// What holds for every Server, but for the first two where NewPassthrough made it, which leaves TLS to others:
//
//   - No application byte moves, in either direction, before the handshake has returned an acceptable Result.
//   - What a service learns of its client comes from the proxy alone: everything a client sends that could be taken for
//     it is removed, in headers and in trailers, however it is spelt.
//   - A connection that was cut off never looks finished to the other side.
//   - What a stranger can make the proxy hold is bounded by Limits, and a panic ends one connection, not the process.
//   - Logs hold addresses and codes: no header value, no byte of a body, no key.
//
// Handshake, Dial, DialTarget and Conn are the seam to whatever establishes connections.
package proxy
