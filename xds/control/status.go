package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Standing is how a proxy stands to what it should have.
type Standing string

// Values of Standing.
const (
	Synced   Standing = "SYNCED"   // it has accepted everything
	Stale    Standing = "STALE"    // it was not told yet, or has not answered
	Rejected Standing = "REJECTED" // it has refused something, and not accepted anything newer of that type
)

// Status is what a control plane does now. Its JSON names are a contract.
type Status struct {
	Serial    uint64    `json:"serial"`
	Digest    string    `json:"digest"` // of the files that are served
	Time      time.Time `json:"time"`   // of the last change
	Directory string    `json:"directory"`
	Problem   []Problem `json:"problem"` // why the directory is not what is served; empty where it is
	Since     time.Time `json:"problem_since,omitzero"`
	Groups    []Group   `json:"groups"`
	Proxies   []Proxy   `json:"proxies"`
	Refused   []Refused `json:"refused"` // the last ones that were turned away, oldest first
}

// Problem is one thing that is wrong.
type Problem struct {
	Code attest.Code `json:"code"`
	Text string      `json:"text"`
}

// Group is what a group gets.
type Group struct {
	Name      string         `json:"name"`
	Policy    string         `json:"policy"`    // that its proxies have to meet
	PolicyID  string         `json:"policy_id"` // "sha256:" and the digest
	Resources map[string]int `json:"resources"` // how many, by type
	Proxies   int            `json:"proxies"`
}

// Proxy is one stream.
type Proxy struct {
	ID          string            `json:"id"` // what it calls itself, which agrees with what was verified
	Names       []string          `json:"names"`
	Group       string            `json:"group"`
	Address     string            `json:"address"`
	Agent       string            `json:"agent,omitempty"`
	Since       time.Time         `json:"since"`
	Protocol    string            `json:"protocol"` // delta or sotw
	Standing    Standing          `json:"standing"`
	Reason      string            `json:"reason,omitempty"`
	Vendor      string            `json:"vendor"`
	TEE         string            `json:"tee"`
	Product     string            `json:"product"`
	Generation  string            `json:"generation"`
	Simulated   bool              `json:"simulated"`
	TCB         attest.TCB        `json:"tcb"`
	TCBStatus   string            `json:"tcb_status,omitempty"`
	Measurement string            `json:"measurement"`
	Config      string            `json:"config"`
	Evidence    string            `json:"evidence_sha256"`
	Attested    time.Time         `json:"attested,omitzero"` // when its evidence was made
	Epoch       uint64            `json:"epoch"`             // the greatest version of a policy that it has accepted
	Open        *uint64           `json:"open"`              // connections, where it reports them
	Refused     *uint64           `json:"refused"`
	Types       map[string]TypeOf `json:"types"`
}

// TypeOf is what a proxy has of one type.
type TypeOf struct {
	Standing Standing `json:"standing"`
	Sent     uint64   `json:"sent"`
	Accepted uint64   `json:"accepted"`
	Rejected uint64   `json:"rejected,omitempty"`
	Reason   string   `json:"reason,omitempty"`
}

// Refused is a peer that got nothing, or gets nothing any more.
type Refused struct {
	Time    time.Time `json:"time"`
	Address string    `json:"address"`
	Names   []string  `json:"names"`
	ID      string    `json:"id"` // what it calls itself, where it came to that
	Reason  string    `json:"reason"`
}

const maxRefused = 100

func (c *Control) refuse(ss *session, reason string) {
	ss.mu.Lock()
	id := ss.node.ID
	ss.mu.Unlock()
	p := ss.s.Peer()
	r := Refused{Time: c.opts.Now(), Address: p.Address(), Names: p.Names(), ID: id, Reason: reason}
	c.mu.Lock()
	if len(c.refused) == maxRefused {
		c.refused = slices.Delete(c.refused, 0, 1)
	}
	c.refused = append(c.refused, r)
	c.mu.Unlock()
	c.opts.Log.Warn("proxy refused", "address", r.Address, "names", r.Names, "reason", reason)
}

