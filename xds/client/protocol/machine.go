package protocol

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/xds/resource"
)

// Config is what a Machine is made of.
type Config struct {
	Kind   Kind // required
	Node   Node
	Limits Limits
	// ExplicitWildcard spells a subscription to everything as "*" where Envoy says nothing at all. Servers understand both, but
	// for some that know the one or the other only.
	ExplicitWildcard bool
	// Random gives numbers in [0, 1). Required.
	Random func() float64
}

// Machine is the client's side of one ADS stream after another. Its methods must not be called at the same time. Every time
// that is handed in has to be at least as late as the ones before.
type Machine struct {
	Config
	types    map[string]*state
	order    []*state // by rank
	open     bool
	anew     bool   // an outage is over, and what is waited for has not got its time again yet
	stream   uint64 // how many there were
	node     bool   // has been sent on this stream
	pending  *change
	kept     []*change // from an earlier run, not judged yet
	bytes    int
	server   string
	counts   *Counts // nil where none are told
	told     Counts  // on this stream
	ignored  uint64
	repeated uint64
}

// New makes a Machine that subscribes to nothing.
func New(config Config) (*Machine, error) {
	if config.Kind != StateOfTheWorld && config.Kind != Delta {
		return nil, errors.New("neither state of the world nor delta is chosen")
	}
	if config.Random == nil {
		return nil, errors.New("there is no source of random numbers")
	}
	if err := config.Node.valid(); err != nil {
		return nil, err
	}
	config.Node.Features = slices.Concat(config.Node.Features, features)
	config.Limits = config.Limits.orDefault()
	return &Machine{Config: config, types: map[string]*state{}}, nil
}

// state is that of one type.
type state struct {
	typ    string
	wanted map[string]struct{} // what is subscribed to; may have "*" in it; never changed but replaced
	list   []string            // the same in order, or nil
	asks   int                 // how often it was replaced
	waits  map[string]wait     // what of it is unanswered
	due    time.Time           // when the first of waits is over, or earlier; zero is never

	held    map[string]*entry
	attic   int                 // how many of held nobody wants any more
	again   map[string]struct{} // held in the attic, and wanted after all
	expires time.Time           // when the first of held does, or earlier; zero is never
	version string              // state of the world: that was accepted last

	// Of this stream.
	asked   bool
	dirty   bool                // wanted is not what the server was told
	legacy  bool                // "*" was spelt by saying nothing
	sent    map[string]struct{} // what the server thinks is wanted
	ever    map[string]struct{} // state of the world: what it may still think
	leave   map[string]struct{} // delta: to be unsubscribed from before it is subscribed to again
	renew   map[string]struct{} // delta: to be subscribed to though it is in sent
	nonce   string
	nonces  []string
	acks    []ack
	scratch bool // delta: the server was not told what is held, so that its first answer is everything

	adrift bool // something was refused that the server takes for known, so that it does not send it again
	differ bool // and something was accepted since

	streak   int       // refusals since the last acceptance
	hold     time.Time // no refusal is sent before
	rejected map[string]Rejected
	stats    counts
}

type wait struct {
	until  time.Time // zero is for ever
	within time.Duration
	late   bool // has been reported
}

type entry struct {
	resource.Resource
	expires time.Time
	since   time.Time
	attic   bool // state of the world: nobody wants it, but the server may not know and then would not send it again
}

func (e *entry) size() int {
	n := overhead + len(e.Name) + len(e.Version) + len(e.Body)
	for _, a := range e.Aliases {
		n += len(a)
	}
	return n
}

type ack struct {
	nonce   string
	refusal *Refusal
}

func (s *state) wants(name string) bool { _, ok := s.wanted[name]; return ok }

func (s *state) wantsAll() bool { return s.wants(resource.Wildcard) }

func (s *state) takes(name string, aliases []string) bool {
	return s.wantsAll() || s.wants(name) || slices.ContainsFunc(aliases, s.wants)
}

