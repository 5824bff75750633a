package protocol_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/xds/client/protocol"
)

// world is what control planes serve: clusters, and the endpoints of each.
type world map[string]map[string]string

// server is the other end, for one client: strict about what a client may say, and careless in the ways that are allowed.
type server interface {
	open()
	handle(*protocol.Request) error
	push(typ string, everything bool) *protocol.Response // nil if there is nothing to say
}

// stateServer is one for the state-of-the-world protocol.
type stateServer struct {
	world   world
	version *int
	node    bool
	types   map[string]*stateType
	nonce   int
	acked   map[string]string // last accepted version, over all streams
	refused int
}

type stateType struct {
	names    []string
	wildcard bool
	nonce    string // of the last response
	sent     string // its version, until it is acknowledged or refused
	have     map[string]string
	pushed   bool
}

func (s *stateServer) open() { s.node, s.types = false, map[string]*stateType{} }

func (s *stateServer) handle(r *protocol.Request) error {
	if (r.Node == nil) == !s.node {
		return errors.New("node is not on the first message only")
	}
	s.node = true
	if r.Subscribe != nil || r.Unsubscribe != nil || r.Initial != nil {
		return errors.New("delta fields")
	}
	t := s.types[r.Type]
	if t == nil {
		if r.Nonce != "" || r.Error != nil {
			return fmt.Errorf("a first request with nonce %q", r.Nonce)
		}
		if r.Version != s.acked[r.Type] && !strings.HasPrefix(r.Version, "v") && r.Version != "" {
			return fmt.Errorf("version %q out of nowhere", r.Version)
		}
		t = &stateType{wildcard: len(r.Names) == 0, have: map[string]string{}}
		s.types[r.Type] = t
	} else {
		if r.Nonce != t.nonce {
			return nil // stale
		}
		if t.sent != "" {
			switch {
			case r.Error == nil && r.Version != t.sent:
				return fmt.Errorf("%s acknowledged as %q", t.sent, r.Version)
			case r.Error == nil:
				s.acked[r.Type] = r.Version
			default:
				s.refused++
			}
			t.sent = ""
		} else if r.Error != nil {
			return errors.New("refused twice")
		}
	}
	if len(r.Names) > 0 {
		t.wildcard = slices.Contains(r.Names, "*")
	}
	t.names = r.Names
	for n := range t.have {
		if !slices.Contains(r.Names, n) && !t.wildcard {
			delete(t.have, n)
		}
	}
	return nil
}

func (s *stateServer) push(typ string, everything bool) *protocol.Response {
	t := s.types[typ]
	if t == nil {
		return nil
	}
	all := map[string]string{}
	for n, c := range s.world[typ] {
		if t.wildcard || slices.Contains(t.names, n) {
			all[n] = c
		}
	}
	if maps.Equal(all, t.have) && (t.pushed || len(all) > 0) {
		return nil
	}
	t.pushed = true
	var list []string
	for n, c := range all {
		if everything || typ == cds || t.have[n] != c {
			list = append(list, n+"="+c)
		}
	}
	t.have = all
	s.nonce++
	r := sotw(typ, fmt.Sprint("v", *s.version), list...)
	r.Nonce = fmt.Sprint("s", s.nonce)
	t.nonce, t.sent = r.Nonce, r.Version
	return r
}

// deltaServer is one for the delta protocol.
type deltaServer struct {
	world   world
	node    bool
	types   map[string]*deltaType
	nonce   int
	refused int
}

type deltaType struct {
	wildcard bool
	subs     map[string]bool
	have     map[string]string
	open     map[string]bool // nonces that are not answered
}

const absent = "absent"

func (s *deltaServer) open() { s.node, s.types = false, map[string]*deltaType{} }

func (s *deltaServer) handle(r *protocol.Request) error {
	if (r.Node == nil) == !s.node {
		return errors.New("node is not on the first message only")
	}
	s.node = true
	if r.Names != nil || r.Version != "" {
		return errors.New("state-of-the-world fields")
	}
	t := s.types[r.Type]
	if t == nil {
		t = &deltaType{wildcard: len(r.Subscribe) == 0, subs: map[string]bool{}, have: map[string]string{}, open: map[string]bool{}}
		maps.Copy(t.have, r.Initial)
		s.types[r.Type] = t
	} else {
		if r.Initial != nil {
			return errors.New("versions in the middle of a stream")
		}
		for _, n := range r.Subscribe {
			delete(t.have, n) // to be sent again whatever the client has
		}
	}
	if r.Nonce == "" && r.Error != nil {
		return errors.New("refused without a nonce")
	}
	if r.Nonce != "" {
		if !t.open[r.Nonce] {
			return fmt.Errorf("nonce %q answered twice, or made up", r.Nonce)
		}
		delete(t.open, r.Nonce)
		if r.Error != nil {
			s.refused++
		}
	}
	for _, n := range r.Subscribe {
		if slices.Contains(r.Unsubscribe, n) && n != "*" {
			return errors.New("a name comes and goes")
		}
		if n == "*" {
			t.wildcard = true
		} else {
			t.subs[n] = true
		}
	}
	for _, n := range r.Unsubscribe {
		if n == "*" {
			t.wildcard = false
			continue
		}
		if !t.subs[n] {
			return fmt.Errorf("unsubscribed from %q, which was not subscribed to", n)
		}
		delete(t.subs, n)
		delete(t.have, n)
	}
	return nil
}

