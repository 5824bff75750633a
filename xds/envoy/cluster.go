package envoy

//lint:file-ignore SA1019 control planes still send fields that are deprecated

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnscluster "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	clusterprovided "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonlb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequest "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhash "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobin "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	upstreamproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbuffer "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpoptions "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/resource"
)

// collectClusters translates the clusters, with their endpoints.
func (t *translator) collectClusters() {
	for _, r := range t.sorted(resource.Cluster) {
		s := t.scope(Key{r.Type, r.Name})
		m := new(clusterv3.Cluster)
		var c config.Cluster
		var wait []Key
		if s.read(r, m) && s.named(r, m.GetName()) {
			c, wait = s.cluster(m)
		}
		if len(s.errs) == 0 && len(wait) == 0 {
			s.checked(&config.Config{Listeners: []config.Listener{someListener()}, Clusters: []config.Cluster{c}}, "clusters[0]")
		}
		switch key := s.key; {
		case !s.done(), t.out.Problems[key] != nil:
			t.clusters[r.Name] = cluster{wait: []Key{key}}
		case len(wait) > 0:
			t.out.Warming[key] = wait
			t.clusters[r.Name] = cluster{wait: []Key{key}}
		default:
			t.clusters[r.Name] = cluster{config: &c}
		}
	}
}

// cluster is one that resources describe.
type cluster struct {
	config *config.Cluster // nil where it is not complete
	wait   []Key           // for what
}

func (s *scope) cluster(m *clusterv3.Cluster) (config.Cluster, []Key) {
	c := config.Cluster{Config: upstream.Config{Name: m.GetName()}}
	c.ConnectTimeout = s.positive("connect_timeout", m.GetConnectTimeout())
	s.balancing(&c, m)
	s.breakers(&c.CircuitBreakers, m.GetCircuitBreakers())
	s.outliers(&c, m.GetOutlierDetection())
	s.protocol(&c, m)
	s.healthCheck(&c, m.GetHealthChecks())
	for i, f := range m.GetFilters() {
		if f.GetTypedConfig() == nil || s.open(f.GetTypedConfig()) != nil { // what is left are those that are accepted unread
			s.bad(fmt.Sprintf("filters[%d]", i), quote(f.GetName()), "a filter that changes nothing")
		}
	}
	u := &uses{sockets: s.sockets(m)}
	wait := s.discovery(&c, m, u)
	k := u.first
	for i := range u.matches {
		if k == nil && u.matches[i].attested != nil {
			k = &u.matches[i].socket
		}
	}
	if k == nil {
		k = &u.rest
	}
	if k.refused != nil {
		s.within("", k.refused)
	}
	c.ProxyProtocol = k.proxyProtocol
	if k.attested != nil {
		a := *k.attested
		c.Attested = &a
		wait = append(wait, s.policy(a.Require)...)
	}
	c.UnsafePlain = c.Leaves() // the limits say where plaintext may go
	for i := range u.matches {
		wait = append(wait, u.matches[i].wait...)
	}
	return c, unique(append(wait, u.rest.wait...))
}

// sockets reads the transport sockets of a cluster.
func (s *scope) sockets(m *clusterv3.Cluster) *sockets {
	out := &sockets{rest: s.socket("transport_socket", m.GetTransportSocket())}
	for i, tm := range m.GetTransportSocketMatches() {
		at := fmt.Sprintf("transport_socket_matches[%d].transport_socket", i)
		if tm.GetTransportSocket() == nil {
			s.missing(at, "a transport socket")
		}
		out.matches = append(out.matches, match{fields: tm.GetMatch().GetFields(), socket: s.socket(at, tm.GetTransportSocket())})
	}
	return out
}

