// Package envoy turns resources of Envoy's API, as istiod and Envoy Gateway send them, into the configuration of our proxy.
// It is pure: resources in, configuration out.
//
// A field that is there is carried out, or it is known to mean nothing here (tables.go), or it is an error that names it:
// nothing that a control plane demands is left out without a word. A TLS context without our AttestationValidator can't be
// carried out, and never becomes plaintext. What refers to something that has not come yet waits for it, out of the
// configuration.
//
// Load reads resources from files.
package envoy
