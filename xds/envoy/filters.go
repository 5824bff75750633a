package envoy

//lint:file-ignore SA1019 control planes still send fields that are deprecated

import (
	"fmt"
	"slices"
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstats "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	httprbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/xds/resource"
)

// filters is what is done with the connections of a chain: the last filter says it, and those before it may change nothing.
func (s *scope) filters(at string, all []*listenerv3.Filter, c *config.Chain) []Key {
	if len(all) == 0 {
		s.missing(at+".filters", "http_connection_manager or tcp_proxy")
	}
	var wait []Key
	for i, f := range all {
		at := fmt.Sprintf("%s.filters[%d].typed_config", at, i)
		last := i == len(all)-1
		switch m := s.open(f.GetTypedConfig()).(type) {
		case *networkrbac.RBAC:
			s.rules(at+".rules", m.GetRules())
			s.notLast(at, last)
		case *tcpproxy.TcpProxy:
			if !last {
				s.bad(at, "filters behind tcp_proxy", "none")
			}
			s.raw(at, m, c)
		case *hcmv3.HttpConnectionManager:
			if !last {
				s.bad(at, "filters behind http_connection_manager", "none")
			}
			wait = append(wait, s.manager(at, m, c)...)
		case nil:
			if kind(f.GetTypedConfig()) == "" {
				s.missing(at, "what the filter "+quote(f.GetName())+" is")
			}
			s.notLast(at, last)
		default:
			s.bad(at, kind(f.GetTypedConfig()), "http_connection_manager or tcp_proxy")
		}
	}
	return wait
}

func (s *scope) notLast(at string, last bool) {
	if last {
		s.bad(at, "the last filter", "http_connection_manager or tcp_proxy behind it")
	}
}

// rules checks that rules of RBAC refuse nobody: who may come in is said by policies, and rules are not carried out.
func (s *scope) rules(at string, r *rbacv3.RBAC) {
	if r == nil || r.GetAction() == rbacv3.RBAC_DENY && len(r.GetPolicies()) == 0 {
		return
	}
	s.bad(at, r.GetAction().String()+" with "+fmt.Sprint(len(r.GetPolicies()))+" policies", "none: rules of RBAC are not carried out")
}

func (s *scope) raw(at string, m *tcpproxy.TcpProxy, c *config.Chain) {
	c.TCP = true
	c.Times.Tunnel = s.orNever(at+".idle_timeout", m.GetIdleTimeout())
	switch t := m.GetClusterSpecifier().(type) {
	case *tcpproxy.TcpProxy_Cluster:
		c.Cluster = t.Cluster
	case *tcpproxy.TcpProxy_WeightedClusters:
		for _, w := range t.WeightedClusters.GetClusters() {
			if w.GetWeight() > 0 && c.Cluster != "" {
				s.bad(at+".weighted_clusters", "several clusters", "one: raw connections are not shared out")
			}
			if w.GetWeight() > 0 {
				c.Cluster = w.GetName()
			}
		}
	}
	if c.Cluster == "" {
		s.missing(at+".cluster", "the name of a cluster")
	}
}

func (s *scope) manager(at string, m *hcmv3.HttpConnectionManager, c *config.Chain) []Key {
	c.Times.Header = s.duration(at+".request_headers_timeout", m.GetRequestHeadersTimeout(), 0)
	c.Times.KeepAlive = s.duration(at+".common_http_protocol_options.idle_timeout", m.GetCommonHttpProtocolOptions().GetIdleTimeout(), 0)
	s.zero(at+".request_timeout", m.GetRequestTimeout(), "0 s or none: stall_timeout bounds bodies of requests")
	for i, u := range m.GetUpgradeConfigs() {
		s.upgrade(fmt.Sprintf("%s.upgrade_configs[%d]", at, i), u.GetUpgradeType(), u.GetEnabled() == nil || u.GetEnabled().GetValue())
	}
	answers := s.httpFilters(at, m.GetHttpFilters())
	how := manner{idle: s.orNever(at+".stream_idle_timeout", m.GetStreamIdleTimeout()), plain: c.Plain}
	switch r := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_RouteConfig:
		routes := s.routes(at+".route_config", r.RouteConfig, how)
		answerFirst(&routes, answers)
		c.HTTP = &routes
	case *hcmv3.HttpConnectionManager_Rds:
		s.source(at+".rds.config_source", r.Rds.GetConfigSource())
		name := r.Rds.GetRouteConfigName()
		if name == "" {
			s.missing(at+".rds.route_config_name", "the name of the routes")
			return nil
		}
		key := Key{resource.Route, name}
		s.need(key)
		from, ok := s.translator.routes[name]
		if !ok {
			return []Key{key}
		}
		if err := s.charge(from.weight); err != nil {
			s.within(at+".rds", err)
			return nil
		}
		routes := from.scope.routes("", from.RouteConfiguration, how)
		answerFirst(&routes, answers)
		c.HTTP = &routes
	default:
		s.missing(at, "rds or route_config")
	}
	return nil
}