func (s *scope) socket(at string, k *corev3.TransportSocket) socket {
	if k == nil {
		return socket{}
	}
	if k.GetTypedConfig() == nil {
		if k.GetName() != "envoy.transport_sockets.raw_buffer" {
			s.missing(at+".typed_config", "what the transport socket "+quote(k.GetName())+" is")
		}
		return socket{}
	}
	at += ".typed_config"
	switch m := s.open(k.GetTypedConfig()).(type) {
	case *rawbuffer.RawBuffer:
		return socket{}
	case *tlsv3.UpstreamTlsContext:
		v, wait := s.found(s.tls(at, m.GetCommonTlsContext()))
		switch {
		case len(wait) > 0:
			return socket{wait: wait}
		case v == nil:
			return socket{refused: errNoValidator(at)}
		}
		a := &config.Attested{Require: v.Policy, Name: v.Name, Reattest: v.Reattest}
		if a.Name == "" {
			a.Name = serverName(m.GetSni())
		}
		return socket{attested: a}
	case *upstreamproxy.ProxyProtocolUpstreamTransport:
		if m.GetTransportSocket() == nil {
			s.missing(at+".transport_socket", "a transport socket")
		}
		inner := s.socket(at+".transport_socket", m.GetTransportSocket())
		if inner.proxyProtocol != "" {
			s.bad(at+".transport_socket", "a PROXY header within another one", "raw_buffer or tls")
		}
		switch v := m.GetConfig().GetVersion(); v {
		case corev3.ProxyProtocolConfig_V1:
			inner.proxyProtocol = "v1"
		case corev3.ProxyProtocolConfig_V2:
			inner.proxyProtocol = "v2"
		default:
			s.bad(at+".config.version", v.String(), "V1 or V2")
		}
		return inner
	default:
		s.bad(at, kind(k.GetTypedConfig()), "raw_buffer, tls with a validator, or one of them with a PROXY header before it")
		return socket{}
	}
}

// discovery is where the endpoints come from.
func (s *scope) discovery(c *config.Cluster, m *clusterv3.Cluster, u *uses) []Key {
	typ := m.GetType()
	var dns *dnscluster.DnsCluster
	if custom := m.GetClusterType(); custom != nil {
		var ok bool
		if dns, ok = s.open(custom.GetTypedConfig()).(*dnscluster.DnsCluster); !ok {
			s.bad("cluster_type.typed_config", kind(custom.GetTypedConfig()), "envoy.extensions.clusters.dns.v3.DnsCluster")
			return nil
		}
		if typ = clusterv3.Cluster_STRICT_DNS; dns.GetAllAddressesInSingleEndpoint() {
			typ = clusterv3.Cluster_LOGICAL_DNS
		}
	}
	if m.GetEdsClusterConfig() != nil && typ != clusterv3.Cluster_EDS {
		s.bad("eds_cluster_config", "beside the type "+typ.String(), "the type EDS")
	}
	if m.GetLoadAssignment() != nil && (typ == clusterv3.Cluster_EDS || typ == clusterv3.Cluster_ORIGINAL_DST) {
		s.bad("load_assignment", "beside the type "+typ.String(), "another type")
		return nil
	}
	if m.GetUpstreamBindConfig() != nil && typ != clusterv3.Cluster_ORIGINAL_DST {
		s.bad("upstream_bind_config", "beside the type "+typ.String(), "none, but with ORIGINAL_DST")
	}
	if m.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED && typ != clusterv3.Cluster_ORIGINAL_DST {
		s.bad("lb_policy", "CLUSTER_PROVIDED", "a policy for clusters of the type "+typ.String())
	}
	switch typ {
	case clusterv3.Cluster_STATIC:
		c.Localities = s.localities("load_assignment", m.GetLoadAssignment(), u, false)
		s.overprovisioning("load_assignment", c, m.GetLoadAssignment().GetPolicy().GetOverprovisioningFactor())
	case clusterv3.Cluster_EDS:
		return s.eds(c, m, u)
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		s.overprovisioning("load_assignment", c, m.GetLoadAssignment().GetPolicy().GetOverprovisioningFactor())
		s.names(c, m, dns, typ == clusterv3.Cluster_LOGICAL_DNS, u)
	case clusterv3.Cluster_ORIGINAL_DST:
		if len(u.matches) > 0 {
			s.bad("transport_socket_matches", "beside the type ORIGINAL_DST, whose endpoints have no metadata", "transport_socket")
		}
		u.use(s, "transport_socket", &u.rest)
		c.OriginalDestination = &config.OriginalDestination{UnsafePlain: u.rest.attested == nil && !s.fromLoopback(m.GetUpstreamBindConfig())}
	default:
		s.bad("type", typ.String(), "STATIC, STRICT_DNS, LOGICAL_DNS, EDS or ORIGINAL_DST")
	}
	return nil
}

