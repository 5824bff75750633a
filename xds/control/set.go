package control

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// key is one resource of one scope: the name of a group, or "" for what every group gets.
type key struct{ Scope, Type, Name string }

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(resource.Rank(k.Type), resource.Rank(o.Type)), cmp.Compare(k.Type, o.Type), cmp.Compare(k.Scope, o.Scope), cmp.Compare(k.Name, o.Name))
}

// item is a resource as the directory has it, without a version.
type item struct {
	digest [32]byte
	body   func(version uint64) ([]byte, error) // a policy has its version in it
}

// entry is a resource as it is served: encoded once, and shared by all streams.
type entry struct {
	name        string
	version     uint64
	any         []byte // the encoded google.protobuf.Any
	delta, sotw []byte // what stands before it in the two responses
}

// Fields of envoy.service.discovery.v3, DeltaDiscoveryResponse, DiscoveryResponse and Resource, and of google.protobuf.Any.
const (
	responseVersion   = 1
	responseResources = 2
	responseType      = 4
	responseNonce     = 5
	responseRemoved   = 6
	responseFromSotw  = 6 // ControlPlane, whose field 1 is an identifier
	responseFromDelta = 7
	resourceVersion   = 1
	resourceBody      = 2
	resourceName      = 3
	anyType           = 1
	anyValue          = 2
)

func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// itself is what a control plane is called in each response, by which proxies know that it takes counts of connections on an open stream.
const itself = "jurat"

func appendItself(b []byte, field protowire.Number) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), appendText(nil, 1, itself))
}

func appendLength(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(n))
}

func newEntry(typ, name string, version uint64, body []byte) *entry {
	e := &entry{name: name, version: version}
	e.any = protowire.AppendBytes(protowire.AppendTag(appendText(nil, anyType, typ), anyValue, protowire.BytesType), body)
	e.sotw = appendLength(nil, responseResources, len(e.any))
	head := appendText(appendText(nil, resourceName, name), resourceVersion, format(version))
	head = appendLength(head, resourceBody, len(e.any))
	e.delta = append(appendLength(nil, responseResources, len(head)+len(e.any)), head...)
	return e
}

func (e *entry) size() int { return len(e.any) + len(e.delta) }

func format(version uint64) string { return strconv.FormatUint(version, 10) }

// set is all resources of a type that a group gets. It does not change.
type set struct {
	group   string
	typ     string
	version uint64 // grows with every change, with removals too
	content uint64 // the greatest version of what is there
	entries map[string]*entry
	names   []string // in order

	mu   sync.Mutex
	memo []memo
}

// memo is what changed since another set: all who come from there are told the same.
type memo struct {
	group   string
	version uint64
	changed []*entry
	removed []string
}

const memos = 4

func (s *set) has(name string) bool { return s.entries[name] != nil }

