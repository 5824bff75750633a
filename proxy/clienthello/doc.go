// Package clienthello reads whom a TLS client wants to reach off the first bytes of its connection, without answering: the
// server name (RFC 6066 section 3) and the protocols on offer (ALPN, RFC 7301) of a ClientHello (RFC 8446 section 4.1.2, and
// RFC 5246 section 7.4.1.2 before it). TLS goes on with the server that the bytes are passed on to.
//
// Nothing of that is authenticated: a name chooses where a connection goes, and proves nothing about the client. Where a
// client encrypts its hello (ECH, RFC 9849), what is read is the name outside: that is the one that counts here, and the
// name inside is for the server that has the key.
//
// What two readers could understand in two ways is refused: an extension that occurs twice, two names, bytes left over.
// Values of extensions that are of no use here are not looked at, so new ones pass.
package clienthello
