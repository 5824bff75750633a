package agent

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

// plan is what becomes of resources.
type plan struct {
	whole       *envoy.Translation // of all that was accepted
	set         envoy.Set          // the effective resources
	translation *envoy.Translation // of these
	config      *config.Config     // with the static file's
	policies    map[string]guard.Policy
}

// empty is the static file alone.
func (a *Agent) empty() *plan {
	none := a.options.Translate(envoy.Input{Policies: a.names()})
	return &plan{whole: none, set: envoy.Set{}, translation: none, config: a.static, policies: a.own()}
}

// same reports whether the target would do the same.
func (p *plan) same(other *plan) bool {
	return reflect.DeepEqual(p.config, other.config) && maps.EqualFunc(p.policies, other.policies, func(a, b guard.Policy) bool {
		return a.Name == b.Name && a.Pushed == b.Pushed && slices.Equal(a.Layers, b.Layers)
	})
}

// names are the policies of the static file.
func (a *Agent) names() []string { return slices.Sorted(maps.Keys(a.policies)) }

func (a *Agent) translate(set envoy.Set) *envoy.Translation {
	return a.options.Translate(envoy.Input{Resources: set, Policies: a.names()})
}

// plan decides what is to be made of a candidate, and that it may be.
func (a *Agent) plan(candidate envoy.Set, late map[envoy.Key]bool) (*plan, error) {
	p := &plan{whole: a.translate(candidate)}
	if err := problems(p.whole); err != nil {
		return nil, err
	}
	// What waits is looked at already as far as that can be, so that whoever sent it is told, and not who sends the rest.
	if preview, t := a.preview(candidate, p.whole); t != p.whole && len(t.Problems) == 0 {
		if _, _, err := a.allowed(preview, t); err != nil {
			return nil, err
		}
	}
	p.set = candidate
	empty := withEmpty(candidate, p.whole, late)
	if empty != nil {
		p.set = empty
	}
	if err := a.settle(p, empty != nil); err != nil {
		return nil, err
	}
	var err error
	p.config, p.policies, err = a.allowed(p.set, p.translation)
	return p, err
}

// denial answers the plan for an update that changes nothing but what policies say that are in use, where nothing waits; nil for others. It is
// what plan would make of it, without looking at a thousand clusters: a denial is urgent.
func (a *Agent) denial(candidate envoy.Set, changed []resource.Resource) (*plan, error) {
	if len(changed) == 0 || a.used.whole != a.used.translation || len(a.used.whole.Warming) > 0 {
		return nil, nil
	}
	for _, r := range changed {
		if key := (envoy.Key{Type: r.Type, Name: r.Name}); r.Type != resource.AttestationPolicy && r.Type != resource.ReferenceValues || !in(a.accepted, key) {
			return nil, nil
		}
	}
	alone := envoy.Set{}
	for key, r := range candidate {
		if key.Type == resource.AttestationPolicy || key.Type == resource.ReferenceValues {
			alone[key] = r
		}
	}
	t := a.translate(alone)
	if err := problems(t); err != nil {
		return nil, err
	}
	for name := range t.Policies {
		if pushed := t.Policies[name]; !complete(&pushed, t.References) {
			return nil, nil
		}
	}
	whole := *a.used.whole
	whole.Policies, whole.References, whole.Needs = t.Policies, t.References, maps.Clone(whole.Needs)
	if whole.Needs[resource.ReferenceValues] = t.Needs[resource.ReferenceValues]; t.Needs[resource.ReferenceValues] == nil {
		delete(whole.Needs, resource.ReferenceValues)
	}
	// The configuration is what it was, since nothing but policies has changed. That these are allowed by the limits is new.
	p := &plan{whole: &whole, translation: &whole, set: maps.Clone(candidate), config: a.used.config}
	var err error
	if p.policies, err = a.resolve(p.translation); err == nil {
		err = a.guard.Check(a.static, p.config, p.policies)
	}
	return p, err
}

func complete(p *api.Policy, references map[string]api.References) bool {
	_, all := filesOf(p, references)
	return all
}

// preview answers a candidate as if the endpoints that it waits for were there, and none, and its translation; whole where it waits for
// none. What is gone and still led to is there, too, as settle has it: nobody is to be refused for how it would be without.
func (a *Agent) preview(candidate envoy.Set, whole *envoy.Translation) (envoy.Set, *envoy.Translation) {
	set := withEmpty(candidate, whole, nil)
	if set == nil {
		return candidate, whole
	}
	t := a.translate(set)
	for range maxSteps {
		next := withEmpty(set, t, nil)
		for _, name := range t.Needs[resource.Cluster] {
			key := envoy.Key{Type: resource.Cluster, Name: name}
			if before, was := a.used.set[key]; was && !in(set, key) {
				if next == nil {
					next = maps.Clone(set)
				}
				next[key] = before
			}
		}
		if next == nil {
			break
		}
		set, t = next, a.translate(next)
	}
	return set, t
}

