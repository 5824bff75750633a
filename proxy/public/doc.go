// Package public gets and keeps the certificates that programs which know nothing of evidence trust: from a certificate authority, by
// ACME (RFC 8555), or from files. It wraps certmagic and acmez, of which nothing else in the tree knows.
//
// Invariants:
//   - a private key is made in this process, and is in its memory and, sealed, in a Storage: a directory without a Sealer is refused.
//     Only who brings a certificate in files has a key that was somewhere else before, and only where replicas share a Storage others have
//     it too: who they are is for package share to see to;
//   - what is not valid for the name, or not any more, by the clock that was handed in, is not served: there is an error instead;
//   - a certificate is replaced at once and in whole. What was established with the one before goes on;
//   - a failure, whatever it is, costs no certificate that is there: it is used until it expires;
//   - nothing is issued on demand: the names are those of the configuration, whatever clients ask for;
//   - no globals of the libraries are used: neither their default storage on disk nor their log, their cache, their listeners on ports 80
//     and 443, and their goroutines.
package public