// fromLoopback reports whether connections come from a loopback address, as those of istio's to the workload beside it
// do: such a connection can't leave the machine.
func (s *scope) fromLoopback(b *corev3.BindConfig) bool {
	if b == nil {
		return false
	}
	a := b.GetSourceAddress()
	ip, err := netip.ParseAddr(a.GetAddress())
	if err != nil || !ip.Unmap().IsLoopback() && ip != netip.MustParseAddr("::6") || a.GetPortValue() != 0 || a.GetProtocol() != corev3.SocketAddress_TCP {
		s.bad("upstream_bind_config.source_address", quote(a.GetAddress()), "a loopback address without a port, which says that this machine is meant")
		return false
	}
	s.note("upstream_bind_config", "where it connects to has to be this machine; what it connects from is not set")
	return true
}

func (s *scope) overprovisioning(at string, c *config.Cluster, factor *wrapperspb.UInt32Value) {
	if factor == nil {
		return
	}
	if v := factor.GetValue(); v == 0 || v > 100_000 {
		s.bad(join(at, "policy.overprovisioning_factor"), strconv.FormatUint(uint64(v), 10), "100 to 100000")
		return
	}
	c.OverprovisioningFactor = int(factor.GetValue())
}

func (s *scope) eds(c *config.Cluster, m *clusterv3.Cluster, u *uses) []Key {
	if m.GetEdsClusterConfig().GetEdsConfig() == nil {
		s.missing("eds_cluster_config.eds_config", "where endpoints come from")
		return nil
	}
	s.source("eds_cluster_config.eds_config", m.GetEdsClusterConfig().GetEdsConfig())
	name := m.GetEdsClusterConfig().GetServiceName()
	if name == "" {
		name = m.GetName()
	}
	key := Key{resource.Endpoints, name}
	s.need(key)
	a, ok := s.assignments[name]
	if !ok {
		return []Key{key}
	}
	if err := s.charge(a.size); err != nil {
		s.within("eds_cluster_config", err)
		return nil
	}
	of := s.scope(key)
	c.Localities = of.localities("", a.ClusterLoadAssignment, u, false)
	of.overprovisioning("", c, a.GetPolicy().GetOverprovisioningFactor())
	if len(of.errs) > 0 {
		s.fail(key, of.errs...)
		return []Key{key}
	}
	return nil
}

// source checks that a resource comes from the control plane.
func (s *scope) source(at string, c *corev3.ConfigSource) {
	if c.GetConfigSourceSpecifier() == nil {
		s.missing(at, "ads")
	}
}

func (s *scope) names(c *config.Cluster, m *clusterv3.Cluster, dns *dnscluster.DnsCluster, logical bool, u *uses) {
	d := &upstream.DNS{}
	if dns != nil {
		d.RefreshRate = s.positive("cluster_type.typed_config.dns_refresh_rate", dns.GetDnsRefreshRate())
		d.Jitter = s.duration("cluster_type.typed_config.dns_jitter", dns.GetDnsJitter(), 0)
		if f := dns.GetDnsFailureRefreshRate(); f != nil {
			s.failureRate("cluster_type.typed_config.dns_failure_refresh_rate", d, f.GetBaseInterval(), f.GetMaxInterval())
		}
		d.Family = s.family("cluster_type.typed_config.dns_lookup_family", dns.GetDnsLookupFamily().String())
		s.resolver("cluster_type.typed_config.typed_dns_resolver_config", dns.GetTypedDnsResolverConfig())
	} else {
		d.RefreshRate = s.positive("dns_refresh_rate", m.GetDnsRefreshRate())
		d.Jitter = s.duration("dns_jitter", m.GetDnsJitter(), 0)
		if f := m.GetDnsFailureRefreshRate(); f != nil {
			s.failureRate("dns_failure_refresh_rate", d, f.GetBaseInterval(), f.GetMaxInterval())
		}
		d.Family = s.family("dns_lookup_family", m.GetDnsLookupFamily().String())
	}
	s.resolver("typed_dns_resolver_config", m.GetTypedDnsResolverConfig())
	localities := s.localities("load_assignment", m.GetLoadAssignment(), u, true)
	n := 0
	for i, l := range localities {
		n += len(l.Endpoints)
		for j, e := range l.Endpoints {
			at := fmt.Sprintf("load_assignment.endpoints[%d].lb_endpoints[%d]", i, j)
			host, port, err := splitAddress(e.Address)
			switch {
			case err != nil:
				s.bad(at+".endpoint.address", e.Address, "a name and a port")
				continue
			case e.Unhealthy:
				s.bad(at+".health_status", "one that is not healthy", "HEALTHY or none: what is resolved is judged by health checks")
			case !logical && e.Hostname != "" && e.Hostname != host:
				s.bad(at+".endpoint.hostname", quote(e.Hostname), "the name in the address, or none")
			}
			d.Names = append(d.Names, upstream.DNSName{
				Host: host, Port: port, Weight: e.Weight, Priority: l.Priority, Locality: l.Locality, LocalityWeight: l.Weight,
			})
		}
	}
	switch {
	case n == 0:
		s.missing("load_assignment", "an endpoint with a name")
	case logical && n != 1:
		s.bad("load_assignment", strconv.Itoa(n)+" endpoints", "one, as LOGICAL_DNS has")
	case logical && d.Family == "all":
		// Resolved anew with every connection, which goes to the first address that answers.
		c.Localities = localities
	default:
		c.DNS = d
	}
}