// Subscribe says what is wanted of a type from now on, in place of what was: names, and "*" for everything. Names that are
// new are to be answered within the time given, counted from now, or from the end of an outage; 0 waits for ever. What is
// not wanted any more is forgotten, and nobody is told.
func (m *Machine) Subscribe(now time.Time, typ string, names []string, within time.Duration) error {
	if err := resource.ValidType(typ); err != nil {
		return err
	}
	if len(names) > m.Limits.Names {
		return fmt.Errorf("a subscription has %d names, of at most %d", len(names), m.Limits.Names)
	}
	wanted := make(map[string]struct{}, len(names))
	for _, n := range names {
		if err := resource.ValidName(n); err != nil {
			return err
		}
		wanted[n] = struct{}{}
	}
	s := m.types[typ]
	if s == nil {
		if len(wanted) == 0 {
			return nil
		}
		if len(m.types) >= m.Limits.Types {
			return fmt.Errorf("there are subscriptions to %d types already", len(m.types))
		}
		s = &state{typ: typ, wanted: map[string]struct{}{}, waits: map[string]wait{}, held: map[string]*entry{}, again: map[string]struct{}{}, rejected: map[string]Rejected{}}
		s.fresh()
		m.types[typ] = s
		m.order = append(m.order, s)
		slices.SortFunc(m.order, func(a, b *state) int {
			return cmp.Or(cmp.Compare(resource.Rank(a.typ), resource.Rank(b.typ)), cmp.Compare(a.typ, b.typ))
		})
	}
	old := s.wanted
	s.wanted, s.list = wanted, nil
	s.asks++
	for n := range old {
		if s.wants(n) {
			continue
		}
		s.dirty = true
		delete(s.waits, n)
		delete(s.rejected, n)
	}
	for n := range wanted {
		if _, was := old[n]; was {
			continue
		}
		s.dirty = true
		e := s.held[n]
		if e != nil && !e.attic {
			continue // everything was wanted before
		}
		if _, was := s.sent[n]; was && m.Kind == Delta {
			s.leave[n] = struct{}{} // the server was not told in between, and would have no reason to send it
		}
		if e != nil {
			s.again[n] = struct{}{}
		}
		w := wait{}
		if within > 0 {
			w.until, w.within = now.Add(within), within
			s.due = earlier(s.due, w.until)
		}
		s.waits[n] = w
	}
	m.forget(s)
	return nil
}

// forget lets go of what is held and not wanted.
func (m *Machine) forget(s *state) {
	if s.wantsAll() {
		return
	}
	for n, e := range s.held {
		if e.attic || s.takes(n, e.Aliases) {
			continue
		}
		if _, told := s.ever[n]; m.Kind == StateOfTheWorld && told {
			if s.attic >= maxAttic {
				m.clearAttic(s) // what came last is the likeliest to be wanted again
			}
			e.attic = true
			s.attic++
			continue
		}
		m.drop(s, n)
	}
}

// clearAttic lets go of what nobody wants, but for what is wanted again.
func (m *Machine) clearAttic(s *state) {
	for n, e := range s.held {
		if _, again := s.again[n]; e.attic && !again {
			m.drop(s, n)
		}
	}
}

func (m *Machine) drop(s *state, name string) {
	if e := s.held[name]; e != nil {
		m.bytes -= e.size()
		if e.attic {
			s.attic--
		}
		delete(s.held, name)
		delete(s.again, name)
	}
}

func (m *Machine) keep(s *state, e *entry) {
	m.drop(s, e.Name)
	s.held[e.Name] = e
	m.bytes += e.size()
	if e.attic {
		s.attic++
	}
	if !e.expires.IsZero() {
		s.expires = earlier(s.expires, e.expires)
	}
}

// Refresh asks for names that are subscribed to once more, in the delta protocol. A server has to send them again, changed or
// not. In the state-of-the-world protocol there is no way to ask, and nothing happens.
func (m *Machine) Refresh(typ string, names []string) {
	s := m.types[typ]
	if s == nil || m.Kind != Delta || !m.open {
		return
	}
	for _, n := range names {
		if _, told := s.sent[n]; told && s.wants(n) && n != resource.Wildcard {
			s.renew[n] = struct{}{}
			s.dirty = true
		}
	}
}

// Report sets what is told of connections from now on: with the first request of a stream, and on one to a control plane that counts
// (Counting) with the next request, which is a repeated acknowledgement where there is nothing else to say. So it is not to be called often.
func (m *Machine) Report(c Counts) { m.counts = &c }

// untold reports whether the control plane is to be told of counts.
func (m *Machine) untold() bool {
	return m.counts != nil && *m.counts != m.told && m.server == Counting
}

// repeat makes a request that says nothing new: it acknowledges once more what was accepted last. nil where nothing was.
func (m *Machine) repeat() *Request {
	for _, s := range m.order {
		// A refusal is not taken back, and names are not said again for this.
		plain := m.Kind == Delta || s.legacy && len(s.wanted) == 1 && s.wantsAll()
		if s.asked && plain && s.nonce != "" && len(s.acks) == 0 && s.streak == 0 && (m.pending == nil || m.pending.state != s) {
			r := &Request{Type: s.typ, Nonce: s.nonce}
			if m.Kind == StateOfTheWorld {
				r.Version = s.version
			}
			return r
		}
	}
	return nil
}

