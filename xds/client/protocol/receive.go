package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/resource"
)

// change is what an update would do, while it is being judged.
type change struct {
	state    *state
	update   Update
	put      map[string]*entry
	gone     []string            // held names that go
	cleared  []string            // names that were refused, and are removed
	idle     int                 // of put, how many come into the attic
	answered map[string]struct{} // of waits
	restore  []resource.Resource // Restored: what the update is made of when its turn comes
	version  string
	nonce    string
	stream   uint64
	asks     int // of the state, when this was made
}

// Receive takes in a response. The Update that it gives is to be judged, with Judged, before anything else is received; nil
// means that nothing changes for anybody. An error means that the server does not speak the protocol: the stream is
// of no use any more.
func (m *Machine) Receive(now time.Time, r *Response) (*Update, error) {
	if !m.open || m.pending != nil {
		return nil, errors.New("a response out of turn")
	}
	if err := resource.ValidType(r.Type); err != nil {
		return nil, protocolError(r.Type, "a response without a valid type: "+cut(err.Error(), maxMessage))
	}
	if r.Nonce == "" || len(r.Nonce) > maxNonce {
		// Without a nonce an acknowledgement looks like a first request, and is answered with the same response for ever.
		return nil, protocolError(r.Type, "a response without a nonce of at most 1024 bytes")
	}
	m.server = cut(r.ControlPlane, maxMessage)
	s := m.types[r.Type]
	if s == nil || !s.asked {
		m.ignored++ // nobody asked; remembering even its type would let a server fill the memory
		return nil, nil
	}
	if slices.Contains(s.nonces, r.Nonce) {
		m.repeated++
		return nil, nil
	}
	if len(s.nonces) == maxNonces {
		s.nonces = slices.Delete(s.nonces, 0, 1)
	}
	s.nonces = append(s.nonces, r.Nonce)
	s.nonce = r.Nonce
	scratch := s.scratch
	s.scratch = false

	c := &change{
		state: s, update: Update{Type: r.Type, Version: r.Version}, put: map[string]*entry{}, answered: map[string]struct{}{},
		version: r.Version, nonce: r.Nonce, stream: m.stream,
	}
	err := m.read(now, c, r, scratch)
	if err == nil {
		err = m.fits(c)
	}
	if err != nil {
		m.refuse(now, c, err, nil)
		return nil, nil
	}
	return m.offer(now, c), nil
}

func protocolError(typ, what string) error {
	return &attest.Error{Code: attest.CodeXDSResponse, Subject: cut(typ, resource.MaxType), Got: what}
}

func limitError(typ, got, want string) error {
	return &attest.Error{Code: attest.CodeXDSLimit, Subject: typ, Got: got, Want: want}
}