func splitAddress(address string) (string, uint16, error) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.HasPrefix(address, "unix:") {
		return "", 0, strconv.ErrSyntax
	}
	port, err := strconv.ParseUint(address[i+1:], 10, 16)
	return strings.Trim(address[:i], "[]"), uint16(port), err
}

func (s *scope) failureRate(at string, d *upstream.DNS, base, most *durationpb.Duration) {
	d.FailureBase, d.FailureMax = s.positive(at+".base_interval", base), s.positive(at+".max_interval", most)
}

func (s *scope) family(at, name string) string {
	switch name {
	case "AUTO", "ALL", "V4_PREFERRED", "UNSPECIFIED":
		return "all"
	case "V4_ONLY":
		return "v4_only"
	case "V6_ONLY":
		return "v6_only"
	}
	s.bad(at, name, "AUTO, ALL, V4_PREFERRED, V4_ONLY or V6_ONLY")
	return ""
}

// resolver takes note that the system's resolver is asked instead of another one. Whom to ask can't be said: look refuses that.
func (s *scope) resolver(at string, c *corev3.TypedExtensionConfig) {
	if c == nil {
		return
	}
	if _, ok := s.open(c.GetTypedConfig()).(*caresv3.CaresDnsResolverConfig); !ok {
		s.bad(at+".typed_config", kind(c.GetTypedConfig()), "none: the system's resolver is asked")
		return
	}
	s.note(at, "the system's resolver is asked")
}

func (s *scope) balancing(c *config.Cluster, m *clusterv3.Cluster) {
	switch p := m.GetLbPolicy(); p {
	case clusterv3.Cluster_ROUND_ROBIN, clusterv3.Cluster_CLUSTER_PROVIDED:
	case clusterv3.Cluster_LEAST_REQUEST:
		c.Policy = "least_request"
	case clusterv3.Cluster_RANDOM:
		c.Policy = "random"
	case clusterv3.Cluster_RING_HASH:
		c.Policy = "ring_hash"
	case clusterv3.Cluster_MAGLEV:
		c.Policy = "maglev"
	case clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG:
		if m.GetLoadBalancingPolicy() == nil {
			s.missing("load_balancing_policy", "the policy that lb_policy refers to")
		}
	default:
		if p != 4 || m.GetType() != clusterv3.Cluster_ORIGINAL_DST { // 4 was ORIGINAL_DST_LB
			s.bad("lb_policy", p.String(), "ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV")
		}
	}
	switch l := m.GetLbConfig().(type) {
	case nil:
	case *clusterv3.Cluster_LeastRequestLbConfig_:
		s.owned("least_request_lb_config", c, "least_request")
		c.ChoiceCount = s.size("least_request_lb_config.choice_count", l.LeastRequestLbConfig.GetChoiceCount())
	case *clusterv3.Cluster_RingHashLbConfig_:
		s.owned("ring_hash_lb_config", c, "ring_hash")
		c.MinimumRingSize = s.size64("ring_hash_lb_config.minimum_ring_size", l.RingHashLbConfig.GetMinimumRingSize())
		c.MaximumRingSize = s.size64("ring_hash_lb_config.maximum_ring_size", l.RingHashLbConfig.GetMaximumRingSize())
	case *clusterv3.Cluster_MaglevLbConfig_:
		s.owned("maglev_lb_config", c, "maglev")
		c.TableSize = s.size64("maglev_lb_config.table_size", l.MaglevLbConfig.GetTableSize())
	case *clusterv3.Cluster_RoundRobinLbConfig_:
		s.owned("round_robin_lb_config", c, "")
	}
	if common := m.GetCommonLbConfig(); common != nil {
		c.LocalityWeighted = common.GetLocalityWeightedLbConfig() != nil
		if p := common.GetHealthyPanicThreshold(); p != nil {
			c.HealthyPanicThreshold = s.percent("common_lb_config.healthy_panic_threshold", p.GetValue())
		}
	}
	if p := m.GetLoadBalancingPolicy(); p != nil {
		if len(p.GetPolicies()) == 0 {
			s.missing("load_balancing_policy.policies", "a policy")
			return
		}
		// The first that is known is taken, and all of them are.
		s.policyOf("load_balancing_policy.policies[0].typed_extension_config.typed_config", c, p.GetPolicies()[0].GetTypedExtensionConfig().GetTypedConfig())
	}
}