// Opened says that there is a fresh stream.
func (m *Machine) Opened() {
	m.anew = m.stream > 0
	m.open, m.node, m.server = true, false, ""
	m.stream++
	for _, s := range m.order {
		s.fresh()
		clear(s.rejected) // what is still there is sent again
		clear(s.again)
		m.clearAttic(s)
	}
}

// Closed says that the stream is gone.
func (m *Machine) Closed() {
	m.open = false
	for _, s := range m.order {
		s.fresh()
	}
}

func (s *state) fresh() {
	s.asked, s.dirty, s.legacy, s.scratch = false, true, false, false
	s.sent, s.ever = map[string]struct{}{}, map[string]struct{}{}
	s.leave, s.renew = map[string]struct{}{}, map[string]struct{}{}
	s.nonce, s.nonces, s.acks = "", nil, nil
	s.adrift, s.differ = false, false
}

// Full reports that so much is to be said that nothing more should be received before some of it is.
func (m *Machine) Full() bool {
	return slices.ContainsFunc(m.order, func(s *state) bool { return len(s.acks) >= maxAcks })
}

// Adrift reports that a server goes on to send differences to what was refused, as if it had not been: what was refused together with a
// bad resource, or was to be removed with it, does not come again on this stream. A new one puts that right.
func (m *Machine) Adrift() bool {
	return m.open && slices.ContainsFunc(m.order, func(s *state) bool { return s.differ })
}

// Deadline is when Due, Missing or Next will have something to say if nothing else happens before; zero is never. What Next has to say already
// is not waited for.
func (m *Machine) Deadline(now time.Time) time.Time {
	var t time.Time
	for _, s := range m.order {
		if t = earlier(t, s.expires); !m.away() {
			t = earlier(t, s.due)
		}
		if m.open && len(s.acks) > 0 && s.acks[0].refusal != nil && s.hold.After(now) {
			t = earlier(t, s.hold)
		}
	}
	return t
}

// earlier is the earlier one of two times of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// away reports whether there was a stream, and is none. Nobody is late then: an outage must not have what works replaced by what its end
// would have made complete.
func (m *Machine) away() bool { return !m.open && m.stream > 0 }

// renew gives all that is waited for its whole time again, after an outage.
func (m *Machine) renew(now time.Time) {
	if !m.anew {
		return
	}
	m.anew = false
	for _, s := range m.order {
		for n, w := range s.waits {
			if w.within > 0 && !w.late {
				w.until = now.Add(w.within)
				s.waits[n] = w
			}
		}
		if !s.due.IsZero() {
			s.due = now // to be found anew
		}
	}
}

// Missing gives the names of a type whose time to be answered is over, each once. It is to be called until typ is "".
func (m *Machine) Missing(now time.Time) (typ string, names []string) {
	if m.away() {
		return "", nil
	}
	m.renew(now)
	for _, s := range m.order {
		if s.due.IsZero() || s.due.After(now) {
			continue
		}
		s.due = time.Time{}
		for n, w := range s.waits {
			switch {
			case w.late || w.until.IsZero():
			case w.until.After(now):
				s.due = earlier(s.due, w.until)
			default:
				w.late = true
				s.waits[n] = w
				names = append(names, n)
			}
		}
		if len(names) > 0 {
			slices.Sort(names)
			return s.typ, names
		}
	}
	return "", nil
}

// Next gives the next request to be sent, or nil. Until it is sent nothing may be assumed to be known to the server.
func (m *Machine) Next(now time.Time) *Request {
	if !m.open {
		return nil
	}
	for _, s := range m.order {
		var r *Request
		if m.Kind == Delta {
			r = m.nextDelta(now, s)
		} else {
			r = m.nextState(now, s)
		}
		if r != nil {
			m.introduce(r)
			return r
		}
	}
	if m.untold() {
		if r := m.repeat(); r != nil {
			m.introduce(r)
			return r
		}
	}
	return nil
}

// introduce says in a request who asks, where that is not known yet, and tells of counts.
func (m *Machine) introduce(r *Request) {
	switch {
	case !m.node:
		n := m.Node
		n.Metadata = m.counts.metadata(n.Metadata)
		m.node, r.Node = true, &n
	case m.untold():
		r.Node = &Node{ID: m.Node.ID, Metadata: m.counts.metadata(nil)}
	default:
		return
	}
	if m.counts != nil {
		m.told = *m.counts
	}
}

