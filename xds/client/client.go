package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// What crosses from package protocol.
type (
	Update         = protocol.Update
	Rejection      = protocol.Rejection
	Request        = protocol.Request
	Response       = protocol.Response
	Node           = protocol.Node
	Counts         = protocol.Counts
	Kind           = protocol.Kind
	Limits         = protocol.Limits
	ResourceStatus = protocol.ResourceStatus
)

// The two variants of the protocol.
const (
	StateOfTheWorld = protocol.StateOfTheWorld
	Delta           = protocol.Delta
)

// Sink is told what changes. One goroutine calls it, Run's, and both methods may call Subscribe and Refresh.
type Sink interface {
	// Offer judges an update as a whole: nil accepts it. A *Rejection refuses it and says which resources are why; any other
	// error refuses it too. What is refused has not happened: the state is as it was. The text goes to the control plane.
	Offer(*Update) error
	// Missing says that resources were not sent in the time that the subscription gave them. They are still waited for.
	// names has "*" where nothing at all has come.
	Missing(typ string, names []string)
}

// Stream is one stream of discovery requests and responses. One goroutine sends while another one receives.
type Stream interface {
	// Send hands a request over. io.EOF means that the stream has ended, and that Recv says why.
	Send(*Request) error
	// Recv waits for the next response. An error ends the stream.
	Recv() (*Response, error)
}

// Transport opens streams. Open returns, a stream ends, and its methods return, when the context does.
type Transport interface {
	Open(context.Context, Kind) (Stream, error)
}

// Store keeps the last good configuration over restarts, as bytes whose meaning is this package's own. It has to seal them:
// whoever can write them configures the proxy.
type Store interface {
	Load() ([]byte, error) // nothing and no error where nothing is kept
	Save([]byte) error
}

// Backoff spaces out attempts to open a stream. The pause before attempt n is a random one between First/10 and First doubled
// n times, but not more than Most.
type Backoff struct {
	First time.Duration // 500 ms
	Most  time.Duration // 30 s
}

// Config is what a Client is made of. What is not required and 0 stands for the default.
type Config struct {
	Kind   Kind           // required
	Random func() float64 // required: numbers in [0, 1)
	Node   Node
	Limits Limits
	// ExplicitWildcard spells a subscription to everything as "*" where Envoy says nothing at all.
	ExplicitWildcard bool
	Backoff          Backoff
	Stall            time.Duration // how long a request may take to be sent: 1 minute
	Rate             float64       // responses that are taken in a second, in the long run: 100
	Burst            int           // responses that are taken at once: 1000

	// Counts, where it is there, answers what a control plane that counts is told of connections. It is called by one goroutine, which it
	// must not hold up.
	Counts      func() Counts
	CountsEvery time.Duration // how often it is asked at most: 5 s

	Store     Store                         // nil keeps nothing
	Stored    func(*resource.Resource) bool // what is kept, which another goroutine asks; nil is all but resources that are secrets
	SaveAfter time.Duration                 // from a change until it is kept, so that many are kept at once: 1 s
}

// Client is an xDS client.
type Client struct {
	config    Config
	transport Transport
	sink      Sink
	wake      chan struct{} // something is to be said

	mu      sync.Mutex // never held while the sink is called
	machine *protocol.Machine
	status  Status // without what the machine says
	running bool
}

// Status is the state of a client, for people and metrics.
type Status struct {
	protocol.Status
	Since      time.Time // that there is a stream, or none
	Attempts   int       // in a row that came to nothing
	Next       time.Time // attempt; zero while there is a stream, or one is being opened
	LastError  string    // why there was no stream, or no longer one
	LastErrorT time.Time
	Saved      time.Time // the last time that the configuration was kept
	StoreError string    // why it was not, or could not be read
}

// New makes a client that subscribes to nothing and does nothing until Run.
func New(config Config, transport Transport, sink Sink) (*Client, error) {
	if transport == nil || sink == nil {
		return nil, errors.New("a client needs a transport and a sink")
	}
	machine, err := protocol.New(protocol.Config{
		Kind: config.Kind, Node: config.Node, Limits: config.Limits, ExplicitWildcard: config.ExplicitWildcard, Random: config.Random,
	})
	if err != nil {
		return nil, err
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	def(&config.Backoff.First, 500*time.Millisecond)
	def(&config.Backoff.Most, 30*time.Second)
	def(&config.Stall, time.Minute)
	def(&config.SaveAfter, time.Second)
	def(&config.CountsEvery, 5*time.Second)
	if !(config.Rate > 0) {
		config.Rate = 100
	}
	if config.Burst <= 0 {
		config.Burst = 1000
	}
	if config.Stored == nil {
		config.Stored = func(r *resource.Resource) bool { return r.Type != resource.Secret } // a private key stays in memory
	}
	return &Client{config: config, transport: transport, sink: sink, wake: make(chan struct{}, 1), machine: machine}, nil
}

// Subscribe says what is wanted of a type from now on, in place of what was: names, and "*" for everything. Names that are
// new are to be answered within the time given, counted from now, or from the end of an outage (Envoy's
// initial_fetch_timeout); 0 waits for ever. What is not wanted any more is forgotten, and the sink is not told.
func (c *Client) Subscribe(typ string, names []string, within time.Duration) error {
	c.mu.Lock()
	err := c.machine.Subscribe(time.Now(), typ, slices.Clone(names), within)
	c.mu.Unlock()
	c.hurry()
	return err
}

// Refresh asks for names that are subscribed to once more. See protocol.Machine.Refresh.
func (c *Client) Refresh(typ string, names []string) {
	c.mu.Lock()
	c.machine.Refresh(typ, names)
	c.mu.Unlock()
	c.hurry()
}

func (c *Client) hurry() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Status says how things are.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.status
	st.Status = c.machine.Status()
	return st
}

// Resources lists what is known of a type, by name, bodies included: those of secrets hold private keys.
func (c *Client) Resources(typ string) []ResourceStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine.Resources(typ)
}
