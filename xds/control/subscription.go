package control

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/xds/internal/request"
	"github.com/jurat-tls/jurat/xds/resource"
)

const (
	never   = ^uint64(0) // the version of a name that the client was told nothing about
	maxSent = 1 << 20    // bytes of resources in one delta response, unless one alone is larger
	maxGone = 4096       // removed names in one delta response
)

// subscription is what one stream has of one type, and still has to get. There is one response at most that was not answered: what
// changes meanwhile is told in the next.
type subscription struct {
	typ      string
	wildcard bool
	explicit bool              // state of the world: there were names once, so that none is none and not all
	names    map[string]uint64 // that the client names, with the version that it was told of: 0 for "there is none"
	initial  map[string]string // delta: what the client had when it came, until it is compared
	at       *set              // what it was told of, or what waits in todo and gone
	fresh    []string          // names that were added, or are to be sent again

	todo     []*entry // delta: to be sent
	gone     []string // delta: to be reported as removed
	linger   map[string]*entry
	due      bool // state of the world: there is something to say
	answered bool

	nonce    string          // of the response that is not answered
	last     string          // of the last response
	version  uint64          // that it has
	sent     []string        // names in it
	rejected map[string]bool // names in responses that were refused: the client has them in another state, or not at all

	acked    uint64
	nacked   uint64 // the version that was refused last, where it was not accepted since; 0 for none
	reason   string
	nackedAt time.Time
}

// lingers reports whether what is removed of a type stays with a client until nothing of listeners and routes can refer to it.
func lingers(typ string) bool { return typ != resource.Listener && typ != resource.Route }

// same reports whether two sets hold the same.
func same(a, b *set) bool {
	return a == b || a != nil && b != nil && a.version == b.version && a.group == b.group && a.typ == b.typ
}

// behind reports whether there is anything that the client was not told.
func (sub *subscription) behind(s *set) bool {
	return !same(sub.at, s) || len(sub.fresh) > 0 || sub.due || len(sub.todo) > 0 || len(sub.gone) > 0
}

// settled reports whether the client has accepted everything.
func (sub *subscription) settled(s *set) bool {
	return !sub.behind(s) && sub.nonce == "" && sub.nacked == 0
}

// lookDelta finds what the client has to be told, now that there is s.
func (sub *subscription) lookDelta(s *set) {
	moved := !same(sub.at, s)
	if !moved && len(sub.fresh) == 0 {
		return
	}
	var changed []*entry
	var removed []string
	if sub.wildcard && moved {
		if sub.initial != nil {
			for _, n := range s.names {
				if e := s.entries[n]; sub.initial[n] != format(e.version) {
					changed = append(changed, e)
				}
			}
			for n := range sub.initial {
				if !s.has(n) {
					removed = append(removed, n)
				}
			}
			slices.Sort(removed)
		} else {
			changed, removed = s.since(sub.at)
		}
	}
	if moved {
		sub.initial = nil
	}
	var absent []string
	told := map[string]bool{} // what is in one of the lists
	if sub.wildcard && len(sub.names) > 0 || len(sub.rejected) > 0 {
		for _, e := range changed {
			told[e.name] = true
		}
		for _, n := range removed {
			told[n] = true
		}
	}
	names := sub.fresh
	if moved {
		names = slices.Collect(maps.Keys(sub.names))
	}
	slices.Sort(names)
	for _, n := range names {
		had, ok := sub.names[n]
		if !ok {
			continue
		}
		e := s.entries[n]
		var v uint64
		if e != nil {
			v = e.version
		}
		sub.names[n] = v
		switch {
		case had == v || told[n]:
			continue
		case e != nil:
			changed = append(changed, e)
		case had == never:
			absent = append(absent, n)
		default:
			removed = append(removed, n)
		}
		told[n] = true
	}
	if moved {
		for _, n := range slices.Sorted(maps.Keys(sub.rejected)) {
			if told[n] {
				continue
			}
			if told[n] = true; s.has(n) {
				changed = append(changed, s.entries[n])
			} else {
				removed = append(removed, n)
			}
		}
	}
	sub.supersede(changed, removed, absent)
	for _, n := range removed {
		if lingers(sub.typ) {
			sub.keep(n, nil)
		} else {
			sub.gone = append(sub.gone, n)
		}
	}
	sub.gone = append(sub.gone, absent...)
	sub.todo = append(sub.todo, changed...)
	for _, e := range changed {
		delete(sub.linger, e.name)
	}
	sub.at, sub.fresh = s, nil
}

func (sub *subscription) keep(name string, e *entry) {
	if sub.linger == nil {
		sub.linger = map[string]*entry{}
	}
	sub.linger[name] = e
}