func (s *deltaServer) push(typ string, everything bool) *protocol.Response {
	t := s.types[typ]
	if t == nil {
		return nil
	}
	var list []string
	next := map[string]string{}
	for n, c := range s.world[typ] {
		if t.wildcard || t.subs[n] {
			next[n] = c
			if t.have[n] != c {
				list = append(list, n+"="+c)
			}
		}
	}
	for n, c := range t.have {
		if _, ok := next[n]; !ok && (t.wildcard || t.subs[n]) && c != absent {
			list = append(list, "-"+n)
		}
	}
	for n := range t.subs {
		if _, ok := next[n]; !ok {
			if _, told := t.have[n]; !told {
				list = append(list, "-"+n)
			}
			next[n] = absent
		}
	}
	if len(list) == 0 {
		return nil
	}
	t.have = next
	s.nonce++
	r := delta(typ, list...)
	r.Nonce = fmt.Sprint("s", s.nonce)
	t.open[r.Nonce] = true
	return r
}

// pair is a client with its server and the network in between.
type pair struct {
	*script
	server
	up   []*protocol.Request
	down []*protocol.Response
	past []*protocol.Response // delivered on this stream
	on   bool
}

func (p *pair) cut() {
	if p.on {
		p.Closed()
	}
	p.on, p.up, p.down, p.past = false, nil, nil, nil
}

func (p *pair) connect() {
	if !p.on {
		p.on = true
		p.open()
		p.Opened()
	}
}

func (p *pair) write() {
	if r := p.Next(p.now); r != nil {
		p.up = append(p.up, r)
	}
}

func (p *pair) deliver(t *rapid.T) {
	if len(p.up) > 0 {
		r := p.up[0]
		p.up = p.up[1:]
		if err := p.handle(r); err != nil {
			t.Fatalf("%v: %s", err, short(r))
		}
	}
}

func (p *pair) read(t *rapid.T) {
	if len(p.down) == 0 || p.Full() {
		return
	}
	r := p.down[0]
	p.down = p.down[1:]
	p.past = append(p.past, r)
	if err := p.try(r); err != nil {
		t.Fatal(err)
	}
}

// judge is a Sink of sense: endpoints are wanted of the clusters that are there, and "bad" is refused.
func sense(s *script, others bool) func(u *protocol.Update) error {
	return func(u *protocol.Update) error {
		bad := map[string]string{}
		for _, r := range u.Changed {
			if strings.HasPrefix(content(r.Body), "bad") {
				bad[r.Name] = "bad"
			}
		}
		if len(bad) > 0 && (!others || u.Type == cds && s.Kind == protocol.StateOfTheWorld) {
			return &protocol.Rejection{Resources: bad}
		}
		if u.Type == cds {
			now := map[string]bool{}
			for _, r := range s.Resources(cds) {
				now[r.Name] = r.Body != nil
			}
			for _, r := range u.Changed {
				now[r.Name] = now[r.Name] || bad[r.Name] == ""
			}
			for _, n := range u.Removed {
				now[n] = false
			}
			var names []string
			for n, there := range now {
				if there {
					names = append(names, n)
				}
			}
			if err := s.Subscribe(s.now, eds, names, 0); err != nil {
				return err
			}
		}
		if len(bad) > 0 {
			return &protocol.Rejection{Resources: bad, OthersTaken: true}
		}
		return nil
	}
}

