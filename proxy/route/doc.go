// Package route is the routing table: which virtual host and which route a request belongs to, and what is done with it.
//
// A Table is compiled once from a Config, never changes, and is shared by any number of goroutines. Matching an ordinary
// request allocates nothing. What is out of the ordinary costs one string each: a path that was not in canonical form, a
// field or a query parameter that is matched and was repeated or percent-encoded.
//
// Match puts the path of the request into canonical form (Normalize) and decides by that form alone, so what is forwarded
// is what was matched. Two paths that mean the same bytes to a server have one canonical form, or are refused.
package route