// supersede takes out of what waits what is known better now.
func (sub *subscription) supersede(changed []*entry, removed, absent []string) {
	if len(sub.todo)+len(sub.gone) == 0 {
		return
	}
	newer := map[string]bool{}
	for _, e := range changed {
		newer[e.name] = true
	}
	for _, n := range slices.Concat(removed, absent) {
		newer[n] = true
	}
	sub.without(newer)
}

// without takes names out of what waits.
func (sub *subscription) without(names map[string]bool) {
	if slices.ContainsFunc(sub.todo, func(e *entry) bool { return names[e.name] }) {
		sub.todo = slices.DeleteFunc(slices.Clone(sub.todo), func(e *entry) bool { return names[e.name] })
	}
	if slices.ContainsFunc(sub.gone, func(n string) bool { return names[n] }) {
		sub.gone = slices.DeleteFunc(slices.Clone(sub.gone), func(n string) bool { return names[n] })
	}
}

// drop forgets names that the client does not want any more.
func (sub *subscription) drop(names []string) {
	if len(names) == 0 {
		return
	}
	out := map[string]bool{}
	for _, n := range names {
		if sub.wildcard && sub.at != nil && sub.at.has(n) {
			continue // it stays in the wildcard
		}
		out[n] = true
		delete(sub.linger, n)
		delete(sub.rejected, n)
	}
	sub.without(out)
	sub.forgive()
}

// release lets go of what lingers.
func (sub *subscription) release(delta bool) {
	if len(sub.linger) == 0 {
		return
	}
	if delta {
		sub.gone = append(sub.gone, slices.Sorted(maps.Keys(sub.linger))...)
	} else {
		sub.due = true
	}
	sub.linger = nil
}

// takeDelta answers the next response; nil where nothing is to be said. nonce is called for one that is.
func (sub *subscription) takeDelta(s *set, nonce func() string) [][]byte {
	if len(sub.todo)+len(sub.gone) == 0 && (sub.answered || !sub.wildcard) {
		return nil
	}
	sub.answered = true
	sub.sent = sub.sent[:0]
	pieces := make([][]byte, 0, 3+2*min(len(sub.todo), 64))
	pieces = append(pieces, appendText(appendText(nil, responseType, sub.typ), responseVersion, format(s.version)))
	size, n := 0, 0
	for _, e := range sub.todo {
		if n > 0 && size+e.size() > maxSent {
			break
		}
		pieces = append(pieces, e.delta, e.any)
		sub.sent = append(sub.sent, e.name)
		size += e.size()
		n++
	}
	sub.todo = sub.todo[n:]
	if len(sub.todo) == 0 {
		sub.todo = nil
	}
	var tail []byte
	if len(sub.todo) == 0 {
		m := min(len(sub.gone), maxGone)
		for _, name := range sub.gone[:m] {
			tail = appendText(tail, responseRemoved, name)
		}
		sub.sent = append(sub.sent, sub.gone[:m]...)
		if sub.gone = sub.gone[m:]; len(sub.gone) == 0 {
			sub.gone = nil
		}
	}
	sub.nonce, sub.version = nonce(), s.version
	sub.last = sub.nonce
	return append(pieces, appendItself(appendText(tail, responseNonce, sub.nonce), responseFromDelta))
}

// lookSotw finds out whether the client has to be told something, now that there is s.
func (sub *subscription) lookSotw(s *set) {
	if same(sub.at, s) && len(sub.fresh) == 0 {
		return
	}
	whole := resource.Whole(sub.typ)
	gone := func(n string) {
		if whole && sub.at != nil && sub.at.has(n) {
			sub.keep(n, sub.at.entries[n])
			if !lingers(sub.typ) {
				sub.due = true
			}
		}
	}
	if sub.wildcard && !same(sub.at, s) {
		changed, removed := s.since(sub.at)
		sub.due = sub.due || len(changed) > 0
		for _, n := range removed {
			gone(n)
		}
	}
	for n, had := range sub.names {
		var v uint64
		if e := s.entries[n]; e != nil {
			v = e.version
		}
		switch {
		case had == v:
		case v != 0, had == never && whole:
			sub.due = true
		case had != never:
			gone(n)
		}
		sub.names[n] = v
	}
	if len(sub.rejected) > 0 && !whole { // what was refused and is not there any more can't be put right
		maps.DeleteFunc(sub.rejected, func(n string, _ bool) bool { return !s.has(n) })
		sub.forgive()
	}
	if !lingers(sub.typ) {
		sub.linger = nil
	}
	for n := range sub.linger {
		if s.has(n) {
			delete(sub.linger, n)
		}
	}
	sub.at, sub.fresh = s, nil
}

