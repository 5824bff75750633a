package envoy

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/resource"
)

// socket is how endpoints are connected to.
type socket struct {
	attested      *config.Attested // nil is plaintext
	proxyProtocol string
	refused       error // it can't be carried out: an error once something would go over it
	wait          []Key
}

// sockets is the transport sockets of a cluster.
type sockets struct {
	matches []match
	rest    socket // of endpoints that no match is for
}

type match struct {
	fields map[string]*structpb.Value
	socket
}

// attests reports whether any of them demands evidence.
func (s *sockets) attests() bool {
	for i := range s.matches {
		if s.matches[i].attested != nil {
			return true
		}
	}
	return s.rest.attested != nil
}

// choose answers the socket of an endpoint: of the first match that its metadata meets.
func (s *sockets) choose(endpoint, locality *corev3.Metadata) *socket {
	const key = "envoy.transport_socket_match"
	of := endpoint.GetFilterMetadata()[key]
	if of == nil {
		of = locality.GetFilterMetadata()[key]
	}
	for i := range s.matches {
		met := true
		for name, want := range s.matches[i].fields {
			got := of.GetFields()[name]
			met = met && got != nil && proto.Equal(got, want)
		}
		if met {
			return &s.matches[i].socket
		}
	}
	return &s.rest
}

// uses is which sockets of a cluster its endpoints use. All of them have to be alike: what an endpoint has to prove is said
// for the whole cluster.
type uses struct {
	*sockets
	first *socket
}

// use adds an endpoint. In a cluster that demands evidence of any endpoint, none gets plaintext, whatever its metadata
// say: those are the words of whoever runs the control plane.
func (u *uses) use(s *scope, at string, k *socket) {
	switch {
	case len(k.wait) > 0: // so does the cluster
	case k.refused != nil:
		s.within(at, k.refused)
	case k.attested == nil && u.attests():
		s.bad(at, "an endpoint that would be connected to in plain, in a cluster that demands evidence",
			"metadata that choose the transport socket with the validator")
	case u.first != nil && !alike(u.first, k):
		s.bad(at, "an endpoint that has to prove something else than others of the cluster", "one validator for all endpoints")
	case u.first == nil:
		u.first = k
	}
}

func alike(a, b *socket) bool {
	return a.proxyProtocol == b.proxyProtocol && reflect.DeepEqual(a.attested, b.attested)
}

// collectEndpoints reads the assignments. What endpoints are in depends on the cluster, too.
func (t *translator) collectEndpoints() {
	for _, r := range t.sorted(resource.Endpoints) {
		s := t.scope(Key{r.Type, r.Name})
		m := new(endpointv3.ClusterLoadAssignment)
		if s.read(r, m) && s.named(r, m.GetClusterName()) {
			s.localities("", m, &uses{sockets: new(sockets)}, false)
		}
		if s.done() {
			t.assignments[r.Name] = assignment{m, s.weight}
		}
	}
}

// assignment is a sound one, and its size in messages.
type assignment struct {
	*endpointv3.ClusterLoadAssignment
	size int
}

// localities are those of an assignment. names allows hosts in addresses.
func (s *scope) localities(at string, a *endpointv3.ClusterLoadAssignment, u *uses, names bool) []upstream.LocalityEndpoints {
	all := []upstream.LocalityEndpoints{}
	for i, l := range a.GetEndpoints() {
		at := join(at, fmt.Sprintf("endpoints[%d]", i))
		if l.GetPriority() > upstream.MaxPriority {
			s.bad(at+".priority", strconv.FormatUint(uint64(l.GetPriority()), 10), fmt.Sprintf("0 to %d", upstream.MaxPriority))
		}
		out := upstream.LocalityEndpoints{Locality: locality(l.GetLocality()), Weight: l.GetLoadBalancingWeight().GetValue(), Priority: l.GetPriority()}
		for j, e := range l.GetLbEndpoints() {
			at := fmt.Sprintf("%s.lb_endpoints[%d]", at, j)
			if c, ok := s.endpoint(at, e, names); ok {
				u.use(s, at, u.choose(e.GetMetadata(), l.GetMetadata()))
				out.Endpoints = append(out.Endpoints, c)
			}
		}
		all = append(all, out)
	}
	return all
}

// locality is one text for a place. Parts that have slashes keep what they mean.
func locality(l *corev3.Locality) string {
	var parts []string
	for _, p := range []string{l.GetRegion(), l.GetZone(), l.GetSubZone()} {
		parts = append(parts, strings.NewReplacer("%", "%25", "/", "%2F").Replace(p))
	}
	return strings.TrimRight(strings.Join(parts, "/"), "/")
}

func (s *scope) endpoint(at string, e *endpointv3.LbEndpoint, names bool) (upstream.EndpointConfig, bool) {
	c := upstream.EndpointConfig{Weight: e.GetLoadBalancingWeight().GetValue()}
	if w := e.GetLoadBalancingWeight(); w != nil && w.GetValue() == 0 {
		s.bad(at+".load_balancing_weight", "0", "above 0")
	}
	switch h := e.GetHealthStatus(); h {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_DRAINING, corev3.HealthStatus_TIMEOUT:
		c.Unhealthy = true
	default:
		s.bad(at+".health_status", h.String(), "HEALTHY, UNHEALTHY, DRAINING, TIMEOUT or UNKNOWN")
	}
	if e.GetEndpoint() == nil {
		s.missing(at+".endpoint", "an endpoint with its address")
		return c, false
	}
	c.Hostname = e.GetEndpoint().GetHostname()
	var ok bool
	c.Address, ok = s.address(at+".endpoint.address", e.GetEndpoint().GetAddress(), names)
	return c, ok
}

// address answers an address to connect to, or to listen on: host:port or unix:/path.
func (s *scope) address(at string, a *corev3.Address, names bool) (string, bool) {
	switch a := a.GetAddress().(type) {
	case *corev3.Address_Pipe:
		if !strings.HasPrefix(a.Pipe.GetPath(), "/") || strings.ContainsRune(a.Pipe.GetPath(), 0) {
			s.bad(at+".pipe.path", quote(a.Pipe.GetPath()), "a path")
			return "", false
		}
		return "unix:" + a.Pipe.GetPath(), true
	case *corev3.Address_SocketAddress:
		host, port, ok := s.socketAddress(at+".socket_address", a.SocketAddress, names)
		return net.JoinHostPort(host, strconv.Itoa(int(port))), ok
	default:
		s.missing(at, "a socket_address or a pipe")
		return "", false
	}
}

func (s *scope) socketAddress(at string, a *corev3.SocketAddress, names bool) (host string, port uint16, ok bool) {
	host = a.GetAddress()
	if p := a.GetProtocol(); p != corev3.SocketAddress_TCP {
		s.bad(at+".protocol", p.String(), "TCP")
		return host, 0, false
	}
	if p := a.GetPortValue(); p == 0 || p > 65535 {
		s.bad(at+".port_value", strconv.FormatUint(uint64(p), 10), "1 to 65535")
		return host, 0, false
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() == "":
		host = ip.Unmap().String()
	case !names || err == nil:
		s.bad(at+".address", quote(host), "an IP address")
		return host, 0, false
	}
	return host, uint16(a.GetPortValue()), true
}
