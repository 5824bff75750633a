package upstream

import (
	"fmt"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Config of a Cluster, in the words of Envoy's. A zero field takes the default that its comment names; a negative one is
// what the word in its tag says, which is how a file has it (strictyaml.Decode). The first sentence about a type and the
// comments of its fields are also the reference of the configuration file, docs/config.md.
type Config struct {
	Name            string `yaml:"name,required"`                                                   // what routes and listeners call it
	Policy          string `yaml:"lb_policy,one=round_robin|least_request|random|ring_hash|maglev"` // how an endpoint is chosen, default round_robin
	ChoiceCount     int    `yaml:"choice_count"`                                                    // of least_request: how many endpoints are compared, default 2
	MinimumRingSize int    `yaml:"minimum_ring_size"`                                               // of ring_hash: at least so many points, and 128 for an endpoint on average, default 1024
	MaximumRingSize int    `yaml:"maximum_ring_size"`                                               // of ring_hash: at most so many points, default 1048576
	TableSize       int    `yaml:"table_size"`                                                      // of maglev: a prime, default 65537

	// The percentage of healthy endpoints of a priority below which all of them are used, where the other priorities can't
	// take over, default 50
	HealthyPanicThreshold  int  `yaml:"healthy_panic_threshold,negative=never"`
	OverprovisioningFactor int  `yaml:"overprovisioning_factor"` // percent: so much more than its share a priority can take, default 140
	LocalityWeighted       bool `yaml:"locality_weighted_lb"`    // the weights of localities count

	CircuitBreakers  CircuitBreakers   `yaml:"circuit_breakers"`  // bounds
	HealthCheck      *HealthCheck      `yaml:"health_check"`      // endpoints are asked how they are; without it they are healthy
	OutlierDetection *OutlierDetection `yaml:"outlier_detection"` // endpoints are judged by how they answer; without it they are not
}

// LocalityEndpoints is endpoints in one place. Those of one locality and priority are one, with the weight of the first.
type LocalityEndpoints struct {
	Locality  string           `yaml:"locality"`                   // the place; those of one locality and priority are one, with the weight of the first
	Weight    uint32           `yaml:"load_balancing_weight,zero"` // its share with locality_weighted_lb, default nothing
	Priority  uint32           `yaml:"priority,zero"`              // 0 is the first to be used, 127 the last, default 0
	Endpoints []EndpointConfig `yaml:"endpoints"`                  // by their addresses
}

// Identity says whether two endpoints are the same one.
type Identity struct {
	Address   string `yaml:"address,required"` // what is connected to: host:port or unix:/path
	Hostname  string `yaml:"hostname"`         // what it is called, where that matters
	Transport string `yaml:"-"`                // how it is connected to, in the caller's words
}

// EndpointConfig is what is known of an endpoint from configuration.
type EndpointConfig struct {
	Identity  `yaml:",inline"`
	Weight    uint32 `yaml:"load_balancing_weight"` // its share, default 1
	Unhealthy bool   `yaml:"unhealthy"`             // whoever gave it says so
}

// MaxPriority is the last priority to be used.
const MaxPriority = 127

// checker keeps the first value that is not allowed.
type checker struct{ err error }

func (k *checker) bad(at, got, want string) {
	if k.err == nil {
		k.err = &attest.Error{Code: attest.CodeConfigValue, Check: "upstream", Subject: at, Got: got, Want: want}
	}
}

// owned checks that a number is that of the policy which is chosen.
func (k *checker) owned(at string, v int, chosen, policy string) {
	if v != 0 && chosen != policy {
		k.bad(at, strconv.Itoa(v)+" beside lb_policy "+chosen, "lb_policy: "+policy+" beside it")
	}
}

// number puts the default for 0, and checks the range.
func (k *checker) number(at string, v *int, def, least, most int) {
	if *v == 0 {
		*v = def
	}
	if *v < least || *v > most {
		k.bad(at, strconv.Itoa(*v), fmt.Sprintf("%d to %d", least, most))
	}
}

// duration puts the default for 0, and checks that it is not negative.
func (k *checker) duration(at string, d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
	if *d < 0 {
		k.bad(at, d.String(), "a time above 0")
	}
}

// complete answers c with its defaults, checked.
func (c Config) complete() (Config, error) {
	var k checker
	if c.Policy == "" {
		c.Policy = "round_robin"
	}
	if _, ok := policies[c.Policy]; !ok {
		k.bad("lb_policy", strconv.Quote(c.Policy), "round_robin, least_request, random, ring_hash or maglev")
	}
	k.owned("choice_count", c.ChoiceCount, c.Policy, "least_request")
	k.owned("minimum_ring_size", c.MinimumRingSize, c.Policy, "ring_hash")
	k.owned("maximum_ring_size", c.MaximumRingSize, c.Policy, "ring_hash")
	k.owned("table_size", c.TableSize, c.Policy, "maglev")
	k.number("choice_count", &c.ChoiceCount, 2, 2, 16)
	k.number("minimum_ring_size", &c.MinimumRingSize, 1024, 1, 8<<20)
	k.number("maximum_ring_size", &c.MaximumRingSize, max(1<<20, c.MinimumRingSize), c.MinimumRingSize, 8<<20)
	k.number("table_size", &c.TableSize, 65537, 2, 5_000_011)
	if !prime(c.TableSize) {
		k.bad("table_size", strconv.Itoa(c.TableSize), "a prime")
	}
	k.number("healthy_panic_threshold", &c.HealthyPanicThreshold, 50, -1, 100)
	k.number("overprovisioning_factor", &c.OverprovisioningFactor, 140, 100, 100_000)
	c.CircuitBreakers.complete(&k)
	if c.HealthCheck != nil {
		h := *c.HealthCheck
		h.complete(&k)
		c.HealthCheck = &h
	}
	if c.OutlierDetection != nil {
		o := *c.OutlierDetection
		o.complete(&k)
		c.OutlierDetection = &o
	}
	return c, k.err
}

// prime is about numbers above 1.
func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
