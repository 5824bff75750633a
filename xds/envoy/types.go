package envoy

import (
	"sync"

	accesslogfile "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	accesslogstream "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnscluster "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstats "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	httprbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldst "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocol "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	clusterprovided "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	leastrequest "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhash "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobin "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	upstreamproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbuffer "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpoptions "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	jurat "github.com/jurat-tls/jurat/xds/api/jurat/config/v1alpha1"
	"github.com/jurat-tls/jurat/xds/resource"
)

const typePrefix = "type.googleapis.com/"

// types is the resources and extensions that are known here. One that is not is an error, wherever it stands. It is made once:
// nobody changes it.
var types = sync.OnceValue(newTypes)

func newTypes() *protoregistry.Types {
	known := new(protoregistry.Types)
	for _, m := range []proto.Message{
		(*listenerv3.Listener)(nil), (*routev3.RouteConfiguration)(nil), (*clusterv3.Cluster)(nil),
		(*endpointv3.ClusterLoadAssignment)(nil), (*tlsv3.Secret)(nil),
		(*jurat.AttestationPolicy)(nil), (*jurat.ReferenceValues)(nil), (*jurat.AttestationValidator)(nil), (*jurat.AttestedIdentity)(nil),
		(*xds.TypedStruct)(nil), (*udpa.TypedStruct)(nil),

		(*hcmv3.HttpConnectionManager)(nil), (*tcpproxy.TcpProxy)(nil), (*networkrbac.RBAC)(nil),
		(*originaldst.OriginalDst)(nil), (*tlsinspector.TlsInspector)(nil), (*httpinspector.HttpInspector)(nil),
		(*proxyprotocol.ProxyProtocol)(nil),
		(*routerv3.Router)(nil), (*corsv3.Cors)(nil), (*corsv3.CorsPolicy)(nil), (*faultv3.HTTPFault)(nil),
		(*grpcstats.FilterConfig)(nil), (*healthcheckv3.HealthCheck)(nil), (*httprbac.RBAC)(nil), (*httprbac.RBACPerRoute)(nil),
		(*uuidv3.UuidRequestIdConfig)(nil), (*previoushosts.PreviousHostsPredicate)(nil),
		(*accesslogfile.FileAccessLog)(nil), (*accesslogstream.StdoutAccessLog)(nil),

		(*tlsv3.UpstreamTlsContext)(nil), (*tlsv3.DownstreamTlsContext)(nil), (*rawbuffer.RawBuffer)(nil),
		(*upstreamproxy.ProxyProtocolUpstreamTransport)(nil),
		(*httpoptions.HttpProtocolOptions)(nil), (*dnscluster.DnsCluster)(nil), (*caresv3.CaresDnsResolverConfig)(nil),
		(*leastrequest.LeastRequest)(nil), (*roundrobin.RoundRobin)(nil), (*randomv3.Random)(nil), (*ringhash.RingHash)(nil), (*maglevv3.Maglev)(nil),
		(*clusterprovided.ClusterProvided)(nil),
	} {
		if err := known.RegisterMessage(m.ProtoReflect().Type()); err != nil {
			panic(err) // one that is in the list twice
		}
	}
	return known
}

// isResource reports whether a type is one of those that resources have.
func isResource(typ string) bool {
	switch typ {
	case resource.Listener, resource.Route, resource.Cluster, resource.Endpoints, resource.Secret, resource.AttestationPolicy, resource.ReferenceValues:
		return true
	}
	return false
}
