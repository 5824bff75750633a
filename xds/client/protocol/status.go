package protocol

import (
	"maps"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/xds/resource"
)

type counts struct {
	accepted, refused         uint64
	lastAccepted, lastRefused time.Time
	refusedVersion, lastError string
}

// Rejected is why a resource is not taken, or not to be had.
type Rejected struct {
	Version    string
	Reason     string
	At         time.Time
	FromServer bool // the control plane says that it cannot give it
}

// TypeStatus is the state of one type.
type TypeStatus struct {
	Type           string
	Wildcard       bool   // everything is subscribed to
	Names          int    // that are subscribed to beside that
	Waiting        int    // of the subscription, how much is unanswered
	Resources      int    // accepted, and wanted
	Version        string // state of the world: accepted last
	Nonce          string // received last on this stream
	Accepted       uint64 // responses
	Refused        uint64 // responses
	LastAccepted   time.Time
	LastRefused    time.Time
	RefusedVersion string // of the response that was refused last
	LastError      string // why that was, or a resource that was kept from an earlier run
	InSync         bool   // nothing was refused after the last acceptance
}

// Status is the state of the client's side.
type Status struct {
	Kind         Kind
	Open         bool
	ControlPlane string // what the server calls itself
	Ignored      uint64 // responses of types that nobody asked for
	Repeated     uint64 // responses with a nonce that was there already
	Bytes        int    // of resources
	Types        []TypeStatus
}

// Status says how things are, by the rank of types.
func (m *Machine) Status() Status {
	st := Status{Kind: m.Kind, Open: m.open, ControlPlane: m.server, Ignored: m.ignored, Repeated: m.repeated, Bytes: m.bytes}
	for _, s := range m.order {
		t := TypeStatus{
			Type: s.typ, Wildcard: s.wantsAll(), Names: len(s.wanted), Waiting: len(s.waits), Resources: len(s.held) - s.attic,
			Version: s.version, Nonce: s.nonce, Accepted: s.stats.accepted, Refused: s.stats.refused, LastAccepted: s.stats.lastAccepted,
			LastRefused: s.stats.lastRefused, RefusedVersion: s.stats.refusedVersion, LastError: s.stats.lastError, InSync: s.streak == 0,
		}
		if t.Wildcard {
			t.Names--
		}
		st.Types = append(st.Types, t)
	}
	return st
}

// Condition is what is known of one resource (envoy.admin.v3.ClientResourceStatus).
type Condition uint8

const (
	Requested    Condition = 1 + iota // and not answered
	Late                              // the same, and the time for it is over
	DoesNotExist                      // says the control plane
	Accepted
	RefusedLast   // what came last was refused; Version and Body are of what was accepted before, if anything
	ReceivedError // the control plane cannot give it
)

// ResourceStatus is the state of one resource.
type ResourceStatus struct {
	resource.Resource // without a Body if nothing is accepted
	Condition         Condition
	Since             time.Time // that the resource is as it is
	Rejected          Rejected  // with RefusedLast and ReceivedError
}

// Resources lists what is known of a type, by name. Bodies of secrets are among it.
func (m *Machine) Resources(typ string) []ResourceStatus {
	s := m.types[typ]
	if s == nil {
		return nil
	}
	all := map[string]ResourceStatus{}
	for n := range s.wanted {
		if n != resource.Wildcard {
			st := ResourceStatus{Resource: resource.Resource{Type: typ, Name: n}, Condition: DoesNotExist}
			if w, ok := s.waits[n]; ok && w.late {
				st.Condition = Late
			} else if ok {
				st.Condition = Requested
			}
			all[n] = st
		}
	}
	for _, e := range s.held {
		if !e.attic {
			for _, a := range e.Aliases {
				delete(all, a)
			}
		}
	}
	for n, e := range s.held {
		if !e.attic {
			all[n] = ResourceStatus{Resource: e.Resource, Condition: Accepted, Since: e.since}
		}
	}
	for n, r := range s.rejected {
		st, ok := all[n]
		if !ok {
			st.Resource = resource.Resource{Type: typ, Name: n}
		}
		if st.Condition = RefusedLast; r.FromServer {
			st.Condition = ReceivedError
		}
		st.Rejected = r
		all[n] = st
	}
	list := make([]ResourceStatus, 0, len(all))
	for _, n := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[n])
	}
	return list
}

// Kept is what is worth keeping of a type for another run.
type Kept struct {
	Type      string
	Version   string // state of the world
	Resources []resource.Resource
}

// Keep gives what is accepted, by rank and name. What has a time to live is left out: it is meant to go when the control plane is not
// there.
func (m *Machine) Keep() []Kept {
	var all []Kept
	for _, s := range m.order {
		k := Kept{Type: s.typ, Version: s.version}
		for _, n := range slices.Sorted(maps.Keys(s.held)) {
			if e := s.held[n]; !e.attic && e.TTL == 0 {
				k.Resources = append(k.Resources, e.Resource)
			}
		}
		if len(k.Resources) > 0 {
			all = append(all, k)
		}
	}
	return all
}

// Restore puts down what was kept. Due gives it to be judged, what is subscribed to by the time its turn comes: what refers to others
// before those, so that whoever takes a cluster can subscribe to its endpoints before those are looked at, and to its policy. It does
// nothing once a stream was open.
func (m *Machine) Restore(all []Kept) {
	if m.stream > 0 {
		return
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Kept) int { return turn(a.Type) - turn(b.Type) })
	for _, k := range all {
		m.kept = append(m.kept, &change{
			update: Update{Type: k.Type, Version: k.Version, Cause: Restored}, put: map[string]*entry{}, answered: map[string]struct{}{},
			restore: k.Resources, version: k.Version,
		})
	}
}

// turn is when a type is restored: in the order of rank, but policies and their reference values last, to which others refer.
func turn(typ string) int {
	if r := resource.Rank(typ); r >= resource.Rank(resource.Cluster) {
		return r
	}
	return 100 - resource.Rank(typ)
}

// restored makes the update of what was kept.
func (m *Machine) restored(now time.Time, c *change) {
	s := c.state
	if s.wantsAll() {
		c.answered[resource.Wildcard] = struct{}{}
	}
	for _, r := range c.restore {
		if r.Type != s.typ || r.Validate() != nil || !s.takes(r.Name, r.Aliases) || s.held[r.Name] != nil {
			continue
		}
		e := &entry{Resource: r, since: now}
		if c.put[r.Name] = e; m.fits(c) != nil {
			delete(c.put, r.Name)
			c.version = "" // so that the control plane sends everything
			continue
		}
		c.answered[r.Name] = struct{}{}
		for _, a := range r.Aliases {
			c.answered[a] = struct{}{}
		}
		c.update.Changed = append(c.update.Changed, r)
	}
	c.restore = nil
}