// owned checks that parameters are of the policy that is chosen.
func (s *scope) owned(at string, c *config.Cluster, policy string) {
	if c.Policy != policy {
		s.bad(at, "beside another lb_policy", "the lb_policy that it is of")
	}
}

func (s *scope) policyOf(at string, c *config.Cluster, a *anypb.Any) {
	locality := func(l *commonlb.LocalityLbConfig) {
		c.LocalityWeighted = c.LocalityWeighted || l.GetLocalityWeightedLbConfig() != nil
	}
	c.ChoiceCount, c.MinimumRingSize, c.MaximumRingSize, c.TableSize = 0, 0, 0, 0
	switch p := s.open(a).(type) {
	case *leastrequest.LeastRequest:
		c.Policy, c.ChoiceCount = "least_request", s.size(at+".choice_count", p.GetChoiceCount())
		locality(p.GetLocalityLbConfig())
	case *roundrobin.RoundRobin:
		c.Policy = ""
		locality(p.GetLocalityLbConfig())
	case *randomv3.Random:
		c.Policy = "random"
		locality(p.GetLocalityLbConfig())
	case *ringhash.RingHash:
		c.Policy = "ring_hash"
		c.MinimumRingSize = s.size64(at+".minimum_ring_size", p.GetMinimumRingSize())
		c.MaximumRingSize = s.size64(at+".maximum_ring_size", p.GetMaximumRingSize())
		c.LocalityWeighted = c.LocalityWeighted || p.GetLocalityWeightedLbConfig() != nil
	case *maglevv3.Maglev:
		c.Policy, c.TableSize = "maglev", s.size64(at+".table_size", p.GetTableSize())
		c.LocalityWeighted = c.LocalityWeighted || p.GetLocalityWeightedLbConfig() != nil
	case *clusterprovided.ClusterProvided:
		c.Policy = ""
	default:
		s.bad(at, kind(a), "round_robin, least_request, random, ring_hash or maglev")
	}
}

func (s *scope) size(at string, v *wrapperspb.UInt32Value) int {
	if v == nil {
		return 0
	}
	return s.whole(at, uint64(v.GetValue()))
}

func (s *scope) size64(at string, v *wrapperspb.UInt64Value) int {
	if v == nil {
		return 0
	}
	return s.whole(at, v.GetValue())
}

// whole answers a number above 0: 0 in the configuration is the default.
func (s *scope) whole(at string, v uint64) int {
	if v == 0 || v > math.MaxInt32 {
		s.bad(at, strconv.FormatUint(v, 10), fmt.Sprintf("1 to %d", math.MaxInt32))
		return 0
	}
	return int(v)
}

// percent answers a percentage where 0 means never, as -1.
func (s *scope) percent(at string, v float64) int {
	switch {
	case v == 0:
		return -1
	case !(v >= 1 && v <= 100) || v != math.Trunc(v):
		s.bad(at, strconv.FormatFloat(v, 'g', -1, 64), "a whole number from 0 to 100")
		return 0
	}
	return int(v)
}