// offer gives the update of c to be judged if it says anything, and else carries c out.
func (m *Machine) offer(now time.Time, c *change) *Update {
	s, waiting := c.state, len(c.state.waits)
	c.asks = s.asks
	for n := range c.answered {
		if _, ok := s.waits[n]; ok {
			waiting--
		}
	}
	c.update.Complete = waiting == 0
	m.pending = c
	if len(c.update.Changed)+len(c.update.Removed)+len(c.update.Failed) == 0 && (waiting > 0 || len(s.waits) == 0) {
		m.Judged(now, nil)
		return nil
	}
	slices.SortFunc(c.update.Changed, func(a, b resource.Resource) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(c.update.Removed)
	return &c.update
}

// read checks a response and finds out what it would change.
func (m *Machine) read(now time.Time, c *change, r *Response, scratch bool) error {
	s := c.state
	if r.Malformed != "" {
		return protocolError(s.typ, cut(r.Malformed, maxMessage))
	}
	if len(r.Items) > m.Limits.Resources || len(r.Removed) > m.Limits.Resources || len(r.Errors) > m.Limits.Resources {
		return limitError(s.typ, fmt.Sprintf("%d resources, %d removed, %d errors", len(r.Items), len(r.Removed), len(r.Errors)),
			fmt.Sprintf("at most %d", m.Limits.Resources))
	}
	if len(r.Version) > resource.MaxVersion {
		return limitError(s.typ, fmt.Sprintf("a version of %d bytes", len(r.Version)), fmt.Sprintf("at most %d", resource.MaxVersion))
	}
	seen := make(map[string]struct{}, len(r.Items))
	renewal := false
	for i := range r.Items {
		name, err := m.item(now, c, r, &r.Items[i])
		if err != nil {
			return err
		}
		if _, twice := seen[name]; twice {
			return protocolError(s.typ, fmt.Sprintf("the resource %q twice in one response", name))
		}
		seen[name] = struct{}{}
		renewal = renewal || !r.Items[i].HasBody
	}
	for _, n := range r.Removed {
		if _, both := seen[n]; both {
			return protocolError(s.typ, fmt.Sprintf("the resource %q both sent and removed", cut(n, resource.MaxName)))
		}
		m.remove(c, n)
	}
	for i := range r.Errors {
		e := &r.Errors[i]
		if err := resource.ValidName(e.Name); err != nil {
			return protocolError(s.typ, err.Error())
		}
		switch {
		case e.Name == resource.Wildcard: // nothing can be done about everything
		case e.Code == codeNotFound:
			if _, both := seen[e.Name]; both {
				return protocolError(s.typ, fmt.Sprintf("the resource %q both sent and not found", e.Name))
			}
			m.remove(c, e.Name)
		case s.takes(e.Name, nil):
			c.update.Failed = append(c.update.Failed, ItemError{e.Name, e.Code, cut(e.Message, maxMessage)})
			c.answered[e.Name] = struct{}{}
		}
	}
	if s.wantsAll() && (!renewal || len(c.put) > 0) {
		c.answered[resource.Wildcard] = struct{}{}
	}
	// A renewal of times to live lists those resources only. Whatever else is there has not gone.
	if m.Kind == StateOfTheWorld && resource.Whole(s.typ) && !renewal || scratch && s.wantsAll() {
		for n := range s.held {
			if _, there := seen[n]; !there {
				m.remove(c, n)
			}
		}
		for n := range s.waits {
			if _, there := seen[n]; !there && n != resource.Wildcard && m.Kind == StateOfTheWorld {
				m.remove(c, n)
			}
		}
	}
	return nil
}

// remove notes that a name is gone, or does not exist.
func (m *Machine) remove(c *change, name string) {
	if _, twice := c.answered[name]; twice || name == resource.Wildcard {
		return
	}
	e := c.state.held[name]
	_, waiting := c.state.waits[name]
	if e == nil && !waiting {
		if _, ok := c.state.rejected[name]; ok {
			c.cleared = append(c.cleared, name)
		}
		return
	}
	c.answered[name] = struct{}{}
	if e != nil {
		c.gone = append(c.gone, name)
	}
	if e == nil || !e.attic {
		c.update.Removed = append(c.update.Removed, name)
	}
}

// item checks one resource, and notes what it changes. It gives the name.
func (m *Machine) item(now time.Time, c *change, r *Response, i *Item) (string, error) {
	s := c.state
	name := i.Name
	if i.HasBody {
		if i.Type != s.typ {
			return "", protocolError(s.typ, fmt.Sprintf("a resource of the type %q", cut(i.Type, resource.MaxType)))
		}
		if len(i.Body) > resource.MaxBody {
			return "", limitError(s.typ, fmt.Sprintf("a resource of %d bytes", len(i.Body)), fmt.Sprintf("at most %d", resource.MaxBody))
		}
		if own := name == "" && m.Kind == StateOfTheWorld; own || resource.Named(s.typ) {
			n, err := resource.NameOf(i.Body)
			if err != nil {
				return "", protocolError(s.typ, err.Error())
			}
			// Or one reader would go by the name outside, and another one by that inside.
			if !own && n != name {
				return "", protocolError(s.typ, fmt.Sprintf("the resource %q sent as %q", n, cut(name, resource.MaxName)))
			}
			name = n
		}
	}
	e := &entry{Resource: resource.Resource{Type: s.typ, Name: name, Version: i.Version, Aliases: i.Aliases, Body: i.Body, TTL: i.TTL}, since: now}
	if m.Kind == StateOfTheWorld && e.Version == "" {
		e.Version = r.Version
	}
	if err := e.Validate(); err != nil {
		return "", protocolError(s.typ, err.Error())
	}
	if e.TTL > 0 {
		e.expires = now.Add(e.TTL)
	}
	had := s.held[name]
	if !i.HasBody {
		return name, m.renewal(c, i, e, had)
	}
	taken := s.takes(name, i.Aliases)
	if !taken && m.Kind == Delta {
		m.remove(c, name) // it may go by other names from now on
		return name, nil
	}
	if !taken && had == nil {
		if _, told := s.ever[name]; !told || s.attic+c.idle >= maxAttic {
			return name, nil // not asked for, or not any more
		}
		c.idle++
	}
	e.attic = !taken
	c.put[name] = e
	c.answered[name] = struct{}{}
	for _, a := range i.Aliases {
		c.answered[a] = struct{}{}
	}
	if had != nil && bytes.Equal(had.Body, e.Body) {
		e.Body = had.Body // others hold it already
		if !had.attic {
			e.since = had.since
			return name, nil
		}
	}
	if taken {
		c.update.Changed = append(c.update.Changed, e.Resource)
	}
	return name, nil
}

// renewal notes that the time to live of a resource starts again, or is lifted.
func (m *Machine) renewal(c *change, i *Item, e, had *entry) error {
	if had == nil {
		if m.Kind == Delta && c.state.takes(e.Name, i.Aliases) {
			for _, n := range append([]string{e.Name}, i.Aliases...) {
				m.remove(c, n) // this is how a name is answered that leads nowhere
			}
		}
		return nil
	}
	if i.Version != had.Version && (m.Kind == Delta || i.Version != "" || c.version != had.Version && c.version != c.state.version) {
		return protocolError(c.state.typ, fmt.Sprintf("a longer time to live for version %q of the resource %q, which has version %q",
			cut(e.Version, resource.MaxVersion), e.Name, had.Version))
	}
	kept := *had
	kept.TTL, kept.expires = e.TTL, e.expires
	c.put[e.Name] = &kept
	return nil
}

// fits checks that what c puts can be held.
func (m *Machine) fits(c *change) error {
	count, size := len(c.state.held), m.bytes
	for _, n := range c.gone {
		count--
		size -= c.state.held[n].size()
	}
	for n, e := range c.put {
		size += e.size()
		if had := c.state.held[n]; had != nil {
			size -= had.size()
		} else {
			count++
		}
	}
	if count > m.Limits.Resources {
		return limitError(c.state.typ, fmt.Sprintf("%d resources", count), fmt.Sprintf("at most %d", m.Limits.Resources))
	}
	if size > m.Limits.Bytes && size > m.bytes {
		return limitError(c.state.typ, fmt.Sprintf("%d bytes of resources", size), fmt.Sprintf("at most %d", m.Limits.Bytes))
	}
	return nil
}

// Judged carries out the update that was given last, or refuses it if verdict is an error.
func (m *Machine) Judged(now time.Time, verdict error) {
	c := m.pending
	m.pending = nil
	if c == nil {
		return
	}
	s := c.state
	if c.update.Cause == Expired {
		verdict = nil
	}
	var r *Rejection
	if verdict != nil {
		errors.As(verdict, &r)
		m.refuse(now, c, verdict, r)
		whole := m.Kind == StateOfTheWorld && resource.Whole(s.typ) && c.update.Cause == Answered
		if r == nil || !r.OthersTaken || len(r.Resources) == 0 || whole {
			for i := range c.update.Changed { // none of which is held now, whoever is to blame
				if n := c.update.Changed[i].Name; !r.has(n) {
					s.reject(n, Rejected{Version: c.update.Changed[i].Version, Reason: cut(reason(verdict, r), maxMessage), At: now})
				}
			}
			return
		}
		for n := range r.Resources {
			delete(c.put, n)
			delete(c.answered, n)
		}
		c.gone = slices.DeleteFunc(c.gone, r.has)
	} else {
		m.accept(now, c)
	}
	for _, n := range append(c.cleared, c.update.Removed...) {
		if !r.has(n) {
			delete(s.rejected, n)
		}
	}
	for _, n := range c.gone {
		m.drop(s, n)
	}
	renew := m.Kind == Delta && s.typ == resource.Cluster && c.update.Cause == Answered
	var changed []string
	for n, e := range c.put {
		had := s.held[n]
		if renew && had != nil && !bytes.Equal(had.Body, e.Body) {
			changed = append(changed, n)
		}
		m.keep(s, e)
		if e.attic && s.takes(n, e.Aliases) {
			s.again[n] = struct{}{} // it was subscribed to while the rest was judged
		}
		delete(s.rejected, n)
	}
	for n := range c.answered {
		delete(s.waits, n)
	}
	if s.asks != c.asks {
		m.forget(s) // whoever judged has subscribed to less
	}
	m.Refresh(resource.Endpoints, changed)
}

func (m *Machine) accept(now time.Time, c *change) {
	s := c.state
	if c.update.Cause == Answered || c.update.Cause == Restored {
		s.version = c.version
	}
	if c.update.Cause != Answered {
		return
	}
	s.streak, s.hold = 0, time.Time{}
	s.differ = s.differ || s.adrift && c.stream == m.stream
	s.stats.accepted++
	s.stats.lastAccepted = now
	for i := range c.update.Failed {
		e := &c.update.Failed[i]
		s.reject(e.Name, Rejected{Reason: e.Message, At: now, FromServer: true})
	}
	if m.Kind == StateOfTheWorld {
		// Whatever was refused came with a version that is history.
		maps.DeleteFunc(s.rejected, func(_ string, r Rejected) bool { return !r.FromServer })
	}
	m.answer(c, nil)
}

// refuse leaves everything as it is and says why.
func (m *Machine) refuse(now time.Time, c *change, err error, r *Rejection) {
	s := c.state
	if r != nil {
		for n, why := range r.Resources {
			s.reject(n, Rejected{Version: cut(c.version, resource.MaxVersion), Reason: cut(why, maxMessage), At: now})
			if c.update.Cause == Again || c.update.Cause == Restored {
				m.drop(s, n)
			}
		}
	}
	if c.update.Cause != Answered {
		if c.update.Cause == Again && (r == nil || !r.OthersTaken) {
			for n := range c.put {
				m.drop(s, n)
			}
		}
		s.stats.lastError = cut(reason(err, r), maxReason)
		return
	}
	if c.stream == m.stream && (r == nil || !r.OthersTaken) && (m.Kind == Delta || !resource.Whole(s.typ)) {
		s.adrift = true // a refusal of one resource alone is between the server and that resource
	}
	s.streak++
	if s.streak > 1 && !s.hold.After(now) {
		d := min(holdFirst<<min(s.streak-2, 20), holdMost)
		s.hold = now.Add(d/2 + time.Duration(m.Random()*float64(d/2)))
	}
	s.stats.refused++
	s.stats.lastRefused, s.stats.refusedVersion = now, cut(c.version, resource.MaxVersion)
	s.stats.lastError = cut(reason(err, r), maxReason)
	m.answer(c, &Refusal{codeInvalidArgument, s.stats.lastError})
}

// answer puts down what is to be said of a response. In the state-of-the-world protocol the last response is meant alone.
func (m *Machine) answer(c *change, refusal *Refusal) {
	if c.stream != m.stream || !m.open {
		return // the nonce means nothing on another stream
	}
	if m.Kind == StateOfTheWorld {
		c.state.acks = c.state.acks[:0]
	}
	c.state.acks = append(c.state.acks, ack{c.nonce, refusal})
}

func (s *state) reject(name string, r Rejected) {
	if _, ok := s.rejected[name]; ok || len(s.rejected) < maxRejected {
		s.rejected[name] = r
	}
}

// reason puts a verdict into words.
func reason(err error, r *Rejection) string {
	if r == nil {
		return err.Error()
	}
	return r.Error()
}

func (r *Rejection) has(name string) bool {
	if r == nil {
		return false
	}
	_, ok := r.Resources[name]
	return ok
}

// Error lists the resources and why.
func (r *Rejection) Error() string {
	var b strings.Builder
	if b.WriteString(r.Reason); r.Reason == "" && len(r.Resources) == 0 {
		b.WriteString("refused")
	}
	for _, n := range slices.Sorted(maps.Keys(r.Resources)) {
		if b.Len() > maxReason {
			break
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%q: %s", n, r.Resources[n])
	}
	return b.String()
}

// Due gives the next change that comes of no response, to be judged like one: what was kept from an earlier run, names that are
// wanted again and still there, times to live that are over. It is to be called until it gives nil, before anything is received.
func (m *Machine) Due(now time.Time) *Update {
	if m.pending != nil {
		return nil
	}
	for len(m.kept) > 0 {
		c := m.kept[0]
		m.kept = m.kept[1:]
		if c.state = m.types[c.update.Type]; c.state == nil {
			continue // nobody wants it any more
		}
		m.restored(now, c)
		if u := m.offer(now, c); u != nil {
			return u
		}
	}
	for _, s := range m.order {
		if len(s.again) == 0 {
			continue
		}
		c := &change{state: s, update: Update{Type: s.typ, Version: s.version, Cause: Again}, put: map[string]*entry{}, answered: map[string]struct{}{}}
		for n := range s.again {
			if e := s.held[n]; e != nil && e.attic && s.takes(n, e.Aliases) {
				kept := *e
				kept.attic = false
				c.put[n] = &kept
				c.answered[n] = struct{}{}
				c.update.Changed = append(c.update.Changed, kept.Resource)
			}
		}
		clear(s.again)
		if u := m.offer(now, c); u != nil {
			return u
		}
	}
	for _, s := range m.order {
		if s.expires.IsZero() || s.expires.After(now) {
			continue
		}
		s.expires = time.Time{}
		c := &change{state: s, update: Update{Type: s.typ, Version: s.version, Cause: Expired}, stream: m.stream}
		for n, e := range s.held {
			switch {
			case e.expires.IsZero():
			case e.expires.After(now):
				s.expires = earlier(s.expires, e.expires)
			default:
				c.gone = append(c.gone, n)
				if !e.attic {
					c.update.Removed = append(c.update.Removed, n)
				}
				if _, told := s.sent[n]; told && m.Kind == Delta {
					// The server thinks that it is still there. If it is alive after all it can send it again.
					s.renew[n] = struct{}{}
					s.dirty = true
				}
			}
		}
		if u := m.offer(now, c); u != nil {
			return u
		}
	}
	return nil
}
