// Package h2 is a connection of HTTP/2 (RFC 9113) as a state machine: bytes that were read go into Feed, what they mean
// comes out as events, and bytes to be written are taken from Output. It does no I/O, starts no goroutine and reads no
// clock. NewServer makes the end towards clients, NewClient the one towards services.
//
// A Conn, its streams and its Pool belong to one goroutine, the event loop's. The loop
//
//   - reads into a buffer of its own and calls Feed; when Feed returns an error, writes what Output still holds and closes;
//   - writes Output and calls Sent with what was taken, whenever Output is not empty and the socket takes more;
//   - closes when Done reports true, and calls Abort when the socket failed.
//
// Events run in the loop's goroutine while it is in Feed, Sent, Abort or a method of a Stream, and may call any method of
// any Conn but Feed, Sent and Abort.
//
// Nothing of a body is held here: Write takes what the windows and Output have room for, and Writable tells when there is
// more; the peer's window opens only by what Consumed says. What is held for a peer is bounded by Limits, and a peer that
// makes us work for nothing is sent away with ENHANCE_YOUR_CALM.
package h2
