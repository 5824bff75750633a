// Package loop drives many connections from few goroutines.
//
// A Loop is one goroutine. Everything that its connections do happens in it, one thing after another: there are no locks,
// no wake-ups between a connection and its other side, and an idle connection holds neither a stack nor a buffer. On Linux a
// loop waits in epoll and calls the kernel itself; TLS runs over memory (Wire), so that it never waits. Any other net.Conn is
// driven by two goroutines that wait in its stead, with the same behaviour: that is the engine of other systems, and the one
// to compare with.
//
// Handshakes wait for the other end, for quotes and for appraisals. They belong on goroutines of their own; a connection
// comes to a loop when it is established.
package loop
