package ratls

import (
	"context"
	"crypto/tls"
	"slices"
	"time"
)

// successorALPN is offered beside the protocols of the application by who wants to see the leaf that serves next. Nobody negotiates
// it, and a server that does not know it shows the leaf that serves now.
const successorALPN = "jurat-successor"

// overlapOf is how long a leaf is shown to who asks for it before it serves.
func overlapOf(lifetime time.Duration) time.Duration { return lifetime / 8 }

// Prepare makes the leaf that serves next. Until Promote it is shown to clients that ask for it (Connector.Successor) and to nobody
// else: who keeps keys then knows the new one before it meets it, and no connection fails in between.
func (id *Identity) Prepare(ctx context.Context) error {
	leaf, err := id.make(ctx)
	if err != nil {
		id.told(nil, err)
		return err
	}
	id.next.Store(leaf)
	return nil
}

// Promote has the leaf that Prepare made serve from now on. Connections made with the old one are not touched.
func (id *Identity) Promote() {
	if leaf := id.next.Swap(nil); leaf != nil {
		id.leaf.Store(leaf)
		id.told(leaf, nil)
	}
}

// due is when the leaf that serves is to be replaced: after half of its lifetime.
func due(leaf *Leaf) time.Time {
	began := leaf.Certificate.NotBefore.Add(backdate)
	return began.Add(leaf.Certificate.NotAfter.Sub(began) / 2)
}

// promotion is when next is to serve. It is shown for as long as it takes those who ask to have asked, unless there is nothing to
// serve until then.
func (id *Identity) promotion(leaf, next *Leaf) time.Time {
	at := next.Certificate.NotBefore.Add(backdate + overlapOf(id.opts.Lifetime))
	if end := leaf.Certificate.NotAfter; end.Before(at) {
		at = end
	}
	return at
}

// successor is the leaf for a client that asks for the next one; nil where it does not ask, or where there is none.
func (id *Identity) successor(hello *tls.ClientHelloInfo) *Leaf {
	if hello == nil || !slices.Contains(hello.SupportedProtos, successorALPN) {
		return nil
	}
	return id.next.Load()
}

// Successor is c in the certificate tier, for who keeps the keys of servers: it asks to see the leaf that a server is going to serve
// with next, and sees the one of now where there is no other. c has to name protocols, or a server that negotiates them refuses.
func (c *Connector) Successor() *Connector {
	tuned := c.CertificateOnly()
	tuned.successor = true
	return tuned
}
