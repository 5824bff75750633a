package upstream

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// DNS says which names the endpoints of a cluster have (Envoy's STRICT_DNS: every address is an endpoint).
type DNS struct {
	Names       []DNSName     `yaml:"names,required"`                            // with all of their addresses
	RefreshRate time.Duration `yaml:"dns_refresh_rate"`                          // from one answer to the next question: the resolver of the system tells no TTL, default 5 s
	Jitter      time.Duration `yaml:"dns_jitter,zero"`                           // up to this is added each time, default none
	FailureBase time.Duration `yaml:"dns_failure_base_interval"`                 // doubles with each failure in a row, and half of that to all of it is waited, default RefreshRate
	FailureMax  time.Duration `yaml:"dns_failure_max_interval"`                  // the most it doubles to, default 10 times the base
	Timeout     time.Duration `yaml:"dns_timeout"`                               // of one question, default 5 s
	Family      string        `yaml:"dns_lookup_family,one=all|v4_only|v6_only"` // default all
}

// DNSName stands for as many endpoints as it has addresses.
type DNSName struct {
	Host           string `yaml:"host,required"`         // the name
	Port           uint16 `yaml:"port,required"`         // at each address
	Transport      string `yaml:"-"`                     // as Identity has it
	Weight         uint32 `yaml:"load_balancing_weight"` // the share of each address, default 1
	Priority       uint32 `yaml:"priority,zero"`         // 0 is the first to be used, 127 the last, default 0
	Locality       string `yaml:"locality"`              // the place
	LocalityWeight uint32 `yaml:"locality_weight,zero"`  // the place's share with locality_weighted_lb, default nothing
}

// Resolver finds the addresses of a host; network is "ip", "ip4" or "ip6". A net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Resolution keeps the addresses of names.
type Resolution struct {
	config   DNS
	network  string
	resolver Resolver
	update   func([]LocalityEndpoints)

	mu     sync.Mutex // for what follows, and held while update runs
	random func() uint64
	known  [][]netip.Addr // the last answer for each name that was not empty
}

// NewResolution checks config. update gets all endpoints whenever some address has changed, one call at a time. The error
// is an *attest.Error that names what is not allowed.
func NewResolution(config DNS, resolver Resolver, random func() uint64, update func([]LocalityEndpoints)) (*Resolution, error) {
	var k checker
	k.duration("dns_refresh_rate", &config.RefreshRate, 5*time.Second)
	k.duration("dns_jitter", &config.Jitter, 0)
	k.duration("dns_failure_base_interval", &config.FailureBase, config.RefreshRate)
	k.duration("dns_failure_max_interval", &config.FailureMax, 10*config.FailureBase)
	k.duration("dns_timeout", &config.Timeout, 5*time.Second)
	if config.FailureMax < config.FailureBase {
		k.bad("dns_failure_max_interval", config.FailureMax.String(), "at least the base interval of "+config.FailureBase.String())
	}
	network := map[string]string{"": "ip", "all": "ip", "v4_only": "ip4", "v6_only": "ip6"}[config.Family]
	if network == "" {
		k.bad("dns_lookup_family", strconv.Quote(config.Family), "all, v4_only or v6_only")
	}
	for i, n := range config.Names {
		at := fmt.Sprintf("names[%d].", i)
		switch {
		case n.Host == "":
			k.bad(at+"host", `""`, "a host")
		case n.Port == 0:
			k.bad(at+"port", "0", "1 to 65535")
		case n.Priority > MaxPriority:
			k.bad(at+"priority", strconv.FormatUint(uint64(n.Priority), 10), "0 to 127")
		}
	}
	if k.err != nil {
		return nil, k.err
	}
	config.Names = slices.Clone(config.Names)
	return &Resolution{config: config, network: network, resolver: resolver, update: update, random: random, known: make([][]netip.Addr, len(config.Names))}, nil
}

// Run asks for every name until ctx ends.
func (r *Resolution) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range r.config.Names {
		all.Go(func() {
			for failures := 0; ; {
				if r.ask(ctx, i) {
					failures = 0
				} else {
					failures++
				}
				if !sleep(ctx, r.wait(failures), nil) {
					return
				}
			}
		})
	}
	all.Wait()
}

// ask asks for one name. Without an answer, or with an empty one, the addresses stay what they were.
func (r *Resolution) ask(ctx context.Context, i int) bool {
	within, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	addresses, err := r.resolver.LookupNetIP(within, r.network, r.config.Names[i].Host)
	if err != nil || len(addresses) == 0 {
		return false
	}
	addresses = slices.Clone(addresses)
	for i, a := range addresses {
		addresses[i] = a.Unmap()
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	addresses = slices.Compact(addresses)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(addresses, r.known[i]) {
		r.known[i] = addresses
		r.update(r.endpoints())
	}
	return true
}

func (r *Resolution) endpoints() []LocalityEndpoints {
	var all []LocalityEndpoints
	for i, n := range r.config.Names {
		l := LocalityEndpoints{Locality: n.Locality, Weight: n.LocalityWeight, Priority: n.Priority}
		for _, a := range r.known[i] {
			l.Endpoints = append(l.Endpoints, EndpointConfig{
				Identity: Identity{Address: netip.AddrPortFrom(a, n.Port).String(), Hostname: n.Host, Transport: n.Transport},
				Weight:   n.Weight,
			})
		}
		all = append(all, l)
	}
	return all
}

// wait answers how long it is to the next question.
func (r *Resolution) wait(failures int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	up := func(to time.Duration) time.Duration { return time.Duration(below(r.random(), uint64(to)+1)) }
	if failures == 0 {
		return r.config.RefreshRate + up(r.config.Jitter)
	}
	d := r.config.FailureBase
	for range failures - 1 {
		if d >= r.config.FailureMax/2 {
			d = r.config.FailureMax
			break
		}
		d *= 2
	}
	return d/2 + up(d-d/2)
}
