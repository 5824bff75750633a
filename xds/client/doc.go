// Package client is an xDS client: it subscribes to resources of a control plane over one aggregated stream (ADS), in the
// state-of-the-world or the delta protocol, and hands what changes to a Sink that accepts or refuses it.
//
//	c, err := client.New(client.Config{Kind: client.Delta, Node: client.Node{ID: "proxy-1"}, Random: rand.Float64}, transport, sink)
//	err = c.Subscribe(resource.Cluster, []string{"*"}, 0)
//	err = c.Subscribe(resource.Listener, []string{"*"}, 0)
//	err = c.Run(ctx)
//
// Package grpcads has a transport over gRPC. Package protocol has what is said and when, and the order in which a Sink
// changes things without a gap.
//
// # When the control plane is away, broken or hostile
//
// Run goes on until its context ends. While there is no stream everything stays as it was accepted last, and attempts to
// open one are spaced out at random over a time that doubles, up to Backoff.Most; a stream has to have lived that long before
// the next failure counts as a first one. So neither a server that refuses everybody nor one that hangs up after every
// response is run against.
//
// What is held is bounded (Limits), how fast responses are taken is bounded (Config.Rate), a server that does not read is hung
// up on (Config.Stall), and what does not make sense is refused with a reason or, where there is nothing to refuse, ends the
// stream. A Sink that panics has refused.
//
// After a refusal that leaves the control plane with another idea of what is held than this side has, a new stream puts it right, once in
// Backoff.Most at the soonest (see package protocol).
//
// # What it does not do
//
// Names are opaque: collections and parameters of xdstp:// names, and variants of one resource, are not known. There is no polling over
// REST. In the state-of-the-world protocol only clusters and listeners can be removed by the control plane.
//
// # Last known good
//
// With a Store, what is accepted is kept, and offered to the Sink again when Run begins, before anything is heard of a control
// plane. What has a time to live is left out, and so are resources that are secrets unless Config.Stored says otherwise. Whoever implements
// the Store seals the bytes. An older state that is put back is not recognised here: versions of xDS have no order.
package client