func problems(t *envoy.Translation) error {
	var errs []error
	for _, key := range sorted(t.Problems) {
		errs = append(errs, &problem{key, t.Problems[key]})
	}
	return errors.Join(errs...)
}

// sorted are the keys of a map, in order.
func sorted[V any](m map[envoy.Key]V) []envoy.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b envoy.Key) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
}

// withEmpty answers a set in which endpoints that are waited for are there, and are none; nil where there are none to add. only says which;
// nil is all of them.
func withEmpty(set envoy.Set, t *envoy.Translation, only map[envoy.Key]bool) envoy.Set {
	var out envoy.Set
	for _, waits := range t.Warming {
		for _, key := range waits {
			if _, there := set[key]; there || key.Type != resource.Endpoints || only != nil && !only[key] {
				continue
			}
			if out == nil {
				out = maps.Clone(set)
			}
			body := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key.Name) // cluster_name
			out.Add(resource.Resource{Type: key.Type, Name: key.Name, Body: body})
		}
	}
	return out
}

// maxSteps bounds how often what waits makes others go back to what they were. Listeners lead to clusters and those to endpoints, so that a few
// steps are enough.
const maxSteps = 16

// settle makes p.set effective: what is not complete is what it was before, with all that it needs. Something only ever goes back to what was
// in use, or out, so that this comes to an end. fresh says that the set is not the one that p.whole is of.
func (a *Agent) settle(p *plan, fresh bool) error {
	old := a.used.set
	p.set = maps.Clone(p.set)
	for step := range maxSteps {
		if p.translation = p.whole; step > 0 || fresh {
			p.translation = a.translate(p.set)
		}
		changed := false
		back := func(key envoy.Key) bool { // reports whether it went back
			before, was := old[key]
			if now, is := p.set[key]; !was || is && same(now, before) {
				return false
			}
			p.set[key], changed = before, true
			return true
		}
		for _, key := range sorted(p.translation.Warming) {
			found := false
			for _, m := range p.translation.Warming[key] {
				if _, there := p.set[m]; !there && back(m) {
					found = true
				}
			}
			if _, waited := a.used.translation.Warming[key]; found || back(key) || waited || !in(old, key) {
				continue
			}
			// It is what it was when it was in use, so that something else is new which it leads to.
			for _, other := range a.newer(p, key) {
				if !back(other) && !in(old, other) {
					delete(p.set, other)
					changed = true
				}
			}
		}
		for _, name := range p.translation.Needs[resource.Cluster] { // which is gone, and still led to
			back(envoy.Key{Type: resource.Cluster, Name: name})
		}
		// What was accepted is right by itself. What is wrong is wrong beside something old, and waits for that to go.
		for _, key := range sorted(p.translation.Problems) {
			if !back(key) {
				delete(p.set, key)
				changed = true
			}
		}
		if !changed {
			return nil
		}
	}
	return &attest.Error{Code: attest.CodeXDSLimit, Check: "xds", Got: "resources that wait for one another without end", Want: fmt.Sprintf("at most %d steps", maxSteps)}
}

func in(set envoy.Set, key envoy.Key) bool {
	_, ok := set[key]
	return ok
}

// newer answers what may make a resource wait that did not wait when it was the same before.
func (a *Agent) newer(p *plan, key envoy.Key) (all []envoy.Key) {
	waits := p.translation.Warming[key]
	for _, name := range slices.Sorted(maps.Keys(p.translation.Policies)) { // that need other reference values now
		if slices.ContainsFunc(p.translation.Policies[name].References, func(set string) bool {
			return slices.Contains(waits, envoy.Key{Type: resource.ReferenceValues, Name: set})
		}) {
			all = append(all, envoy.Key{Type: resource.AttestationPolicy, Name: name})
		}
	}
	if key.Type != resource.Listener {
		return all
	}
	alone := a.translate(envoy.Set{key: p.set[key]})
	for _, name := range alone.Needs[resource.Route] { // that lead to clusters which wait
		route := envoy.Key{Type: resource.Route, Name: name}
		if before, was := a.used.set[route]; was && !same(before, p.set[route]) {
			all = append(all, route)
		}
	}
	if len(all) > 0 {
		return all
	}
	for _, m := range waits { // clusters that were led to before they were there
		if m.Type == resource.Cluster && in(p.set, m) {
			all = append(all, m)
		}
	}
	return all
}