// takeSotw answers the next response; nil where nothing is to be said.
func (sub *subscription) takeSotw(s *set, nonce func() string) [][]byte {
	if !sub.due && (sub.answered || !sub.wildcard) {
		return nil
	}
	v := s.version
	if len(sub.linger) > 0 {
		v = max(sub.version, s.content) // the removal, which has a number of its own, has not happened here
	}
	sub.due, sub.answered = false, true
	sub.sent = sub.sent[:0]
	pieces := [][]byte{appendText(appendText(nil, responseType, sub.typ), responseVersion, format(v))}
	add := func(e *entry) {
		pieces = append(pieces, e.sotw, e.any)
		sub.sent = append(sub.sent, e.name)
	}
	if sub.wildcard {
		for _, n := range s.names {
			add(s.entries[n])
		}
	} else {
		for _, n := range slices.Sorted(maps.Keys(sub.names)) {
			if e := s.entries[n]; e != nil {
				add(e)
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(sub.linger)) {
		add(sub.linger[n])
	}
	if len(sub.sent) == 0 && !sub.wildcard && !resource.Whole(sub.typ) {
		return nil // it has gone again meanwhile, which can't be said
	}
	sub.nonce, sub.version = nonce(), v
	sub.last = sub.nonce
	return append(pieces, appendItself(appendText(nil, responseNonce, sub.nonce), responseFromSotw))
}

// answer takes an acknowledgement or a refusal, where a request is one.
func (sub *subscription) answer(r *request.Request, delta bool, now time.Time) {
	if r.Nonce == "" || r.Nonce != sub.nonce {
		return
	}
	sub.nonce = ""
	if r.Refused {
		sub.nacked, sub.reason, sub.nackedAt = sub.version, r.Reason, now
		if sub.rejected == nil {
			sub.rejected = map[string]bool{}
		}
		for _, n := range sub.sent {
			sub.rejected[n] = true
		}
	} else {
		sub.acked = sub.version
		if !delta { // the response was all that there is
			sub.rejected = nil
		}
		for _, n := range sub.sent {
			delete(sub.rejected, n)
		}
		sub.forgive()
	}
	sub.sent = nil
}

// forgive forgets a refusal of which nothing is left.
func (sub *subscription) forgive() {
	if len(sub.rejected) == 0 {
		sub.nacked, sub.reason, sub.rejected = 0, "", nil
	}
}

// wantDelta takes what a delta request says about names. first is whether it is the first of the type.
func (sub *subscription) wantDelta(r *request.Request, first bool) {
	if first {
		sub.initial = r.Initial
		sub.wildcard = len(r.Subscribe) == 0 && len(r.Unsubscribe) == 0
	}
	for _, n := range r.Subscribe {
		if n == resource.Wildcard {
			if !sub.wildcard {
				sub.wildcard, sub.at, sub.answered = true, nil, false
			}
			continue
		}
		had := never // also where it is subscribed to already: the client has lost it
		if v, ok := sub.initial[n]; ok {
			had = 0
			if number, err := strconv.ParseUint(v, 10, 64); err == nil {
				had = number
			}
			if had == 0 || had == never {
				had = 1 // some version that is none of ours
			}
		}
		sub.names[n] = had
		sub.fresh = append(sub.fresh, n)
	}
	var out []string
	for _, n := range r.Unsubscribe {
		if n == resource.Wildcard {
			sub.wildcard = false
			if sub.at != nil {
				for _, known := range sub.at.names {
					if _, named := sub.names[known]; !named {
						out = append(out, known)
					}
				}
			}
			continue
		}
		delete(sub.names, n)
		out = append(out, n)
	}
	sub.drop(out)
	if !sub.wildcard && len(sub.initial) > 0 && first {
		sub.initial = nil // those that were named are compared by their versions
	}
}

// wantSotw takes the names of a request of the state of the world.
func (sub *subscription) wantSotw(r *request.Request) {
	if len(r.Subscribe) > 0 {
		sub.explicit = true
	}
	wildcard := !sub.explicit || slices.Contains(r.Subscribe, resource.Wildcard)
	if wildcard && !sub.wildcard {
		sub.at, sub.answered = nil, false
	}
	sub.wildcard = wildcard
	wanted := make(map[string]uint64, len(r.Subscribe))
	for _, n := range r.Subscribe {
		if n == resource.Wildcard {
			continue
		}
		had, ok := sub.names[n]
		if !ok {
			had = never
			sub.fresh = append(sub.fresh, n)
		}
		wanted[n] = had
	}
	if sub.names = wanted; !wildcard {
		unwanted := func(n string) bool { _, ok := wanted[n]; return !ok }
		maps.DeleteFunc(sub.linger, func(n string, _ *entry) bool { return unwanted(n) })
		if len(sub.rejected) > 0 {
			maps.DeleteFunc(sub.rejected, func(n string, _ bool) bool { return unwanted(n) })
			sub.forgive()
		}
	}
}
