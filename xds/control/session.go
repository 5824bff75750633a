package control

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/internal/request"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Bounds on what one stream can make us hold.
const (
	maxTypes = 64
	maxNames = 200_000
	maxParts = 250_000 // messages within a request: what a proxy has already, and what it says of itself
)

// Methods that are served.
const (
	adsSotw  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	adsDelta = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	sdsSotw  = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
	sdsDelta = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
)

// Handlers are the methods of the discovery services, for an attested.Server: ADS, and SDS for those who want secrets alone.
func (c *Control) Handlers() map[string]attested.Handler {
	handler := func(delta bool, only string) attested.Handler {
		return func(s attested.Stream) error { return c.serve(s, delta, only) }
	}
	return map[string]attested.Handler{
		adsSotw: handler(false, ""), adsDelta: handler(true, ""),
		sdsSotw: handler(false, resource.Secret), sdsDelta: handler(true, resource.Secret),
	}
}

// session is one stream.
type session struct {
	c       *Control
	s       attested.Stream
	delta   bool
	only    string // the type that the service is of; "" for all
	since   time.Time
	sending atomic.Bool
	ended   chan struct{}
	why     error // why it ended; written before ended is closed
	once    sync.Once

	mu     sync.Mutex
	st     *state
	group  *group
	result *attest.Result // that was judged
	asked  bool           // there was a request: node is what it says
	node   request.Node
	subs   map[string]*subscription
	order  []*subscription // by the order in which changes have to travel
	names  int
	nonces uint64
}

func (c *Control) serve(s attested.Stream, delta bool, only string) error {
	ss := &session{c: c, s: s, delta: delta, only: only, since: c.opts.Now(), ended: make(chan struct{}), subs: map[string]*subscription{}}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.sessions[ss] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		return &attested.Status{Code: attested.Unavailable, Message: "the control plane ends"}
	}
	defer func() {
		c.mu.Lock()
		delete(c.sessions, ss)
		c.mu.Unlock()
	}()
	err := ss.run()
	ss.once.Do(func() { close(ss.ended) })
	var told *attested.Status
	if errors.As(err, &told) && told.Code == attested.PermissionDenied {
		c.refuse(ss, told.Message)
	}
	return err
}

// cutAfter is how long a session that has to end may be in the middle of sending.
const cutAfter = 200 * time.Millisecond

// end ends the session from outside. One that sends to a peer that does not read ends with its connection.
func (ss *session) end(err error) {
	ss.once.Do(func() {
		ss.why = err
		close(ss.ended)
		time.AfterFunc(cutAfter, func() {
			ss.c.mu.Lock()
			_, there := ss.c.sessions[ss]
			ss.c.mu.Unlock()
			if there {
				ss.s.Peer().Cut()
			}
		})
	})
}

func (ss *session) run() error {
	if err := ss.renew(); err != nil {
		return err
	}
	requests := make(chan *request.Request)
	failed := make(chan error, 1)
	go func() {
		for {
			r, err := ss.receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ss.ended:
				return
			}
		}
	}()
	for {
		// What is newer, and whoever is refused by it, is seen before each response.
		if err := ss.renew(); err != nil {
			return err
		}
		if response := ss.next(); response != nil {
			if err := ss.send(response); err != nil {
				return err
			}
			continue
		}
		select {
		case r := <-requests:
			if err := ss.take(r); err != nil {
				return err
			}
		case err := <-failed:
			if err == io.EOF {
				return nil
			}
			return err
		case <-ss.st.replaced:
		case <-ss.ended:
			return ss.why
		}
	}
}

// send sends a response to a peer that is not refused meanwhile. Who judges all sessions leaves out those that do not send: they
// judge themselves. So it is said first that this one does, and then looked whether there is something newer.
func (ss *session) send(response [][]byte) error {
	ss.sending.Store(true)
	defer ss.sending.Store(false)
	err := ss.renew()
	if err == nil {
		err = ss.s.Send(response...)
	}
	select {
	case <-ss.ended:
		return ss.why
	default:
		return err
	}
}

// renew goes on to the newest state, and judges the peer where the state or its evidence is another.
func (ss *session) renew() error {
	st, result := ss.c.state.Load(), ss.s.Peer().Result()
	if st == ss.st && result == ss.result { // both are written by this goroutine alone
		return nil
	}
	g, err := ss.c.admit(ss.s.Peer(), st)
	if err != nil {
		return err
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.st, ss.group, ss.result = st, g, result
	return ss.agrees(g)
}

// agree is agrees, for whoever does not hold the lock.
func (ss *session) agree(g *group) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.agrees(g)
}