func same(a, b resource.Resource) bool {
	return a.Version == b.Version && string(a.Body) == string(b.Body)
}

// allowed answers the configuration that a translation makes together with the static file, and its policies, where the limits allow it.
func (a *Agent) allowed(set envoy.Set, t *envoy.Translation) (*config.Config, map[string]guard.Policy, error) {
	policies, err := a.resolve(t)
	if err != nil {
		return nil, nil, err
	}
	brought := t.Config.WithPolicies(func(name string) string { return Prefix + name })
	static := map[string]bool{}
	for i := range a.static.Clusters {
		static[a.static.Clusters[i].Name] = true
	}
	merged := &config.Config{Listeners: slices.Concat(a.static.Listeners, brought.Listeners), Clusters: slices.Clone(a.static.Clusters)}
	for _, c := range brought.Clusters {
		key := envoy.Key{Type: resource.Cluster, Name: c.Name}
		if _, described := set[key]; static[c.Name] && !described {
			continue // it stands for the static one, to which a route leads
		}
		merged.Clusters = append(merged.Clusters, c)
	}
	err = a.guard.Check(a.static, merged, policies)
	if err == nil && len(merged.Listeners) > 0 { // without one there is nothing wrong, and nothing to do
		err = merged.Check()
	}
	return merged, policies, err
}

// own are the policies of the static file, for the static file.
func (a *Agent) own() map[string]guard.Policy {
	all := map[string]guard.Policy{}
	for name, p := range a.policies {
		all[name] = guard.Policy{Name: name, Layers: []*policy.Policy{p}}
	}
	return all
}

// resolve answers all policies: those of the static file, and under Prefix what resources can refer to, each with the floor below it.
func (a *Agent) resolve(t *envoy.Translation) (map[string]guard.Policy, error) {
	all := a.own()
	stacked := func(p *policy.Policy) []*policy.Policy {
		if a.floor == nil {
			return []*policy.Policy{p}
		}
		return []*policy.Policy{p, a.floor}
	}
	for _, name := range t.Config.Policies() {
		if p := a.policies[name]; p != nil {
			all[Prefix+name] = guard.Policy{Name: name, Layers: stacked(p)}
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t.Policies)) {
		pushed := t.Policies[name]
		files, complete := filesOf(&pushed, t.References)
		if !complete {
			continue // nothing that is in use refers to it
		}
		p, err := a.parse(name, &pushed, files)
		if err != nil {
			errs = append(errs, &problem{envoy.Key{Type: resource.AttestationPolicy, Name: name}, err})
			continue
		}
		all[Prefix+name] = guard.Policy{Name: name, Pushed: true, Layers: stacked(p)}
	}
	return all, errors.Join(errs...)
}

// filesOf answers the files that a policy may name, and whether all sets of them are there.
func filesOf(p *api.Policy, references map[string]api.References) (map[string][]byte, bool) {
	files := maps.Clone(p.Files)
	if files == nil {
		files = map[string][]byte{}
	}
	for _, name := range p.References {
		set, ok := references[name]
		if !ok {
			return nil, false
		}
		maps.Copy(files, set.Files)
	}
	return files, true
}

// parsedPolicy is a policy by what it was parsed of.
type parsedPolicy struct {
	digest [sha256.Size]byte
	policy *policy.Policy
}

// parse reads a policy that was pushed. The same text gives the same *policy.Policy, so that what did not change can be told.
func (a *Agent) parse(name string, pushed *api.Policy, files map[string][]byte) (*policy.Policy, error) {
	h := sha256.New()
	frame := func(b []byte) { fmt.Fprintf(h, "%d:", len(b)); h.Write(b) }
	frame([]byte(pushed.Text))
	for _, file := range slices.Sorted(maps.Keys(files)) {
		frame([]byte(file))
		frame(files[file])
	}
	digest := [sha256.Size]byte(h.Sum(nil))
	if known, ok := a.parsed[name]; ok && known.digest == digest {
		return known.policy, nil
	}
	p, err := policy.Parse(Prefix+name, []byte(pushed.Text), func(file string) ([]byte, error) {
		raw, ok := files[file]
		if !ok {
			return nil, os.ErrNotExist
		}
		return raw, nil
	})
	if err != nil {
		return nil, err
	}
	a.parsed[name] = parsedPolicy{digest, p}
	return p, nil
}
