// Package client is an xDS client: it subscribes to resources of a control plane, in the state-of-the-world or the delta
// protocol, and hands what changes to a Sink that accepts or refuses it.
package client
