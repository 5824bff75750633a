// Package grpccreds has the credentials by which programs that use gRPC for Go talk to peers that are appraised. A client's replace
// credentials.NewTLS at grpc.WithTransportCredentials, a server's at grpc.Creds; nothing else of the program changes.
//
// Between two ends that know the session tier, evidence is for the connection. A server that has a certificate with evidence and no
// more is met in the certificate tier, where the policy takes that.
//
// Invariants:
//   - no byte of gRPC moves before the peer is affirmed;
//   - a call learns of its peer what is known by then, and not what was known at the handshake: see Result;
//   - the name that a client expects is the authority that gRPC dials by, without its port. OverrideServerName is refused.
//
// This is the only package of ratls that knows gRPC, and third-party types stand in its signatures: to be taken for one of gRPC's
// credentials is what it is for.
package grpccreds