// Whatever happens on the way (messages that overtake one another between types, repeated and stale responses, cuts, refusals, subscriptions that
// come and go), both variants of the protocol end with what the control plane has.
func TestSameEnd(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		w, version := world{cds: {}, eds: {}}, 0
		others := rapid.Bool().Draw(t, "others are taken")
		var pairs []*pair
		for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
			m, err := protocol.New(protocol.Config{Kind: kind, Random: func() float64 { return 0.5 }})
			if err != nil {
				t.Fatal(err)
			}
			p := &pair{script: &script{Machine: m, now: time.Unix(1000, 0), all: map[string]map[string]string{}}}
			if kind == protocol.Delta {
				p.server = &deltaServer{world: w}
			} else {
				p.server = &stateServer{world: w, version: &version, acked: map[string]string{}}
			}
			p.verdict = sense(p.script, others)
			if err := p.Subscribe(p.now, cds, []string{"*"}, 0); err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, p)
		}
		set := func(name, c string) {
			w[cds][name], w[eds][name] = c, strings.TrimPrefix(c, "bad")
			version++
		}
		name := rapid.SampledFrom([]string{"a", "b", "c", "d", "a|b", "a,b"})
		for i := range rapid.IntRange(20, 300).Draw(t, "steps") {
			p := rapid.SampledFrom(pairs).Draw(t, "client")
			switch what := rapid.SampledFrom([]string{
				"set", "set", "bad", "endpoints", "bad endpoints", "delete", "cut", "connect", "connect", "write", "write", "deliver", "deliver", "push", "push", "read", "read", "read", "repeat", "wait", "flow", "flow", "flow",
			}).Draw(t, "what"); what {
			case "set":
				set(name.Draw(t, "name"), fmt.Sprint("c", i))
			case "bad":
				set(name.Draw(t, "name"), fmt.Sprint("bad", i))
			case "endpoints", "bad endpoints":
				if n := name.Draw(t, "name"); w[eds][n] != "" {
					w[eds][n] = strings.TrimSuffix(what, "endpoints") + fmt.Sprint("e", i)
					w[eds][n] = strings.ReplaceAll(w[eds][n], " ", "")
					version++
				}
			case "delete":
				n := name.Draw(t, "name")
				delete(w[cds], n)
				delete(w[eds], n)
				version++
			case "flow": // one step of each kind
				p.connect()
				p.write()
				p.deliver(t)
				if r := p.push(rapid.SampledFrom([]string{cds, eds}).Draw(t, "type"), rapid.Bool().Draw(t, "everything")); r != nil {
					p.down = append(p.down, r)
				}
				p.read(t)
			case "cut":
				p.cut()
			case "connect":
				p.connect()
			case "write":
				p.write()
			case "deliver":
				p.deliver(t)
			case "push":
				if p.on {
					if r := p.push(rapid.SampledFrom([]string{cds, eds}).Draw(t, "type"), rapid.Bool().Draw(t, "everything")); r != nil {
						p.down = append(p.down, r)
					}
				}
			case "read":
				p.read(t)
			case "repeat":
				if len(p.past) > 0 {
					p.down = append(p.down, rapid.SampledFrom(p.past).Draw(t, "which"))
				}
			case "wait":
				p.now = p.now.Add(time.Second)
			}
		}
		// Peace. What was bad is put right. A server does not send again what was refused together with it, until there is a new stream,
		// which the client asks for.
		for n, c := range w[cds] {
			if strings.HasPrefix(c, "bad") {
				w[cds][n] = "good"
			}
			if strings.HasPrefix(w[eds][n], "bad") {
				w[eds][n] = "good"
			}
		}
		version++
		for _, p := range pairs {
			p.connect()
			for quiet := 0; quiet < 3; quiet++ {
				if p.Adrift() {
					p.cut()
					p.connect()
				}
				for r := p.Next(p.now); r != nil; r = p.Next(p.now) {
					p.up = append(p.up, r)
				}
				for len(p.up) > 0 {
					p.deliver(t)
				}
				for _, typ := range []string{cds, eds} {
					if r := p.push(typ, false); r != nil {
						p.down = append(p.down, r)
						quiet = 0
					}
				}
				for len(p.down) > 0 && !p.Full() {
					p.read(t)
					quiet = 0
				}
				p.due()
				if d := p.Machine.Deadline(p.now); d.After(p.now) {
					p.now = d
				}
			}
			for _, typ := range []string{cds, eds} {
				got := map[string]string{}
				bytes := 0
				for _, r := range p.Resources(typ) {
					if r.Condition != protocol.Accepted {
						t.Fatalf("%s of %v: %q is %v", names[typ], p.Kind, r.Name, r.Condition)
					}
					got[r.Name] = content(r.Body)
					bytes += len(r.Body)
				}
				if !maps.Equal(got, w[typ]) {
					t.Fatalf("%s of %v: %v, want %v", names[typ], p.Kind, got, w[typ])
				}
			}
		}
		for _, p := range pairs {
			for _, s := range p.Status().Types {
				seen["accepted"] += int(s.Accepted)
				seen["refused"] += int(s.Refused)
			}
			seen["repeated"] += int(p.Status().Repeated)
		}
	})
	if seen["accepted"] == 0 || seen["refused"] == 0 || seen["repeated"] == 0 {
		t.Errorf("nothing happened: %v", seen)
	}
	t.Log(seen)
}