// answerFirst has what filters answer answered before anything is asked of the routes, whatever host is meant.
func answerFirst(c *route.Config, answers []route.Route) {
	if len(answers) == 0 {
		return
	}
	everybody := false
	for i := range c.VirtualHosts {
		v := &c.VirtualHosts[i]
		everybody = everybody || slices.Contains(v.Domains, "*")
		v.Routes = append(slices.Clone(answers), v.Routes...)
	}
	if !everybody {
		c.VirtualHosts = append(c.VirtualHosts, route.VirtualHost{Name: "health_check", Domains: []string{"*"}, Routes: answers})
	}
}

// health is the answer to those who ask whether this proxy is there, as Envoy Gateway has on a port of its own.
func (s *scope) health(at string, m *healthcheckv3.HealthCheck) route.Route {
	r := route.Route{Name: "health_check", DirectResponse: &route.DirectResponse{Status: 200}}
	if m.GetPassThroughMode() == nil || m.GetPassThroughMode().GetValue() {
		s.bad(at+".pass_through_mode", strconv.FormatBool(m.GetPassThroughMode().GetValue()), "false: this proxy answers itself")
	}
	for i, h := range m.GetHeaders() {
		at := fmt.Sprintf("%s.headers[%d]", at, i)
		if h.GetName() != ":path" {
			r.Match.Headers = append(r.Match.Headers, s.header(at, h))
			continue
		}
		if exact := h.GetStringMatch().GetExact(); exact != "" && !h.GetStringMatch().GetIgnoreCase() && !h.GetInvertMatch() && r.Match.Path == "" {
			r.Match.Path = exact
			continue
		}
		s.bad(at, "a match of :path", "one exact one")
	}
	if r.Match.Path == "" {
		s.missing(at+".headers", "an exact match of :path")
	}
	s.note(at, "answered with 200 as long as the listener is there; what follows the path in a query makes no difference")
	return r
}

// httpFilters checks that filters change nothing, and that the last one sends requests on. It answers what filters answer themselves.
func (s *scope) httpFilters(at string, all []*hcmv3.HttpFilter) (answers []route.Route) {
	router := false
	for i, f := range all {
		at := fmt.Sprintf("%s.http_filters[%d].typed_config", at, i)
		if router {
			s.bad(at, "a filter behind the router", "none")
		}
		if f.GetDisabled() {
			continue
		}
		switch m := s.open(f.GetTypedConfig()).(type) {
		case *routerv3.Router:
			router = true
		case *corsv3.Cors, *faultv3.HTTPFault, *grpcstats.FilterConfig: // with nothing in them that does anything, which look sees to
		case *httprbac.RBAC:
			s.rules(at+".rules", m.GetRules())
		case *healthcheckv3.HealthCheck:
			answers = append(answers, s.health(at, m))
		case nil:
			if kind(f.GetTypedConfig()) == "" {
				s.missing(at, "what the filter "+quote(f.GetName())+" is")
			}
		default:
			s.bad(at, kind(f.GetTypedConfig()), "a filter that changes nothing, or the router")
		}
	}
	if !router {
		s.missing(at+".http_filters", "the router, as the last filter")
	}
	return answers
}