// agrees checks that what the proxy calls itself agrees with what was verified, and with a group.
func (ss *session) agrees(g *group) error {
	if ss.asked && !g.agrees(ss.s.Peer(), ss.node.ID) {
		return &attested.Status{Code: attested.PermissionDenied, Message: fmt.Sprintf("node.id %s is none of the names that the evidence is for, and none that group %s allows", resource.Printable(ss.node.ID, 128), g.Name)}
	}
	return nil
}

// next answers the next response that is to be sent; nil where all that is to be said waits for an answer.
func (ss *session) next() [][]byte {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	nonce := func() string {
		ss.nonces++
		return strconv.FormatUint(ss.nonces, 10)
	}
	for _, sub := range ss.order {
		if s := ss.group.set(sub.typ); ss.delta {
			sub.lookDelta(s)
		} else {
			sub.lookSotw(s)
		}
	}
	held := false // something earlier in the order waits
	for _, sub := range ss.order {
		if len(sub.linger) > 0 && ss.free(sub.typ) {
			sub.release(ss.delta)
		}
		if sub.nonce != "" {
			held = held || len(sub.todo) > 0 || sub.due
			continue
		}
		if held && resource.Named(sub.typ) {
			continue // it may refer to what can't be sent yet
		}
		take := sub.takeSotw
		if ss.delta {
			take = sub.takeDelta
		}
		if m := take(ss.group.set(sub.typ), nonce); m != nil {
			return m
		}
	}
	return nil
}

// free reports whether nothing that the client runs can refer to what is removed of a type: it has accepted the listeners and routes
// of the new state, and is rid of clusters before their endpoints and secrets go.
func (ss *session) free(typ string) bool {
	before := []string{resource.Listener, resource.Route}
	if typ != resource.Cluster {
		before = append(before, resource.Cluster)
	}
	for _, t := range before {
		if sub := ss.subs[t]; sub != nil && (!sub.settled(ss.group.set(t)) || len(sub.linger) > 0) {
			return false
		}
	}
	return true
}

// take carries out a request.
func (ss *session) take(r *request.Request) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if r.Node != nil {
		if !ss.asked {
			ss.node.ID, ss.node.Agent = r.Node.ID, r.Node.Agent
		}
		ss.node.Open, ss.node.Refused = r.Node.Open, r.Node.Refused
	}
	if !ss.asked {
		ss.asked = true
		if err := ss.agrees(ss.group); err != nil {
			return err
		}
	}
	if ss.only != "" {
		if r.Type != "" && r.Type != ss.only {
			return &attested.Status{Code: attested.InvalidArgument, Message: "this service is for " + ss.only}
		}
		r.Type = ss.only
	}
	sub := ss.subs[r.Type]
	first := sub == nil
	if first {
		if err := resource.ValidType(r.Type); err != nil {
			return &attested.Status{Code: attested.InvalidArgument, Message: err.Error()}
		}
		if len(ss.subs) == maxTypes {
			return &attested.Status{Code: attested.ResourceExhausted, Message: fmt.Sprintf("more than %d types", maxTypes)}
		}
		sub = &subscription{typ: r.Type, names: map[string]uint64{}}
		ss.subs[r.Type] = sub
		ss.order = append(ss.order, sub)
		slices.SortStableFunc(ss.order, func(a, b *subscription) int { return resource.Rank(a.typ) - resource.Rank(b.typ) })
	}
	for _, n := range r.Subscribe {
		if err := resource.ValidName(n); err != nil {
			return &attested.Status{Code: attested.InvalidArgument, Message: err.Error()}
		}
	}
	sub.answer(r, ss.delta, ss.c.opts.Now())
	before := len(sub.names)
	if ss.delta {
		sub.wantDelta(r, first)
	} else {
		// What goes with the nonce of an older response was overtaken by the one that is on its way.
		if r.Nonce != "" && sub.last != "" && r.Nonce != sub.last {
			return nil
		}
		sub.wantSotw(r)
	}
	if ss.names += len(sub.names) - before; ss.names > maxNames {
		return &attested.Status{Code: attested.ResourceExhausted, Message: fmt.Sprintf("more than %d names", maxNames)}
	}
	return nil
}

// receive reads the next request.
func (ss *session) receive() (*request.Request, error) {
	raw, err := ss.s.Recv()
	if err != nil {
		return nil, err
	}
	r, err := request.Read(raw, ss.delta, maxParts)
	if err != nil {
		return nil, &attested.Status{Code: attested.InvalidArgument, Message: "the request is not understood"}
	}
	return r, nil
}
