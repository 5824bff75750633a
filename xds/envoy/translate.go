package envoy

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/resource"
)

// nowhere is the cluster, without endpoints, of connections that are refused. Resources can't have its name: a control plane
// would say what is refused.
const nowhere = "jurat:nowhere"

// Translate says what resources mean. It answers the same for the same input, whatever order that was made in.
func Translate(in Input) *Translation { return translate(in, nil) }

// translate lets a test change the rules.
func translate(in Input, edit func(*translator)) *Translation {
	t := &translator{
		most: maxTotal, in: in, known: types(), table: rules(),
		out: &Translation{
			Needs: map[string][]string{}, Policies: map[string]api.Policy{}, References: map[string]api.References{},
			Warming: map[Key][]Key{}, Notes: map[Key][]string{}, Problems: map[Key]error{},
		},
		secrets: map[string]*api.Validator{}, assignments: map[string]assignment{},
		clusters: map[string]cluster{}, routes: map[string]rds{}, synthetic: map[string]bool{},
	}
	if edit != nil {
		edit(t)
	}
	t.collectPolicies()
	t.collectSecrets()
	t.collectEndpoints()
	t.collectClusters()
	t.collectRoutes()
	t.collectListeners()
	for _, name := range slices.Sorted(maps.Keys(t.clusters)) {
		if c := t.clusters[name].config; c != nil {
			t.out.Config.Clusters = append(t.out.Config.Clusters, *c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.synthetic)) {
		t.out.Config.Clusters = append(t.out.Config.Clusters, emptyCluster(name))
	}
	for _, names := range t.out.Needs {
		slices.Sort(names)
	}
	return t.out
}

type translator struct {
	in    Input
	known *protoregistry.Types
	table *table
	out   *Translation

	secrets     map[string]*api.Validator // nil of those without one
	assignments map[string]assignment
	clusters    map[string]cluster
	routes      map[string]rds
	synthetic   map[string]bool // clusters that are named, and that no resource describes
	total, most int             // messages that something was made of, and may be
	blind       bool            // of some listener it is not even known which connections would be its
}

// sorted answers the resources of a type, in order of their names.
func (t *translator) sorted(typ string) []resource.Resource {
	var all []resource.Resource
	for k, r := range t.in.Resources {
		if k.Type == typ {
			r.Type, r.Name = k.Type, k.Name
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b resource.Resource) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func compareKeys(a, b Key) int {
	return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
}

// named checks that a resource calls itself what it was called on its way: others would refer to another one.
func (s *scope) named(r resource.Resource, name string) bool {
	if name != r.Name {
		s.bad("name", quote(name), quote(r.Name)+", as the resource is called")
		return false
	}
	if name == nowhere {
		s.bad("name", quote(name), "another name")
		return false
	}
	return true
}

// need says that a resource is referred to.
func (t *translator) need(key Key) {
	if !slices.Contains(t.out.Needs[key.Type], key.Name) {
		t.out.Needs[key.Type] = append(t.out.Needs[key.Type], key.Name)
	}
}

// fail says what is wrong with a resource.
func (t *translator) fail(key Key, errs ...error) {
	if old := t.out.Problems[key]; old != nil {
		errs = append([]error{old}, errs...)
	}
	t.out.Problems[key] = errors.Join(errs...)
}

// checked adds what config.Check says about a configuration of one thing, which stands at a place.
func (s *scope) checked(c *config.Config, at string) { s.relative(c.Check(), at) }

func (s *scope) relative(err error, at string) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			s.relative(e, at)
		}
		return
	}
	var coded *attest.Error
	if errors.As(err, &coded) {
		e := *coded
		e.Subject = strings.TrimPrefix(strings.TrimPrefix(e.Subject, at), ".")
		s.add(&e)
	}
}

// collectPolicies reads policies and reference values.
func (t *translator) collectPolicies() {
	for _, r := range t.sorted(resource.ReferenceValues) {
		s := t.scope(Key{r.Type, r.Name})
		v, err := api.DecodeReferences(r.Type, r.Body)
		s.within("", err)
		if err == nil && s.named(r, v.Name) {
			t.out.References[r.Name] = v
		}
		s.done()
	}
	for _, r := range t.sorted(resource.AttestationPolicy) {
		s := t.scope(Key{r.Type, r.Name})
		p, err := api.DecodePolicy(r.Type, r.Body)
		s.within("", err)
		if err == nil && s.named(r, p.Name) {
			if slices.Contains(t.in.Policies, p.Name) {
				s.bad("name", quote(p.Name), "a name that no policy of the proxy's own file has")
			}
			s.files(&p)
		}
		if s.done() {
			t.out.Policies[r.Name] = p
		}
	}
}

