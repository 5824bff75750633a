// Package sds serves secrets to an Envoy beside this process: certificates with their keys, and the keys of peers that Envoy is to
// take (SecretDiscoveryService, state of the world and delta).
//
// An Envoy takes a validation context without any condition for one that lets everybody in, and keeps what it was given until it is
// given something else. So a validation context always has a list of keys, which for nobody holds the digest of what is no key; and one
// that is served no more is replaced by that instead of being taken away.
package sds
