// Package ratls puts Evidence into TLS and appraises the Evidence a peer put there.
//
// The certificate tier binds Evidence to the key of a short-lived leaf: the hardware signs the public key, the validity
// window, the names and the digest of the measured configuration. An Identity makes and renews such leaves; a
// RelyingParty appraises those of peers.
//
// Invariants:
//   - no Conn exists before its peer was appraised and affirmed, so no application byte can move earlier;
//   - verification runs in tls.Config.VerifyConnection, which unlike VerifyPeerCertificate also runs on resumption;
//     resumption is off at both ends and a resumed connection is refused all the same;
//   - TLS 1.3 only;
//   - the private key of a leaf lives in the memory of this process and nowhere else, but for an Identity that was made with
//     UnsafeExport.
package ratls
