// Package session is the session tier: right after a TLS 1.3 handshake that agreed on the ALPN id jurat/1, and before any
// application byte, the two ends exchange Evidence in which the hardware signed a value of this very connection.
//
// The exchange, in frames inside TLS:
//
//	client  hello (protocols on offer, id of an earlier session), request for the server's evidence
//	server  hello (protocol, whether the earlier session counts, whether it wants evidence), request for the client's
//	server  authenticator, or a proof of the earlier session
//	client  authenticator or proof, where asked for; verdict
//	server  verdict, where it asked
//
// Requests and authenticators are those of RFC 9261 (package ea), with evidence in the cmw_attestation extension. What the
// hardware signs is the root of a tree in which one leaf commits to role, key, challenge and exporter of this connection:
//
//	leaf        = SHA-256(0x00 ‖ role ‖ SHA-256(SPKI) ‖ challenge ‖ exporter(label of the role, challenge))
//	report data = SHA-512(domain ‖ tree size ‖ root ‖ configuration digest)
//
// After the exchange the same frames carry the application's bytes, so that either end can ask for evidence again while
// the connection is open.
//
// Invariants:
//   - no Conn exists before every end that asked for evidence has affirmed the other;
//   - what came over the connection is compared with what is computed here from the connection, never with itself;
//   - a frame is bounded by its kind before its payload is read, and only the frame that is due is accepted;
//   - an authenticator is accepted once, for the one request that is open.
package session
