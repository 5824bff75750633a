package agent

import (
	"maps"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/envoy"
)

// Status is how things are, for people and metrics.
type Status struct {
	Types     map[string]TypeStatus `json:"types"`               // by the URL of the type
	Warming   []Waiting             `json:"warming,omitempty"`   // what is not in use, or not in its newest state, because it waits
	Policies  []PolicyStatus        `json:"policies,omitempty"`  // that were pushed and are in use
	Notes     map[string][]string   `json:"notes,omitempty"`     // what is carried out in another way than Envoy does it, by resource
	Applied   time.Time             `json:"applied"`             // the last change that was carried out; zero for none
	Withdrawn bool                  `json:"withdrawn,omitempty"` // nothing of it is in use: there was no control plane for too long
	Unkept    bool                  `json:"unkept,omitempty"`    // serials could not be kept for the next start
}

// TypeStatus is what became of the updates of a type.
type TypeStatus struct {
	Resources int          `json:"resources"`
	Accepted  uint64       `json:"accepted"` // updates
	Refused   uint64       `json:"refused"`  // updates
	Refusal   *LastRefusal `json:"refusal,omitempty"`
}

// LastRefusal is why an update was refused.
type LastRefusal struct {
	Time time.Time   `json:"time"`
	Code attest.Code `json:"code"` // of the first reason
	Text string      `json:"text"`
	// Whether nothing of the type was accepted since.
	Stands bool `json:"stands"`
}

// Waiting is a resource that waits for others.
type Waiting struct {
	Type string   `json:"type"`
	Name string   `json:"name"`
	For  []string `json:"for"`
	Old  bool     `json:"old"` // what it was before is in use in its place
}

// PolicyStatus is a policy that was pushed.
type PolicyStatus struct {
	Name   string `json:"name"`
	Serial uint64 `json:"serial"`
	ID     string `json:"id"` // as transcripts have it
}

// note counts what became of an update.
func (a *Agent) note(u *client.Update, err error) {
	s := a.status.Types[u.Type]
	if err == nil {
		s.Accepted++
		if s.Refusal != nil {
			r := *s.Refusal
			r.Stands = false
			s.Refusal = &r
		}
		a.options.Log.Info("configuration of the control plane", "type", short(u.Type), "version", u.Version, "changed", len(u.Changed), "removed", len(u.Removed), "cause", u.Cause.String())
	} else {
		s.Refused++
		s.Refusal = &LastRefusal{Time: a.options.Now(), Code: attest.CodeOf(err), Text: err.Error(), Stands: true}
		a.options.Log.Warn("configuration of the control plane refused", "type", short(u.Type), "version", u.Version, "code", string(s.Refusal.Code), "error", s.Refusal.Text)
	}
	a.status.Types[u.Type] = s
}

// Status says how things are.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.status
	out.Types, out.Withdrawn, out.Notes = map[string]TypeStatus{}, a.withdrawn, map[string][]string{}
	for typ, s := range a.status.Types {
		s.Resources = 0
		out.Types[typ] = s
	}
	for key := range a.accepted {
		s := out.Types[key.Type]
		s.Resources++
		out.Types[key.Type] = s
	}
	for _, key := range sorted(a.used.whole.Warming) {
		_, old := a.used.set[key]
		_, waits := a.used.translation.Warming[key]
		w := Waiting{Type: key.Type, Name: key.Name, Old: old && !waits}
		for _, m := range a.used.whole.Warming[key] {
			w.For = append(w.For, name(m))
		}
		out.Warming = append(out.Warming, w)
	}
	for _, key := range sorted(a.used.translation.Notes) {
		out.Notes[name(key)] = a.used.translation.Notes[key]
	}
	for _, n := range slices.Sorted(maps.Keys(a.used.translation.Policies)) {
		if p, ok := a.used.policies[Prefix+n]; ok {
			out.Policies = append(out.Policies, PolicyStatus{Name: n, Serial: a.used.translation.Policies[n].Serial, ID: p.Layers[0].ID()})
		}
	}
	return out
}

// Used answers the effective resources, which the caller must not change, and whether they were withdrawn.
func (a *Agent) Used() (set envoy.Set, withdrawn bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used.set, a.withdrawn
}

// Running answers the resources that are carried out as they are: none that waits for others, and none at all where they were withdrawn. They can
// be older than what was accepted. The caller must not change their bodies.
func (a *Agent) Running() envoy.Set {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.withdrawn {
		return envoy.Set{}
	}
	all := maps.Clone(a.used.set)
	for key := range a.used.translation.Warming {
		delete(all, key)
	}
	return all
}

// name is a resource in words.
func name(k envoy.Key) string { return short(k.Type) + " " + k.Name }
