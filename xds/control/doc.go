// Package control is a control plane: it serves a directory of files over the aggregated discovery service (ADS), in both variants
// of the protocol, to proxies that are affirmed.
//
// # The directory
//
//	groups.yaml           who gets what: groups in order, the first that a proxy matches is its own
//	*.yaml                resources for every group
//	GROUP/**.yaml         resources for one group
//	policies/NAME.yaml    the AttestationPolicy NAME, with the files beside it that it names; NAME.policy.yaml anywhere at the top is one, too
//	references/SET/FILE   the ReferenceValues SET; a policy that names FILE, which is not beside it, refers to the set
//
// Names that begin with a dot, and those that end in ~ or .md, are left out. The directory is taken as a whole or not at all: where
// one file is bad, that file is named, with the line, and everything stays as it was.
//
// # Whom it serves
//
// A proxy's group follows from its Result and the names and the configuration digest that its evidence commits to, never from what
// a request says. node.id has to agree with it. Each group names a policy, which its proxies have to meet beside the one of the
// handshake. A change of that policy judges those who are connected again, at once: one that is refused loses its stream, and
// gets nothing any more.
//
// # Versions
//
// Each change of a resource, and each removal from a set of them, gets a number of its own, which is greater than all before. The
// numbers begin at the clock (microseconds), so that they go on even where the state was lost. Two resources that differ never
// have the same version.
//
// # What survives
//
// A change is durable before the first proxy hears of it: its files and versions, then the line of the history that names them.
// Each line names the one before by its digest. What the last whole line says is served after a crash.
package control
