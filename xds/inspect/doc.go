// Package inspect shows what proxies hold of a control plane, in the words that Envoy's tools know: as the ConfigDump of the admin API
// (envoy.admin.v3) and over CSDS (envoy.service.status.v3). No secret is in it (envoy.Screen).
//
// The messages are written here by hand: those that generated code has for them bring Envoy's whole bootstrap with them.
package inspect