func (s *scope) breakers(b *upstream.CircuitBreakers, m *clusterv3.CircuitBreakers) {
	seen := false
	for i, t := range m.GetThresholds() {
		at := fmt.Sprintf("circuit_breakers.thresholds[%d]", i)
		switch p := t.GetPriority(); {
		case p == corev3.RoutingPriority_HIGH:
			continue // of routes that are refused
		case p != corev3.RoutingPriority_DEFAULT:
			s.bad(at+".priority", p.String(), "DEFAULT")
			continue
		case seen:
			continue // the first counts
		}
		seen = true
		bound := func(name string, v *wrapperspb.UInt32Value) int {
			switch {
			case v == nil:
				return 0
			case v.GetValue() >= math.MaxInt32: // Istio's word for it is 4294967295
				return -1
			}
			return s.whole(at+"."+name, uint64(v.GetValue()))
		}
		b.MaxConnections = bound("max_connections", t.GetMaxConnections())
		b.MaxPendingRequests = bound("max_pending_requests", t.GetMaxPendingRequests())
		b.MaxRequests = bound("max_requests", t.GetMaxRequests())
		b.MaxRetries = bound("max_retries", t.GetMaxRetries())
		if r := t.GetRetryBudget(); r != nil {
			b.RetryBudget = &upstream.RetryBudget{
				Percent:             r.GetBudgetPercent().GetValue(),
				MinRetryConcurrency: s.size(at+".retry_budget.min_retry_concurrency", r.GetMinRetryConcurrency()),
			}
			if r.GetBudgetPercent() != nil && !(b.RetryBudget.Percent > 0) {
				s.bad(at+".retry_budget.budget_percent", "0", "above 0, at most 100")
			}
		}
	}
}

func (s *scope) outliers(c *config.Cluster, m *clusterv3.OutlierDetection) {
	if m == nil {
		return
	}
	const at = "outlier_detection."
	o := &upstream.OutlierDetection{SplitExternalLocalOriginErrors: m.GetSplitExternalLocalOriginErrors()}
	c.OutlierDetection = o
	// enforced is whether a cause ejects: always or never.
	enforced := func(name string, v *wrapperspb.UInt32Value, otherwise bool) bool {
		if v == nil {
			return otherwise
		}
		if n := v.GetValue(); n != 0 && n != 100 {
			s.bad(at+name, strconv.FormatUint(uint64(n), 10), "0 or 100")
		}
		return v.GetValue() == 100
	}
	o.Consecutive5xx = s.size(at+"consecutive_5xx", m.GetConsecutive_5Xx())
	if !enforced("enforcing_consecutive_5xx", m.GetEnforcingConsecutive_5Xx(), true) {
		o.Consecutive5xx = -1
	}
	if enforced("enforcing_consecutive_gateway_failure", m.GetEnforcingConsecutiveGatewayFailure(), false) {
		if o.ConsecutiveGatewayFailure = s.size(at+"consecutive_gateway_failure", m.GetConsecutiveGatewayFailure()); o.ConsecutiveGatewayFailure == 0 {
			o.ConsecutiveGatewayFailure = 5
		}
	}
	o.ConsecutiveLocalOriginFailure = s.size(at+"consecutive_local_origin_failure", m.GetConsecutiveLocalOriginFailure())
	if !enforced("enforcing_consecutive_local_origin_failure", m.GetEnforcingConsecutiveLocalOriginFailure(), true) {
		o.ConsecutiveLocalOriginFailure = -1
	}
	o.SuccessRateMinimumHosts = s.size(at+"success_rate_minimum_hosts", m.GetSuccessRateMinimumHosts())
	o.SuccessRateRequestVolume = s.size(at+"success_rate_request_volume", m.GetSuccessRateRequestVolume())
	o.SuccessRateStdevFactor = s.size(at+"success_rate_stdev_factor", m.GetSuccessRateStdevFactor())
	if !enforced("enforcing_success_rate", m.GetEnforcingSuccessRate(), true) {
		o.SuccessRateMinimumHosts = -1
	}
	if enforced("enforcing_failure_percentage", m.GetEnforcingFailurePercentage(), false) {
		s.bad(at+"enforcing_failure_percentage", "100", "0: ejecting by percentage can't be carried out")
	}
	o.Interval = s.positive(at+"interval", m.GetInterval())
	o.BaseEjectionTime = s.positive(at+"base_ejection_time", m.GetBaseEjectionTime())
	o.MaxEjectionTime = s.positive(at+"max_ejection_time", m.GetMaxEjectionTime())
	if p := m.GetMaxEjectionPercent(); p != nil {
		o.MaxEjectionPercent = s.percent(at+"max_ejection_percent", float64(p.GetValue()))
	}
}

