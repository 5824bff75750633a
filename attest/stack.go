package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Layer is one policy of a Stack, under the name that transcripts call it by.
type Layer struct {
	Name   string
	Policy Policy
}

// Stack is policies that all have to affirm, so that none can accept more than another does: what is pushed to a proxy stands
// on what was measured. The strictest level, age and TCB of all of them hold. An empty Stack refuses, and so does one with a
// layer that is missing or holds no rule.
type Stack []Layer

// Judge implements Policy: the checks of all layers. The id of a Stack of one is that of its policy; of several it stands for
// all of them in their order, and is empty where one has none.
func (s Stack) Judge(c *Claims, situation Situation) Judgement {
	if len(s) == 1 && s[0].Policy != nil {
		return s[0].Policy.Judge(c, situation)
	}
	var all Judgement
	id := &framed{Hash: sha256.New()}
	known := len(s) > 0
	each := make([]Judgement, len(s))
	checks := 0
	for i, l := range s {
		j := &each[i]
		if l.Policy != nil {
			*j = l.Policy.Judge(c, situation)
		}
		if len(j.Checks) == 0 {
			j.Checks = []Check{{ID: "policy", Status: StatusFail, Text: CodeEmptyPolicy.Title(), Code: CodeEmptyPolicy, Source: SourceLocal, Remedy: CodeEmptyPolicy.Remedy()}}
		}
		checks += len(j.Checks)
		known = known && j.ID != ""
		id.texts(l.Name, j.ID)
	}
	all.Checks = make([]Check, 0, checks)
	for i, l := range s {
		for _, check := range each[i].Checks {
			check.Policy = l.Name
			all.Checks = append(all.Checks, check)
		}
		for _, n := range each[i].NotChecked {
			all.NotChecked = append(all.NotChecked, l.Name+": "+n)
		}
	}
	if known {
		all.ID = "sha256:" + hex.EncodeToString(id.Sum(nil))
	}
	return all
}

// EvidenceAge is how old evidence may be at most: the least of what the layers say that say something. It is 0 where none does.
func (s Stack) EvidenceAge() time.Duration {
	least := time.Duration(0)
	for _, l := range s {
		if p, ok := l.Policy.(interface{ EvidenceAge() time.Duration }); ok {
			if d := p.EvidenceAge(); d > 0 && (least == 0 || d < least) { // 0 is that of a Stack that does not say
				least = d
			}
		}
	}
	return least
}

// Changes is when the next rule of a layer begins or ends, after a time; zero where none does.
func (s Stack) Changes(after time.Time) (next time.Time) {
	for _, l := range s {
		if p, ok := l.Policy.(interface{ Changes(time.Time) time.Time }); ok {
			if at := p.Changes(after); next.IsZero() || !at.IsZero() && at.Before(next) {
				next = at
			}
		}
	}
	return next
}

// OlderIsWorse reports whether no layer refuses evidence, or a reconnect, for being younger than what it accepts. A layer that
// does not say so may.
func (s Stack) OlderIsWorse() bool {
	for _, l := range s {
		if !olderIsWorse(l.Policy) {
			return false
		}
	}
	return true
}

func olderIsWorse(p Policy) bool {
	o, ok := p.(interface{ OlderIsWorse() bool })
	return ok && o.OlderIsWorse()
}

// JudgesAlike reports whether every layer judges claims of one Kind alike. A layer that does not say so may not.
func (s Stack) JudgesAlike() bool {
	for _, l := range s {
		if !judgesAlike(l.Policy) {
			return false
		}
	}
	return true
}

func judgesAlike(p Policy) bool {
	j, ok := p.(interface{ JudgesAlike() bool })
	return ok && j.JudgesAlike()
}
