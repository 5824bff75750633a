package client

import (
	"context"

	"github.com/jurat-tls/jurat/xds/client/protocol"
)

// What crosses from package protocol.
type (
	Update    = protocol.Update
	Rejection = protocol.Rejection
	Request   = protocol.Request
	Response  = protocol.Response
	Node      = protocol.Node
	Kind      = protocol.Kind
)

// Sink is told what changes. One goroutine calls it, and both methods may call Subscribe.
type Sink interface {
	// Offer judges an update as a whole: nil accepts it. A *Rejection refuses it and says which resources are why; any other
	// error refuses it too. What is refused has not happened: the state is as it was.
	Offer(*Update) error
	// Missing says that resources were not sent in the time that the subscription gave them. They are still waited for.
	// names has "*" where nothing at all has come.
	Missing(typ string, names []string)
}

// Stream is one stream of discovery requests and responses. One goroutine sends while another one receives.
type Stream interface {
	Send(*Request) error
	// Recv waits for the next response. An error ends the stream.
	Recv() (*Response, error)
}

// Transport opens streams. A stream ends, and its methods return, when its context does.
type Transport interface {
	Open(context.Context, Kind) (Stream, error)
}

// Store keeps the last good configuration over restarts, as bytes whose meaning is this package's own. It has to seal them:
// whoever can write them configures the proxy.
type Store interface {
	Load() ([]byte, error) // nothing and no error where nothing is kept
	Save([]byte) error
}
