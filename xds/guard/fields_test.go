package guard_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/config"
)

// What a configuration can say, and what Check makes of it: "" is a rule, anything else is why none is needed. A new field is dangerous
// until somebody has thought about it here.
const (
	judged  = ""
	text    = "names things in logs, metrics and other parts of the configuration"
	service = "how well it is served, not who gets it"
	matches = "which of the routes is taken, all of which are checked"
	looked  = "its fields are looked at one by one"
)

var fields = map[string]string{
	"config.Config.Listeners": judged,
	"config.Config.Clusters":  judged,

	"config.Listener.Name":                   judged, // not that of a static one
	"config.Listener.Address":                judged,
	"config.Listener.chain":                  "a name, which Chain sets in what is made of a listener",
	"config.Listener.UnsafeListen":           "the address and its clients are those of the limits",
	"config.Listener.ProxyProtocol":          judged,
	"config.Listener.Transparent":            judged,
	"config.Listener.DetectHTTP":             "which of the chains is taken, all of which are checked",
	"config.Listener.Serving":                looked,
	"config.Listener.Chains":                 judged,
	"config.Chain.Name":                      text,
	"config.Chain.Match":                     "which of the chains is taken, all of which are checked",
	"config.Chain.Serving":                   looked,
	"config.Chain.Times":                     service,
	"config.OriginalDestination.UnsafePlain": judged,
	"config.Cluster.OriginalDestination":     judged,
	"config.Listener.Limits":                 service,

	"config.Serving.Plain":          judged,
	"config.Serving.Require":        judged,
	"config.Serving.Reattest":       judged,
	"config.Serving.To":             judged,
	"config.Serving.UnsafeTo":       "where the service is is judged, and the limits say what may be elsewhere",
	"config.Serving.Cluster":        judged,
	"config.Serving.TCP":            judged, // where it leads nowhere
	"config.Serving.HTTP":           judged,
	"config.Serving.Passthrough":    judged,
	"config.Serving.Forward":        judged,
	"config.Serving.Credentials":    judged,
	"config.Serving.Public":         judged,
	"config.Cluster.Config":         looked,
	"config.Cluster.Attested":       judged,
	"config.Cluster.UnsafePlain":    "the endpoints are judged, and the limits say which may be elsewhere",
	"config.Cluster.Protocol":       service,
	"config.Cluster.ConnectTimeout": service,
	"config.Cluster.ProxyProtocol":  "the endpoint learns the address of the client, which is allowed to get all that the client says",
	"config.Cluster.Endpoints":      judged,
	"config.Cluster.Localities":     judged,
	"config.Cluster.DNS":            judged,

	"config.Attested.Require":  judged,
	"config.Attested.Name":     judged,
	"config.Attested.Reattest": judged,
	"config.Attested.Dialects": judged,

	"upstream.Config.Name":                   judged, // not that of a static one
	"upstream.Config.Policy":                 judged, // how much it holds
	"upstream.Config.ChoiceCount":            service,
	"upstream.Config.MinimumRingSize":        judged,
	"upstream.Config.MaximumRingSize":        judged,
	"upstream.Config.TableSize":              judged,
	"upstream.Config.HealthyPanicThreshold":  service,
	"upstream.Config.OverprovisioningFactor": service,
	"upstream.Config.LocalityWeighted":       service,
	"upstream.Config.CircuitBreakers":        service,
	"upstream.Config.HealthCheck":            judged,
	"upstream.Config.OutlierDetection":       service,

	"upstream.LocalityEndpoints.Locality":  text,
	"upstream.LocalityEndpoints.Weight":    service,
	"upstream.LocalityEndpoints.Priority":  judged, // how much it holds
	"upstream.LocalityEndpoints.Endpoints": judged,
	"upstream.EndpointConfig.Identity":     looked,
	"upstream.EndpointConfig.Weight":       service,
	"upstream.EndpointConfig.Unhealthy":    service,
	"upstream.Identity.Address":            judged,
	"upstream.Identity.Hostname":           judged,
	"upstream.Identity.Transport":          judged,

	"upstream.DNS.Names":              judged,
	"upstream.DNS.RefreshRate":        service,
	"upstream.DNS.Jitter":             service,
	"upstream.DNS.FailureBase":        service,
	"upstream.DNS.FailureMax":         service,
	"upstream.DNS.Timeout":            service,
	"upstream.DNS.Family":             service,
	"upstream.DNSName.Host":           judged,
	"upstream.DNSName.Port":           judged,
	"upstream.DNSName.Transport":      judged,
	"upstream.DNSName.Weight":         service,
	"upstream.DNSName.Priority":       judged, // how much it holds
	"upstream.DNSName.Locality":       text,
	"upstream.DNSName.LocalityWeight": service,

	"route.Config.VirtualHosts":             judged,
	"route.Config.IgnorePortInHostMatching": matches,
	"route.Config.UnsafeKeepEscapedSlashes": matches,
	"route.Config.RequestHeaders":           judged,
	"route.Config.ResponseHeaders":          judged,
	"route.VirtualHost.Name":                text,
	"route.VirtualHost.Domains":             matches,
	"route.VirtualHost.Routes":              judged,
	"route.VirtualHost.RequestHeaders":      judged,
	"route.VirtualHost.ResponseHeaders":     judged,
	"route.Route.Name":                      text,
	"route.Route.Match":                     matches,
	"route.Route.Route":                     judged,
	"route.Route.Redirect":                  judged,
	"route.Route.DirectResponse":            judged,
	"route.Route.RequestHeaders":            judged,
	"route.Route.ResponseHeaders":           judged,

	"route.RouteAction.Cluster":               judged,
	"route.RouteAction.WeightedClusters":      judged,
	"route.RouteAction.PrefixRewrite":         judged,
	"route.RouteAction.RegexRewrite":          judged,
	"route.RouteAction.HostRewrite":           judged,
	"route.RouteAction.Timeout":               service,
	"route.RouteAction.IdleTimeout":           service,
	"route.RouteAction.MaxGRPCTimeout":        service,
	"route.RouteAction.RetryPolicy":           "the same request, to the same cluster",
	"route.RouteAction.RequestMirrorPolicies": judged,
	"route.RouteAction.HashPolicy":            looked,
	"route.HashPolicy.Header":                 service,
	"route.HashPolicy.QueryParameter":         service,
	"route.HashPolicy.Cookie":                 looked,
	"route.HashPolicy.SourceIP":               service,
	"route.HashPolicy.Terminal":               service,
	"route.CookieHash.Name":                   service,
	"route.CookieHash.Path":                   service,
	"route.CookieHash.TTL":                    judged,

	"route.WeightedCluster.Name":            judged,
	"route.WeightedCluster.Weight":          service,
	"route.WeightedCluster.RequestHeaders":  judged,
	"route.WeightedCluster.ResponseHeaders": judged,

	"route.RedirectAction.Scheme":        judged,
	"route.RedirectAction.Host":          judged,
	"route.RedirectAction.Port":          judged,
	"route.RedirectAction.Path":          "to the same place",
	"route.RedirectAction.PrefixRewrite": "to the same place",
	"route.RedirectAction.RegexRewrite":  "to the same place",
	"route.RedirectAction.Code":          service,
	"route.RedirectAction.StripQuery":    "to the same place",

	"route.DirectResponse.Status": judged,
	"route.DirectResponse.Body":   judged,
	"route.HeaderMutation.Remove": judged,
	"route.HeaderMutation.Set":    judged,
	"route.RequestMirror.Cluster": judged,

	"route.RequestMirror.Numerator":   service,
	"route.RequestMirror.Denominator": service,
}

