// Package connect is a forward proxy's side of a client's first words, by which the client says where it wants to go: HTTP
// CONNECT (RFC 9110 section 9.3.6) or SOCKS5 (RFC 1928). The first byte tells them apart. It connects to nothing.
//
// What two programs could read differently is refused, never repaired; and a target is a host name or an IP address with a
// port, in one spelling. What a client sent ahead, before it was answered, is kept for whoever carries the connection on.
package connect
