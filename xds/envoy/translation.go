package envoy

import (
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Key says which resource.
type Key struct{ Type, Name string }

// Set is resources by type and by name, each from one source.
type Set map[Key]resource.Resource

// Add puts r into the set, in place of what has its type and name.
func (s Set) Add(r resource.Resource) { s[Key{r.Type, r.Name}] = r }

// Input is all that a translation depends on.
type Input struct {
	Resources Set
	Policies  []string // the policies of the proxy's own file: an AttestationPolicy can't have one of these names
}

// Translation is what resources mean.
type Translation struct {
	// Config has the listeners and clusters that are complete. It passes Check as soon as it has a listener. Policies
	// are called in it what validators call them. A cluster that a route or a listener names and that no resource
	// describes is there without endpoints: as with Envoy, nothing gets through to it.
	Config config.Config

	// Needs is the names of resources that the others refer to, by type, in order: Endpoints, Route, AttestationPolicy,
	// ReferenceValues, and Secret where a validator can be in it alone, whether they are among the resources or not, but for
	// policies of Input.Policies; and those of Cluster that are not.
	Needs map[string][]string

	Policies   map[string]api.Policy     // those that came, by their names
	References map[string]api.References // those that came, by their names

	// Warming is the listeners and clusters that are not in Config because of what they wait for.
	Warming map[Key][]Key

	// Notes is what was asked for and is carried out in another way than Envoy does it, by place, for people to read.
	Notes map[Key][]string

	// Problems is what is wrong with resources: errors of *attest.Error, joined where there are several, whose Subject
	// is the place, such as "filter_chains[0].filters[1].typed_config.route_config". What a resource with a problem
	// describes is not in Config.
	Problems map[Key]error
}