// since answers what is in s and was not, or not so, in old, and what is in it no more. nil is an empty set.
func (s *set) since(old *set) (changed []*entry, removed []string) {
	if old == nil {
		old = &set{typ: s.typ}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.memo {
		// By what it is called, and not by a pointer: that would keep every set there ever was.
		if m.group == old.group && m.version == old.version && old.typ == s.typ {
			return m.changed, m.removed
		}
	}
	for _, n := range s.names {
		if e := s.entries[n]; old.entries[n] == nil || old.entries[n].version != e.version {
			changed = append(changed, e)
		}
	}
	for _, n := range old.names {
		if s.entries[n] == nil {
			removed = append(removed, n)
		}
	}
	changed, removed = slices.Clip(changed), slices.Clip(removed) // they are shared: whoever appends to them gets a copy
	if old.typ == s.typ {
		if len(s.memo) == memos {
			s.memo = s.memo[1:]
		}
		s.memo = append(s.memo, memo{old.group, old.version, changed, removed})
	}
	return changed, removed
}

// group is a group with what it gets.
type group struct {
	groupConfig
	require *policy.Policy // nil for a local one
	sets    map[string]*set
}

// set answers what the group gets of a type, which may be nothing.
func (g *group) set(typ string) *set {
	if s := g.sets[typ]; s != nil {
		return s
	}
	return &set{group: g.Name, typ: typ}
}

// state is everything that is served. It does not change.
type state struct {
	serial   uint64   // the greatest number given so far
	digest   string   // of the files
	groups   []*group // in order
	policies map[string]*policy.Policy
	versions map[key]version
	sets     map[key]uint64 // the versions of sets, without a name
	replaced chan struct{}  // closed when there is another
}

func (s *state) group(name string) *group {
	for _, g := range s.groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// version is that of a resource, with what it is of.
type version struct {
	Number uint64
	Digest [32]byte
}

// build makes of what a directory says what is served, and answers what changed. from is the state before, or one that has no more
// than the versions of an earlier run. clock is what a number is at least.
func build(d *directory, from *state, clock uint64) (*state, []Difference, error) {
	next := &state{
		serial: from.serial, digest: d.digest, policies: d.policies, versions: make(map[key]version, len(d.items)), sets: map[key]uint64{},
		replaced: make(chan struct{}),
	}
	number := func() uint64 {
		next.serial = max(next.serial+1, clock)
		return next.serial
	}
	// In order, so that the same change gets the same numbers on every try.
	var changes []Difference
	entries := make(map[key]*entry, len(d.items))
	for _, k := range slices.SortedFunc(maps.Keys(d.items), key.compare) {
		it := d.items[k]
		v, ok := from.versions[k]
		if !ok || v.Digest != it.digest {
			op := Changed
			if !ok {
				op = Added
			}
			v = version{number(), it.digest}
			changes = append(changes, Difference{Op: op, Group: k.Scope, Type: k.Type, Name: k.Name, Version: v.Number})
		}
		next.versions[k] = v
		body, err := it.body(v.Number)
		if err != nil {
			return nil, nil, err
		}
		entries[k] = newEntry(k.Type, k.Name, v.Number, body)
	}
	gone := map[key]bool{} // scope and type of what was removed
	for _, k := range slices.SortedFunc(maps.Keys(from.versions), key.compare) {
		if _, ok := next.versions[k]; !ok {
			gone[key{k.Scope, k.Type, ""}] = true
			changes = append(changes, Difference{Op: Removed, Group: k.Scope, Type: k.Type, Name: k.Name})
		}
	}
	for _, gc := range d.groups {
		g := &group{groupConfig: gc, require: d.policies[gc.Require], sets: map[string]*set{}}
		for k, e := range entries {
			if k.Scope != "" && k.Scope != g.Name {
				continue
			}
			s := g.sets[k.Type]
			if s == nil {
				s = &set{group: g.Name, typ: k.Type, entries: map[string]*entry{}}
				g.sets[k.Type] = s
			}
			s.entries[k.Name] = e
			s.names = append(s.names, k.Name)
			s.content = max(s.content, e.version)
		}
		for k := range gone { // a set of which nothing is left has a version of its own, too
			if typ := k.Type; g.sets[typ] == nil && (k.Scope == "" || k.Scope == g.Name) {
				g.sets[typ] = &set{group: g.Name, typ: typ}
			}
		}
		for k, v := range from.sets {
			if k.Scope == g.Name && g.sets[k.Type] == nil {
				g.sets[k.Type] = &set{group: g.Name, typ: k.Type, version: v}
			}
		}
		for _, typ := range slices.Sorted(maps.Keys(g.sets)) {
			s := g.sets[typ]
			slices.Sort(s.names)
			s.version = max(s.content, from.sets[key{g.Name, typ, ""}])
			if gone[key{"", typ, ""}] || gone[key{g.Name, typ, ""}] {
				s.version = number()
			}
			next.sets[key{g.Name, typ, ""}] = s.version
			if old := from.group(g.Name); old != nil && old.sets[typ] != nil && old.sets[typ].version == s.version {
				g.sets[typ] = old.sets[typ] // of the same version: nothing is to be compared
			}
		}
		next.groups = append(next.groups, g)
	}
	// What a group of that name had once, it does not get again under the same number.
	for k, v := range from.sets {
		if _, ok := next.sets[k]; !ok {
			next.sets[k] = v
		}
	}
	if len(changes) == 0 && d.digest != from.digest {
		number() // the groups are others, or what nobody gets is
	}
	return next, changes, nil
}

func sum(parts ...[]byte) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		for i, l := 0, len(p); i < 8; i++ {
			n[i] = byte(l >> (8 * (7 - i)))
		}
		h.Write(n[:])
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