func (s *scope) protocol(c *config.Cluster, m *clusterv3.Cluster) {
	if m.GetHttp2ProtocolOptions() != nil {
		c.Protocol = "http2"
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetTypedExtensionProtocolOptions())) {
		a := m.GetTypedExtensionProtocolOptions()[name]
		at := "typed_extension_protocol_options[" + cut(strconv.Quote(name)) + "]"
		o, ok := s.open(a).(*httpoptions.HttpProtocolOptions)
		if !ok {
			s.bad(at, kind(a), "envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
			continue
		}
		if o.GetCommonHttpProtocolOptions().GetIdleTimeout() != nil {
			s.note(at+".common_http_protocol_options.idle_timeout", "connections to a service are kept as long as the service keeps them")
		}
		switch p := o.GetUpstreamProtocolOptions().(type) {
		case *httpoptions.HttpProtocolOptions_ExplicitHttpConfig_:
			switch p.ExplicitHttpConfig.GetProtocolConfig().(type) {
			case *httpoptions.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions:
				c.Protocol = "http1"
			case *httpoptions.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
				c.Protocol = "http2"
			default:
				s.missing(at+".explicit_http_config", "http_protocol_options or http2_protocol_options")
			}
		case *httpoptions.HttpProtocolOptions_UseDownstreamProtocolConfig, *httpoptions.HttpProtocolOptions_AutoConfig:
			c.Protocol = "auto"
		default:
			s.missing(at, "explicit_http_config, use_downstream_protocol_config or auto_config")
		}
	}
}

func (s *scope) healthCheck(c *config.Cluster, checks []*corev3.HealthCheck) {
	if len(checks) == 0 {
		return
	}
	if len(checks) > 1 {
		s.bad("health_checks", strconv.Itoa(len(checks)), "at most one")
		return
	}
	const at = "health_checks[0]"
	m := checks[0]
	h := &upstream.HealthCheck{
		Timeout:            s.positive(at+".timeout", m.GetTimeout()),
		Interval:           s.positive(at+".interval", m.GetInterval()),
		UnhealthyInterval:  s.positive(at+".unhealthy_interval", m.GetUnhealthyInterval()),
		IntervalJitter:     s.duration(at+".interval_jitter", m.GetIntervalJitter(), 0),
		HealthyThreshold:   s.size(at+".healthy_threshold", m.GetHealthyThreshold()),
		UnhealthyThreshold: s.size(at+".unhealthy_threshold", m.GetUnhealthyThreshold()),
	}
	c.HealthCheck = h
	switch k := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		s.httpCheck(at+".http_health_check", c, h, k.HttpHealthCheck)
	case *corev3.HealthCheck_TcpHealthCheck_:
		h.Kind = "tcp"
	case *corev3.HealthCheck_GrpcHealthCheck_:
		h.Kind, h.Service, h.Host = "grpc", k.GrpcHealthCheck.GetServiceName(), k.GrpcHealthCheck.GetAuthority()
	default:
		s.missing(at, "http_health_check, tcp_health_check or grpc_health_check")
	}
}

func (s *scope) httpCheck(at string, c *config.Cluster, h *upstream.HealthCheck, m *corev3.HealthCheck_HttpHealthCheck) {
	h.Kind, h.Path, h.Host = "http", m.GetPath(), m.GetHost()
	for i, r := range m.GetExpectedStatuses() {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			s.bad(fmt.Sprintf("%s.expected_statuses[%d]", at, i), fmt.Sprintf("%d to %d", r.GetStart(), r.GetEnd()), "a range within 100 to 600")
			continue
		}
		h.ExpectedStatuses = append(h.ExpectedStatuses, upstream.Status{Start: int(r.GetStart()), End: int(r.GetEnd())})
	}
	if v := m.GetMethod(); v != corev3.RequestMethod_METHOD_UNSPECIFIED && v != corev3.RequestMethod_GET {
		s.bad(at+".method", v.String(), "GET")
	}
	if v := m.GetCodecClientType(); v != 0 && c.Protocol != "http2" {
		s.bad(at+".codec_client_type", v.String(), "the protocol of the cluster")
	}
}

// unique answers keys in order, each once.
func unique(keys []Key) []Key {
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys)
}

// someListener makes a configuration of clusters alone one that can be checked.
func someListener() config.Listener {
	return config.Listener{Address: "127.0.0.1:1", Serving: config.Serving{To: "127.0.0.1:2", Plain: true}}
}
