// Package accesslog writes what a proxy did: one line for each HTTP request and for each raw connection.
//
// A Record is made into a line by AppendText or AppendJSON. Both write printable ASCII only, whatever a client sent: nobody
// forges a line, a field or a sequence that a terminal obeys. Neither writes a query, user information, a header value or a
// byte of a body, even where a Record holds one.
//
// A Writer takes lines from event loops. It never waits for the disk or for whoever reads the other end of a pipe: what does
// not fit into its buffer is dropped and counted.
package accesslog