// files checks that a file of a policy is there once.
func (s *scope) files(p *api.Policy) {
	seen := map[string]bool{}
	for name := range p.Files {
		seen[name] = true
	}
	for _, set := range p.References {
		s.need(Key{resource.ReferenceValues, set})
		for _, name := range slices.Sorted(maps.Keys(s.out.References[set].Files)) {
			if seen[name] {
				s.bad("reference_values", "the file "+quote(name)+" of "+quote(set)+" once more", "files of different names")
			}
			seen[name] = true
		}
	}
}

// policy says that a policy is referred to, and answers what has to be waited for.
func (t *translator) policy(name string) []Key {
	if slices.Contains(t.in.Policies, name) {
		return nil
	}
	key := Key{resource.AttestationPolicy, name}
	t.need(key)
	p, ok := t.out.Policies[name]
	if !ok {
		return []Key{key}
	}
	var wait []Key
	for _, set := range p.References {
		if _, ok := t.out.References[set]; !ok {
			wait = append(wait, Key{resource.ReferenceValues, set})
		}
	}
	return wait
}

// emptyCluster is one that nothing gets through to.
func emptyCluster(name string) config.Cluster {
	return config.Cluster{Config: upstream.Config{Name: name}, Localities: []upstream.LocalityEndpoints{}}
}

// brief is what listeners have to know of a cluster: the rest was checked.
func (c *cluster) brief() config.Cluster {
	out := emptyCluster(c.config.Name)
	out.Attested, out.ProxyProtocol = c.config.Attested, c.config.ProxyProtocol
	if c.config.OriginalDestination != nil {
		out.Localities, out.OriginalDestination = nil, c.config.OriginalDestination
	}
	return out
}

// forTable is a configuration that routes can be checked in by themselves: every cluster that they name is there, and copies
// may go anywhere. What the clusters are is checked where the routes are used.
func (t *translator) forTable(r *route.Config) *config.Config {
	c := new(config.Config)
	for _, name := range clustersOf(&config.Listener{Serving: config.Serving{HTTP: r}}) {
		c.Clusters = append(c.Clusters, emptyCluster(name))
	}
	return c
}

// clustersOf answers the clusters that a listener names, each once, in order.
func clustersOf(l *config.Listener) []string {
	names := l.Serving.Clusters()
	for i := range l.Chains {
		names = append(names, l.Chains[i].Serving.Clusters()...)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// fits checks a listener beside the clusters that it names. It answers those that it has to wait for, and those that no resource
// describes.
func (s *scope) fits(l *config.Listener) (wait []Key, absent []string) {
	c := &config.Config{Listeners: []config.Listener{*l}}
	for _, name := range clustersOf(l) {
		known, ok := s.clusters[name]
		switch {
		case ok && known.config == nil:
			wait = append(wait, known.wait...)
		case ok:
			c.Clusters = append(c.Clusters, known.brief())
		default:
			absent = append(absent, name)
			c.Clusters = append(c.Clusters, emptyCluster(name))
			if name != nowhere {
				s.need(Key{resource.Cluster, name})
			}
		}
	}
	if len(wait) == 0 {
		s.checked(c, "listen[0]")
	}
	return unique(wait), absent
}

// admit makes a listener part of the configuration, or says what keeps it from that.
func (t *translator) admit(key Key, l *config.Listener) {
	s := t.scope(key)
	wait, absent := s.fits(l)
	for i := range t.out.Config.Listeners {
		if other := &t.out.Config.Listeners[i]; other.Address == l.Address {
			s.bad("address", l.Address, "an address that no other listener has, as "+quote(other.Name)+" does")
		}
	}
	switch {
	case len(s.errs) > 0:
		t.fail(key, s.errs...)
	case len(wait) > 0:
		t.out.Warming[key] = wait
	default:
		t.out.Config.Listeners = append(t.out.Config.Listeners, *l)
		for _, name := range absent {
			t.synthetic[name] = true
		}
	}
}
