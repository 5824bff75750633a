// Package short makes resources of Envoy's API of the short form: a piece of the configuration file of jurat serve, with listen and
// clusters. Where a policy is a file there, it is the name of an AttestationPolicy here.
//
// What comes out is plain Envoy but for attestation, so that a stock proxy can be configured by it, too. It is translated back and
// compared: what the resources do not say, or would say otherwise, is an error that names the place, and never left out.
package short