// whole are types whose fields are all as harmless, or as harmful, as what they are in.
var whole = []string{
	"config.Public", "config.Limits", "config.Times", "chain.Match", "config.Passthrough", "config.Forward", "upstream.CircuitBreakers", "upstream.HealthCheck", "upstream.OutlierDetection",
	"route.RouteMatch", "route.RegexRewrite", "route.SetHeader", "route.RetryPolicy",
}

func TestEveryFieldIsThoughtOf(t *testing.T) {
	var there []string
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(typ.Elem())
		case reflect.Struct:
			if slices.Contains(whole, typ.String()) {
				return
			}
			for i := range typ.NumField() {
				name := typ.String() + "." + typ.Field(i).Name
				if slices.Contains(there, name) {
					continue
				}
				there = append(there, name)
				walk(typ.Field(i).Type)
			}
		}
	}
	walk(reflect.TypeFor[config.Config]())
	for _, name := range there {
		if _, ok := fields[name]; !ok {
			t.Errorf("nobody has thought of %s: make a rule of it, and say so here, or say why none is needed", name)
		}
	}
	for name := range fields {
		if !slices.Contains(there, name) {
			t.Errorf("%s is not there any more", name)
		}
	}
	if !slices.ContainsFunc(there, func(s string) bool { return strings.HasPrefix(s, "route.") }) {
		t.Error("routes are not looked at")
	}
}
