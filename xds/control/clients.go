package control

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/xds/resource"
)

// NotSent is the Standing of a resource that a proxy was not told of, or that there is none of.
const NotSent Standing = "NOT_SENT"

// Client is a stream, with each resource that is meant for it.
type Client struct {
	ID, Agent, Group string
	Protocol         string // delta or sotw
	Held             []Held // by the order in which changes travel, and by name
}

// Held is a resource that a client has asked for, as it is served, and how the client stands to it.
type Held struct {
	resource.Resource           // without a Body where there is none, or none was asked for
	Standing          Standing  // Synced, NotSent, Stale where it was sent and not answered, or Rejected
	Reason            string    // why it was refused
	Refused           string    // the version that was
	RefusedAt         time.Time // when
}

// Clients answers the streams of those who call themselves as wanted says, in order. Bodies are shared: nobody may change them.
func (c *Control) Clients(wanted func(id string) bool, bodies bool) []Client {
	c.mu.Lock()
	sessions := slices.Collect(maps.Keys(c.sessions))
	c.mu.Unlock()
	now := c.state.Load()
	type found struct {
		Client
		address string
	}
	var all []found
	for _, ss := range sessions {
		if one, ok := ss.client(now, wanted, bodies); ok {
			all = append(all, found{one, ss.s.Peer().Address()})
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.ID, b.ID), cmp.Compare(a.address, b.address))
	})
	out := make([]Client, len(all))
	for i := range all {
		out[i] = all[i].Client
	}
	return out
}

func (ss *session) client(now *state, wanted func(string) bool, bodies bool) (Client, bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.group == nil || !wanted(ss.node.ID) {
		return Client{}, false
	}
	one := Client{ID: ss.node.ID, Agent: ss.node.Agent, Group: ss.group.Name, Protocol: "sotw"}
	if ss.delta {
		one.Protocol = "delta"
	}
	g := now.group(ss.group.Name)
	if g == nil { // it is about to be cut, or to come to another
		g = ss.group
	}
	for _, sub := range ss.order {
		one.Held = append(one.Held, sub.held(g.set(sub.typ), bodies)...)
	}
	return one, true
}

// held answers what is in s for a subscription.
func (sub *subscription) held(s *set, bodies bool) (all []Held) {
	names := slices.Collect(maps.Keys(sub.names))
	if sub.wildcard {
		names = append(names, s.names...)
	}
	slices.Sort(names)
	waits, sent := map[string]bool{}, map[string]bool{}
	for _, e := range sub.todo {
		waits[e.name] = true
	}
	for _, n := range sub.fresh {
		waits[n] = true
	}
	if sub.nonce != "" {
		for _, n := range sub.sent {
			sent[n] = true
		}
	}
	for _, n := range slices.Compact(names) {
		h := Held{Resource: resource.Resource{Type: sub.typ, Name: n}, Standing: NotSent}
		if e := s.entries[n]; e != nil {
			h.Version = format(e.version)
			if bodies {
				h.Body = e.body()
			}
			told := sub.at != nil && sub.at.entries[n] != nil && sub.at.entries[n].version == e.version
			switch {
			case !told || waits[n] || sub.due:
			case sent[n]:
				h.Standing = Stale
			case sub.rejected[n]:
				h.Standing, h.Reason, h.Refused, h.RefusedAt = Rejected, sub.reason, format(sub.nacked), sub.nackedAt
			default:
				h.Standing = Synced
			}
		}
		all = append(all, h)
	}
	return all
}

// body is the message in the encoded google.protobuf.Any, which newEntry has written.
func (e *entry) body() []byte {
	_, _, n := protowire.ConsumeField(e.any) // the type
	if n < 0 {
		return nil
	}
	_, _, tag := protowire.ConsumeTag(e.any[n:])
	if tag < 0 {
		return nil
	}
	body, _ := protowire.ConsumeBytes(e.any[n+tag:])
	return body
}