// Status answers what goes on.
func (c *Control) Status() Status {
	st := c.state.Load()
	s := Status{Serial: st.serial, Digest: st.digest, Directory: c.dir, Problem: []Problem{}, Groups: []Group{}, Proxies: []Proxy{}, Refused: []Refused{}}
	c.changing.Lock()
	if c.store.last != nil {
		s.Time = c.store.last.Time
	}
	c.changing.Unlock()
	if p := c.problem.Load(); p != nil {
		s.Since = p.since
		s.Problem = problemsOf(p.err)
	}
	c.mu.Lock()
	all := slices.Collect(maps.Keys(c.sessions))
	s.Refused = append(s.Refused, c.refused...)
	c.mu.Unlock()
	count := map[string]int{}
	for _, ss := range all {
		if p, ok := ss.status(); ok {
			s.Proxies = append(s.Proxies, p)
			count[p.Group]++
		}
	}
	slices.SortFunc(s.Proxies, func(a, b Proxy) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	for _, g := range st.groups {
		one := Group{Name: g.Name, Policy: g.Require, Resources: map[string]int{}, Proxies: count[g.Name]}
		if g.require != nil {
			one.PolicyID = g.require.ID()
		}
		for typ, set := range g.sets {
			if len(set.names) > 0 {
				one.Resources[typ] = len(set.names)
			}
		}
		s.Groups = append(s.Groups, one)
	}
	return s
}

func problemsOf(err error) []Problem {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []Problem
		for _, e := range joined.Unwrap() {
			all = append(all, problemsOf(e)...)
		}
		return all
	}
	return []Problem{{attest.CodeOf(err), err.Error()}}
}

func (ss *session) status() (Proxy, bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.group == nil {
		return Proxy{}, false
	}
	peer, now := ss.s.Peer(), ss.c.state.Load()
	p := Proxy{
		ID: ss.node.ID, Names: append([]string{}, peer.Names()...), Group: ss.group.Name, Address: peer.Address(), Agent: ss.node.Agent, Since: ss.since, Protocol: "sotw",
		Standing: Synced, Open: ss.node.Open, Refused: ss.node.Refused, Types: map[string]TypeOf{},
	}
	if ss.delta {
		p.Protocol = "delta"
	}
	if r := peer.Result(); r != nil {
		p.Evidence, p.Attested = r.EvidenceDigest(), r.EvidenceTime()
		if c := r.Claims(); c != nil {
			p.Vendor, p.TEE, p.Product, p.Generation, p.Simulated = c.Vendor, c.TEE, c.Product, c.Generation, c.Simulated
			p.TCB, p.TCBStatus, p.Measurement = c.TCB, c.TCBStatus, c.Measured["launch"].String()
		}
		config := peer.Config()
		p.Config = fmt.Sprintf("%x", config)
	}
	worse := func(s Standing, reason string) {
		if p.Standing == Synced || s == Rejected && p.Standing != Rejected {
			p.Standing, p.Reason = s, reason
		}
	}
	if len(ss.order) == 0 {
		worse(Stale, "it has asked for nothing yet")
	}
	for _, sub := range ss.order {
		t := TypeOf{Standing: Synced, Sent: sub.version, Accepted: sub.acked, Rejected: sub.nacked, Reason: sub.reason}
		switch {
		case sub.nacked != 0:
			t.Standing = Rejected
			worse(Rejected, short(sub.typ)+": "+sub.reason)
		case sub.nonce != "":
			t.Standing = Stale
			worse(Stale, short(sub.typ)+": it has not answered")
		case ss.st != now || sub.behind(ss.group.set(sub.typ)):
			t.Standing = Stale
			worse(Stale, short(sub.typ)+": it was not told yet")
		}
		if sub.typ == resource.AttestationPolicy {
			p.Epoch = sub.acked
		}
		p.Types[sub.typ] = t
	}
	return p, true
}

// Plan is what a change would do.
type Plan struct {
	Problem  []Problem    `json:"problem"` // why it can't be: the rest is empty then
	Changes  []Difference `json:"changes"`
	Proxies  []Cut        `json:"proxies"`  // those connected here that would lose their stream, or come to another group
	Policies []PlanPolicy `json:"policies"` // those that change, with whom they would refuse as a peer of others
}

