// Package agent turns what a control plane sends into what a proxy does.
//
// An Agent is the Sink of a client. Each update is judged as a whole before it is accepted: what it would make of the configuration is
// translated, put beside the static file, held against the limits of that file (package guard) and against the serials that were accepted
// before, and carried out. Whatever fails on the way refuses the update, with a code and the resource in question, and everything stays as
// it was.
//
// Changes are made before breaks. What refers to something that has not come yet waits for it, and what was in use before goes on in its
// place: a cluster without its endpoints stays the old one, a listener without its routes or policies as well, and a cluster that is gone
// stays as long as a route leads there. So what is in use (the effective resources) can be older than what was accepted, and it is the
// former that is held against the limits each time.
//
// The static file is not subject to any of this: its listeners and clusters are in every configuration as they are, and no resource can
// have their names.
package agent