// nextState makes a request of the state-of-the-world protocol, which has everything that is wanted, whatever it is for.
func (m *Machine) nextState(now time.Time, s *state) *Request {
	if !s.asked && len(s.wanted) == 0 {
		return nil
	}
	pending := len(s.acks) > 0
	held := pending && s.acks[0].refusal != nil && s.hold.After(now)
	changed := s.dirty && (!s.asked || !maps.Equal(s.wanted, s.sent)) && !(s.legacy && len(s.wanted) == 0)
	s.dirty = s.dirty && changed
	if !changed && (!pending || held) {
		return nil
	}
	r := &Request{Type: s.typ, Version: s.version, Nonce: s.nonce}
	if pending {
		r.Error = s.acks[0].refusal
		s.acks = nil
	}
	if len(s.wanted) == 1 && s.wantsAll() && !m.ExplicitWildcard && (!s.asked || s.legacy) {
		s.legacy = true // the list stays empty: Envoy's way, and once it was not empty on a stream it has another meaning
	} else if !s.legacy || len(s.wanted) > 0 {
		if s.list == nil {
			s.list = slices.Sorted(maps.Keys(s.wanted))
		}
		r.Names = s.list
		s.legacy = false
	}
	s.asked, s.dirty = true, false
	if !changed {
		return r
	}
	s.sent = s.wanted
	if len(s.ever) > 2*len(s.wanted)+maxAttic {
		clear(s.ever)
		m.clearAttic(s)
	}
	maps.Copy(s.ever, s.wanted)
	return r
}

// nextDelta makes a request of the delta protocol: one acknowledgement or refusal, and what changed in what is wanted.
func (m *Machine) nextDelta(now time.Time, s *state) *Request {
	if !s.asked && len(s.wanted) == 0 {
		return nil
	}
	r := &Request{Type: s.typ}
	worth := !s.asked
	budget := m.Limits.Request
	if !s.asked {
		budget = m.initial(s, r, budget)
	}
	if s.dirty {
		worth = m.difference(s, r, budget) || worth
	}
	if len(s.acks) > 0 && (s.acks[0].refusal == nil || !s.hold.After(now)) {
		r.Nonce, r.Error = s.acks[0].nonce, s.acks[0].refusal
		s.acks = s.acks[1:]
		worth = true
	}
	if !worth {
		return nil
	}
	s.asked = true
	return r
}

// initial tells the server what is held. If that is too much for a request it is told nothing, and asked for everything.
func (m *Machine) initial(s *state, r *Request, budget int) int {
	size := 0
	for n, e := range s.held {
		size += len(n) + len(e.Version) + 8
	}
	if size > budget/2 {
		s.scratch = true
		return budget
	}
	if len(s.held) > 0 {
		r.Initial = make(map[string]string, len(s.held))
		for n, e := range s.held {
			r.Initial[n] = e.Version
		}
	}
	return budget - size
}

// difference fills in what the server is to be told about the subscription, as far as it fits, and reports whether it
// is anything.
func (m *Machine) difference(s *state, r *Request, budget int) bool {
	if !s.asked && len(s.wanted) == 1 && s.wantsAll() && !m.ExplicitWildcard {
		s.sent[resource.Wildcard] = struct{}{}
		s.legacy, s.dirty = true, false
		return true
	}
	more := false
	fits := func(n string) bool {
		budget -= len(n) + 8
		more = more || budget < 0
		return budget >= 0
	}
	var gone, come []string
	for n := range s.sent {
		if _, leave := s.leave[n]; leave || !s.wants(n) {
			gone = append(gone, n)
		}
	}
	for n := range s.wanted {
		_, told := s.sent[n]
		_, renew := s.renew[n]
		if _, leave := s.leave[n]; leave {
			more = true // with the request after this one
		} else if !told || renew {
			come = append(come, n)
		}
	}
	slices.Sort(gone)
	slices.Sort(come)
	for _, n := range gone {
		if fits(n) {
			r.Unsubscribe = append(r.Unsubscribe, n)
			delete(s.sent, n)
			delete(s.leave, n)
		}
	}
	for _, n := range come {
		if fits(n) {
			r.Subscribe = append(r.Subscribe, n)
			s.sent[n] = struct{}{}
			delete(s.renew, n)
		}
	}
	if s.legacy && len(r.Subscribe)+len(r.Unsubscribe) > 0 {
		// A server leaves the wildcard that nobody spelt when names are subscribed to, or does not; said aloud it is clear.
		if !slices.Contains(r.Subscribe, resource.Wildcard) {
			r.Subscribe = append([]string{resource.Wildcard}, r.Subscribe...)
		}
		s.legacy = false
	}
	if s.dirty = more; !more {
		clear(s.renew)
	}
	return len(r.Subscribe)+len(r.Unsubscribe) > 0
}