// Cut is what becomes of a proxy that is connected.
type Cut struct {
	ID         string      `json:"id"`
	Names      []string    `json:"names"`
	Address    string      `json:"address"`
	Vendor     string      `json:"vendor"`
	Generation string      `json:"generation"`
	From       string      `json:"from"`         // its group
	To         string      `json:"to,omitempty"` // the group that it would come to; "" where it is cut
	Code       attest.Code `json:"code,omitempty"`
	Line       int         `json:"line,omitempty"` // of the policy
	Reason     string      `json:"reason,omitempty"`
}

// PlanPolicy is a policy that changes.
type PlanPolicy struct {
	Name    string `json:"name"`
	Refuses []Cut  `json:"refuses"` // proxies connected here that it refuses, and that the one of now affirms
}

// Plan answers what taking files would do, without taking them. It judges by what those who are connected have shown.
func (c *Control) Plan(files Files) Plan {
	plan := Plan{Problem: []Problem{}, Changes: []Difference{}, Proxies: []Cut{}, Policies: []PlanPolicy{}}
	d, err := parse(files, c.decode, c.opts.Check)
	if err != nil {
		plan.Problem = problemsOf(err)
		return plan
	}
	st := c.state.Load()
	next, changes, err := build(d, st, 1)
	if err != nil {
		plan.Problem = problemsOf(err)
		return plan
	}
	for i := range changes {
		changes[i].Version = 0 // those that it gets are given then
	}
	plan.Changes = append(plan.Changes, changes...)
	c.mu.Lock()
	all := slices.Collect(maps.Keys(c.sessions))
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(slices.Compare(a.s.Peer().Names(), b.s.Peer().Names()), cmp.Compare(a.s.Peer().Address(), b.s.Peer().Address()))
	})
	now := c.opts.Now()
	for _, ss := range all {
		cut := ss.cut()
		g, err := c.admit(ss.s.Peer(), next)
		if err == nil {
			err = ss.agree(g)
		}
		switch {
		case err != nil && cut.From == "": // nothing is served to it as it is
		case err != nil:
			cut.Reason = err.Error()
			if told, ok := err.(*attested.Status); ok {
				cut.Reason = told.Message
			}
			if g := next.matching(ss.s.Peer()); g != nil && g.require != nil { // for who calls itself wrongly the policy has nothing to say
				if r := ss.s.Peer().Result().Rejudge(g.require, now); !r.Affirmed() {
					cut.Code, cut.Line = r.Code(), r.Line()
				}
			}
			plan.Proxies = append(plan.Proxies, cut)
		case g.Name != cut.From && cut.From != "":
			cut.To = g.Name
			plan.Proxies = append(plan.Proxies, cut)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.policies)) {
		to, from := d.policies[name], st.policies[name]
		if from != nil && from.ID() == to.ID() {
			continue
		}
		one := PlanPolicy{Name: name, Refuses: []Cut{}}
		for _, ss := range all {
			if cut, ok := ss.refusedBy(to, from, now); ok {
				one.Refuses = append(one.Refuses, cut)
			}
		}
		plan.Policies = append(plan.Policies, one)
	}
	return plan
}

func (s *state) matching(p *attested.Peer) *group {
	for _, g := range s.groups {
		if g.matches(p) {
			return g
		}
	}
	return nil
}

func (ss *session) cut() Cut {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	p := ss.s.Peer()
	cut := Cut{ID: ss.node.ID, Names: append([]string{}, p.Names()...), Address: p.Address()}
	if ss.group != nil {
		cut.From = ss.group.Name
	}
	if c := claimsOf(p); c != nil {
		cut.Vendor, cut.Generation = c.Vendor, c.Generation
	}
	return cut
}

// refusedBy reports whether a policy refuses a proxy that the one of now, where there is one, affirms.
func (ss *session) refusedBy(to, from *policy.Policy, now time.Time) (Cut, bool) {
	r := ss.s.Peer().Result()
	if !r.Affirmed() || from != nil && !r.Rejudge(from, now).Affirmed() {
		return Cut{}, false
	}
	judged := r.Rejudge(to, now)
	if judged.Affirmed() {
		return Cut{}, false
	}
	cut := ss.cut()
	cut.Code, cut.Line, cut.Reason = judged.Code(), judged.Line(), errorText(judged)
	return cut, true
}
