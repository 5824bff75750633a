// Package proxyproto is the header of the PROXY protocol, versions 1 and 2 (doc/proxy-protocol.txt of HAProxy): with it a
// load balancer opens the connections that it forwards, to say whose they are.
//
// A header is an assertion of whoever connected, and anybody can write one. It is to be read where it was agreed on, from
// peers that are trusted by their own addresses, and there it has to be present: nothing here guesses whether it is.
//
// What the specification lets a receiver choose is decided like this:
//
//   - Both versions are read. A header of version 1 has at most 107 bytes, as specified; one of version 2 has at most MaxV2,
//     and at most 64 TLVs.
//   - The block of a LOCAL header is skipped whole, whatever is in it. UNSPEC in a PROXY header has no addresses, and what
//     follows is read as TLVs.
//   - Only the pairs of family and transport that are listed are taken, no other combinations of the two.
//   - A type that says one thing about the connection may occur once: receivers differ in which of two they believe.
//   - IPv6 addresses in version 1 may end in dotted decimal, which inet_ntop writes for mapped addresses and HAProxy with it.
package proxyproto
