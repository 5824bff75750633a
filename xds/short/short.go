package short

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Is reports whether a document is meant to be of the short form.
func Is(n strictyaml.Node) bool {
	keys, _, err := n.Entries()
	return err == nil && !slices.Contains(keys, "@type") && (slices.Contains(keys, "listen") || slices.Contains(keys, "clusters"))
}

// Load reads a document of the short form. All that it names it has itself, but for policies. The errors are *attest.Error, joined
// where there are several, with positions.
func Load(n strictyaml.Node) ([]envoy.Document, error) {
	var c config.Config
	if err := strictyaml.Decode(n, &c); err != nil {
		return nil, err
	}
	c = c.WithPolicies(func(name string) string { return strings.TrimSuffix(strings.TrimSuffix(name, ".yaml"), ".yml") })
	if err := c.Check(); err != nil {
		return nil, n.Locate(err)
	}
	plain, err := normal(&c)
	if err != nil {
		return nil, n.Locate(err)
	}
	var all []envoy.Document
	add := func(at string, m object) error {
		place, _ := n.At(at)
		raw, err := json.Marshal(m)
		if err != nil {
			return err
		}
		docs, err := envoy.Load(place.Position(), raw)
		if err != nil {
			return place.Error("what can't be said in Envoy's words: "+err.Error(), "a resource of its own")
		}
		for _, d := range docs {
			all = append(all, envoy.Document{Resource: d.Resource, Position: place.Position(), Line: place.Line()})
		}
		return nil
	}
	var errs []error
	for i := range plain.Clusters {
		at := fmt.Sprintf("clusters[%d]", i)
		if i >= len(c.Clusters) {
			at = "listen"
		}
		errs = append(errs, add(at, cluster(&plain.Clusters[i])))
	}
	for i := range plain.Listeners {
		l, at := &plain.Listeners[i], fmt.Sprintf("listen[%d]", i)
		if errs = append(errs, add(at, listener(l))); l.HTTP != nil {
			errs = append(errs, add(at, routes(l.Name, l.HTTP)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := compare(plain, all); err != nil {
		return nil, n.Locate(err)
	}
	return all, nil
}

// normal answers c in the terms that resources have: services are clusters, endpoints are in localities, and all requests for one
// cluster are a route.
func normal(c *config.Config) (*config.Config, error) {
	out := &config.Config{Listeners: slices.Clone(c.Listeners), Clusters: slices.Clone(c.Clusters)}
	for i := range out.Clusters {
		cl := &out.Clusters[i]
		if len(cl.Endpoints) > 0 {
			cl.Localities, cl.Endpoints = []upstream.LocalityEndpoints{{Endpoints: cl.Endpoints}}, nil
		}
		cl.UnsafePlain = cl.Leaves() // as resources say by their addresses
	}
	taken := map[string]bool{}
	for _, cl := range out.Clusters {
		taken[cl.Name] = true
	}
	for i := range out.Listeners {
		l := &out.Listeners[i]
		if l.Name == "" {
			l.Name = l.Address
		}
		if rest, ok := strings.CutPrefix(l.Address, ":"); ok {
			l.Address = "[::]:" + rest // of both families
		}
		if l.To != "" {
			s, err := config.ParseService(l.To)
			if err != nil {
				return nil, err
			}
			name := "service " + l.To
			if !taken[name] {
				taken[name] = true
				address := s.Target
				if s.Network == "unix" {
					address = "unix:" + address
				}
				cl := config.Cluster{Config: upstream.Config{Name: name}, Localities: []upstream.LocalityEndpoints{{Endpoints: []upstream.EndpointConfig{{Identity: upstream.Identity{Address: address}}}}}}
				switch {
				case s.Scheme == "h2c":
					cl.Protocol = "http2"
				case !l.TCP:
					cl.Protocol = "http1"
				}
				cl.UnsafePlain = cl.Leaves()
				out.Clusters = append(out.Clusters, cl)
			}
			l.To, l.UnsafeTo, l.Cluster = "", false, name
		}
		if l.Cluster != "" && !l.TCP {
			l.HTTP = &route.Config{VirtualHosts: []route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []route.Route{{
				Match: route.RouteMatch{Prefix: "/"}, Route: &route.RouteAction{Cluster: l.Cluster, Timeout: -1},
			}}}}}
			l.Cluster = ""
		}
		if l.HTTP != nil {
			l.HTTP = canonical(l.HTTP)
		}
	}
	return out, nil
}

// canonical answers routes in which methods are matched as the header that they are, and defaults are written where resources have none.
func canonical(c *route.Config) *route.Config {
	out := *c
	actions(&out.RequestHeaders, &out.ResponseHeaders)
	out.VirtualHosts = slices.Clone(c.VirtualHosts)
	for i := range out.VirtualHosts {
		v := &out.VirtualHosts[i]
		actions(&v.RequestHeaders, &v.ResponseHeaders)
		v.Routes = slices.Clone(v.Routes)
		for j := range v.Routes {
			r := &v.Routes[j]
			actions(&r.RequestHeaders, &r.ResponseHeaders)
			methods(&r.Match)
			if r.Route != nil && len(r.Route.WeightedClusters) > 0 {
				action := *r.Route
				action.WeightedClusters = slices.Clone(action.WeightedClusters)
				for k := range action.WeightedClusters {
					actions(&action.WeightedClusters[k].RequestHeaders, &action.WeightedClusters[k].ResponseHeaders)
				}
				r.Route = &action
			}
		}
	}
	return &out
}

func actions(all ...*route.HeaderMutation) {
	for _, m := range all {
		m.Set = slices.Clone(m.Set)
		for i := range m.Set {
			m.Set[i].Action = cmp.Or(m.Set[i].Action, "append")
		}
	}
}

func methods(m *route.RouteMatch) {
	var is route.StringMatcher
	switch len(m.Methods) {
	case 0:
		return
	case 1:
		is.Exact = m.Methods[0]
	default:
		var quoted []string
		for _, name := range m.Methods {
			quoted = append(quoted, regexp.QuoteMeta(name))
		}
		is.SafeRegex = strings.Join(quoted, "|")
	}
	m.Headers = append([]route.HeaderMatcher{{Name: ":method", String: &is}}, m.Headers...)
	m.Methods = nil
}

// object is a message in JSON.
type object map[string]any

// set sets a field that is not zero.
func (o object) set(name string, v any) object {
	if r := reflect.ValueOf(v); r.IsValid() && !r.IsZero() {
		o[name] = v
	}
	return o
}

// duration answers what protobuf's JSON has for a time; nil for none, and 0 s for "never", which is what Envoy's 0 means.
func duration(d time.Duration) any {
	switch {
	case d == 0:
		return nil
	case d < 0:
		return "0s"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

func typed(typ string, m object) object {
	m["@type"] = "type.googleapis.com/" + typ
	return m
}

func extension(name, typ string, m object) object {
	return object{"name": name, "typed_config": typed(typ, m)}
}

func address(a string) object {
	if path, ok := strings.CutPrefix(a, "unix:"); ok {
		return object{"pipe": object{"path": path}}
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return object{}
	}
	at := object{"address": host}
	if host == "::" {
		at["ipv4_compat"] = true
	}
	if n, err := strconv.Atoi(port); err == nil {
		at["port_value"] = n
	} else {
		at["named_port"] = port
	}
	return object{"socket_address": at}
}

// named reports whether an address has a name that has to be resolved.
func named(a string) bool {
	host, _, err := net.SplitHostPort(a)
	_, notIP := netip.ParseAddr(host)
	return err == nil && notIP != nil && !strings.HasPrefix(a, "unix:")
}

func validator(policy, name string, reattest time.Duration) object {
	v := object{"policy": policy, "pki_mode": "EVIDENCE_ONLY"}
	v.set("name", name).set("reattest", duration(reattest))
	return object{"custom_validator_config": extension("jurat.validator", strings.TrimPrefix(api.TypeValidator, "type.googleapis.com/"), v)}
}

func listener(l *config.Listener) object {
	chain := object{}
	if !l.Plain {
		tls := object{"custom_tls_certificate_selector": extension("jurat.identity", strings.TrimPrefix(api.TypeIdentity, "type.googleapis.com/"), object{})}
		context := object{"common_tls_context": tls}
		if l.Require != "" {
			context["require_client_certificate"] = true
			tls["validation_context"] = validator(l.Require, "", l.Reattest)
		}
		chain["transport_socket"] = extension("envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context)
	}
	chain.set("transport_socket_connect_timeout", duration(l.Limits.Times.Handshake))
	switch {
	case l.HTTP != nil:
		m := object{
			"stat_prefix": l.Name,
			// Beside the listener, so that a change of routes is one for connections that are open, too: those of a listener that is
			// replaced go on with what it had, and with clusters that may be gone.
			"rds":          object{"route_config_name": l.Name, "config_source": object{"ads": object{}, "resource_api_version": "V3"}},
			"http_filters": []object{extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", object{})},
		}
		m.set("request_headers_timeout", duration(l.Limits.Times.Header))
		if l.Limits.Times.KeepAlive != 0 {
			m["common_http_protocol_options"] = object{"idle_timeout": duration(l.Limits.Times.KeepAlive)}
		}
		chain["filters"] = []object{extension("envoy.filters.network.http_connection_manager", "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", m)}
	case l.TCP:
		m := object{"stat_prefix": l.Name, "cluster": l.Cluster}
		m.set("idle_timeout", duration(l.Limits.Times.Tunnel))
		chain["filters"] = []object{extension("envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", m)}
	}
	return object{"@type": resource.Listener, "name": l.Name, "address": address(l.Address), "filter_chains": []object{chain}}
}

func routes(name string, c *route.Config) object {
	out := edits(object{"@type": resource.Route, "name": name}, &c.RequestHeaders, &c.ResponseHeaders)
	out.set("ignore_port_in_host_matching", c.IgnorePortInHostMatching)
	var hosts []object
	for _, v := range c.VirtualHosts {
		var all []object
		for _, r := range v.Routes {
			one := edits(object{"match": match(&r.Match)}, &r.RequestHeaders, &r.ResponseHeaders)
			one.set("name", r.Name)
			switch {
			case r.Route != nil:
				one["route"] = action(r.Route)
			case r.Redirect != nil:
				one["redirect"] = redirect(r.Redirect)
			case r.DirectResponse != nil:
				d := object{"status": r.DirectResponse.Status}
				if r.DirectResponse.Body != "" {
					d["body"] = object{"inline_string": r.DirectResponse.Body}
				}
				one["direct_response"] = d
			}
			all = append(all, one)
		}
		host := edits(object{"name": v.Name, "domains": v.Domains}, &v.RequestHeaders, &v.ResponseHeaders)
		hosts = append(hosts, host.set("routes", all))
	}
	return out.set("virtual_hosts", hosts)
}

// edits sets the fields for edits of headers.
func edits(out object, request, response *route.HeaderMutation) object {
	for direction, m := range map[string]*route.HeaderMutation{"request": request, "response": response} {
		var all []object
		for _, h := range m.Set {
			all = append(all, object{
				"header": object{"key": h.Name, "value": strings.ReplaceAll(h.Value, "%", "%%")}, "keep_empty_value": true,
				"append_action": map[string]string{
					"append": "APPEND_IF_EXISTS_OR_ADD", "add_if_absent": "ADD_IF_ABSENT", "overwrite": "OVERWRITE_IF_EXISTS_OR_ADD", "overwrite_if_exists": "OVERWRITE_IF_EXISTS",
				}[h.Action],
			})
		}
		out.set(direction+"_headers_to_add", all).set(direction+"_headers_to_remove", m.Remove)
	}
	return out
}

func retry(r *route.RetryPolicy) object {
	out := object{"retry_on": strings.Join(r.RetryOn, ",")}
	out.set("retriable_status_codes", r.RetriableStatusCodes).set("per_try_timeout", duration(r.PerTryTimeout)).set("per_try_idle_timeout", duration(r.PerTryIdleTimeout))
	if r.NumRetries != 0 {
		out["num_retries"] = max(r.NumRetries, 0)
	}
	if r.AvoidPreviousHosts {
		out["retry_host_predicate"] = []object{extension("envoy.retry_host_predicates.previous_hosts", "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", object{})}
	}
	out.set("host_selection_retry_max_attempts", r.HostSelectionAttempts)
	if r.BackOffBase != 0 || r.BackOffMax != 0 {
		back := object{}
		out["retry_back_off"] = back.set("base_interval", duration(r.BackOffBase)).set("max_interval", duration(r.BackOffMax))
	}
	return out
}

func match(m *route.RouteMatch) object {
	out := object{}
	out.set("prefix", m.Prefix).set("path", m.Path).set("path_separated_prefix", m.PathSeparatedPrefix)
	if m.SafeRegex != "" {
		out["safe_regex"] = object{"regex": m.SafeRegex}
	}
	if m.Connect {
		out["connect_matcher"] = object{}
	}
	if m.IgnoreCase {
		out["case_sensitive"] = false
	}
	var headers []object
	for _, h := range m.Headers {
		one := object{"name": h.Name}
		one.set("invert_match", h.Invert).set("treat_missing_header_as_empty", h.TreatMissingAsEmpty)
		switch {
		case h.String != nil:
			one["string_match"] = text(h.String)
		case h.Range != nil:
			one["range_match"] = object{"start": h.Range.Start, "end": h.Range.End}
		case h.Present != nil:
			one["present_match"] = *h.Present
		}
		headers = append(headers, one)
	}
	out.set("headers", headers)
	var query []object
	for _, q := range m.QueryParameters {
		one := object{"name": q.Name}
		switch {
		case q.String != nil:
			one["string_match"] = text(q.String)
		case q.Present != nil:
			one["present_match"] = *q.Present
		}
		query = append(query, one)
	}
	return out.set("query_parameters", query)
}

func text(m *route.StringMatcher) object {
	out := object{}
	switch {
	case m.Prefix != "":
		out["prefix"] = m.Prefix
	case m.Suffix != "":
		out["suffix"] = m.Suffix
	case m.Contains != "":
		out["contains"] = m.Contains
	case m.SafeRegex != "":
		out["safe_regex"] = object{"regex": m.SafeRegex}
	default:
		out["exact"] = m.Exact
	}
	return out.set("ignore_case", m.IgnoreCase)
}

func rewrite(r *route.RegexRewrite) object {
	return object{"pattern": object{"regex": r.Pattern}, "substitution": r.Substitution}
}

func action(a *route.RouteAction) object {
	out := object{}
	out.set("cluster", a.Cluster).set("prefix_rewrite", a.PrefixRewrite).set("host_rewrite_literal", a.HostRewrite)
	out.set("timeout", duration(a.Timeout)).set("idle_timeout", duration(a.IdleTimeout))
	if len(a.WeightedClusters) > 0 {
		var all []object
		for _, w := range a.WeightedClusters {
			all = append(all, edits(object{"name": w.Name, "weight": w.Weight}, &w.RequestHeaders, &w.ResponseHeaders))
		}
		out["weighted_clusters"] = object{"clusters": all}
	}
	if a.RegexRewrite != nil {
		out["regex_rewrite"] = rewrite(a.RegexRewrite)
	}
	if a.RetryPolicy != nil {
		if out["retry_policy"] = retry(a.RetryPolicy); a.RetryPolicy.Hedge != nil {
			out["hedge_policy"] = object{"hedge_on_per_try_timeout": true}
		}
	}
	var mirrors []object
	for _, m := range a.RequestMirrorPolicies {
		one := object{"cluster": m.Cluster}
		if name := map[uint32]string{100: "HUNDRED", 10_000: "TEN_THOUSAND", 1_000_000: "MILLION"}[m.Denominator]; name != "" {
			one["runtime_fraction"] = object{"default_value": object{"numerator": m.Numerator, "denominator": name}}
		}
		mirrors = append(mirrors, one)
	}
	return out.set("request_mirror_policies", mirrors)
}

func redirect(r *route.RedirectAction) object {
	out := object{}
	out.set("scheme_redirect", r.Scheme).set("host_redirect", r.Host).set("port_redirect", r.Port).set("path_redirect", r.Path).set("prefix_rewrite", r.PrefixRewrite).set("strip_query", r.StripQuery)
	if r.RegexRewrite != nil {
		out["regex_rewrite"] = rewrite(r.RegexRewrite)
	}
	if name := map[int]string{302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT"}[r.Code]; name != "" {
		out["response_code"] = name
	}
	return out
}

func cluster(c *config.Cluster) object {
	out := object{"@type": resource.Cluster, "name": c.Name, "type": "STATIC"}
	out.set("connect_timeout", duration(c.ConnectTimeout)).set("lb_policy", strings.ToUpper(c.Policy))
	if n := c.HealthyPanicThreshold; n != 0 {
		out["common_lb_config"] = object{"healthy_panic_threshold": object{"value": max(n, 0)}}
	}
	if c.LocalityWeighted {
		common, _ := out["common_lb_config"].(object)
		if common == nil {
			common = object{}
		}
		common["locality_weighted_lb_config"] = object{}
		out["common_lb_config"] = common
	}
	if len(c.Localities) == 1 && len(c.Localities[0].Endpoints) == 1 && named(c.Localities[0].Endpoints[0].Address) {
		out["type"], out["dns_lookup_family"] = "LOGICAL_DNS", "ALL" // resolved with each connection, as it is here
	}
	if c.ChoiceCount > 0 {
		out["least_request_lb_config"] = object{"choice_count": c.ChoiceCount}
	}
	if c.DNS != nil {
		out["type"] = "STRICT_DNS"
		out.set("dns_refresh_rate", duration(c.DNS.RefreshRate)).set("dns_jitter", duration(c.DNS.Jitter))
		if family := map[string]string{"v4_only": "V4_ONLY", "v6_only": "V6_ONLY", "all": "ALL"}[c.DNS.Family]; family != "" {
			out["dns_lookup_family"] = family
		}
	}
	assignment := object{"cluster_name": c.Name}
	assignment.set("endpoints", places(c))
	if c.OverprovisioningFactor > 0 {
		assignment["policy"] = object{"overprovisioning_factor": c.OverprovisioningFactor}
	}
	out["load_assignment"] = assignment
	if b := c.CircuitBreakers; b != (upstream.CircuitBreakers{}) {
		t := object{}
		for name, n := range map[string]int{"max_connections": b.MaxConnections, "max_pending_requests": b.MaxPendingRequests, "max_requests": b.MaxRequests, "max_retries": b.MaxRetries} {
			if n < 0 {
				t[name] = uint32(1<<32 - 1)
			} else {
				t.set(name, n)
			}
		}
		out["circuit_breakers"] = object{"thresholds": []object{t}}
	}
	if options := map[string]object{"http1": {"http_protocol_options": object{}}, "http2": {"http2_protocol_options": object{}}}[c.Protocol]; options != nil {
		const name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
		out["typed_extension_protocol_options"] = object{name: typed(name, object{"explicit_http_config": options})}
	}
	if a := c.Attested; a != nil {
		out["transport_socket"] = extension("envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
			object{"common_tls_context": object{"validation_context": validator(a.Require, a.Name, a.Reattest)}})
	}
	return out
}

// places answers the endpoints of a cluster, by where they are.
func places(c *config.Cluster) []object {
	var all []object
	endpoint := func(a, hostname string, weight uint32, unhealthy bool) object {
		e := object{"address": address(a)}
		one := object{"endpoint": e.set("hostname", hostname)}
		one.set("load_balancing_weight", weight)
		if unhealthy {
			one["health_status"] = "UNHEALTHY"
		}
		return one
	}
	for _, l := range c.Localities {
		var in []object
		for _, e := range l.Endpoints {
			in = append(in, endpoint(e.Address, e.Hostname, e.Weight, e.Unhealthy))
		}
		one := object{}
		one.set("lb_endpoints", in).set("priority", l.Priority).set("load_balancing_weight", l.Weight)
		if l.Locality != "" {
			parts := strings.SplitN(l.Locality, "/", 3)
			where := object{}
			for i, name := range []string{"region", "zone", "sub_zone"}[:len(parts)] {
				where.set(name, parts[i])
			}
			one["locality"] = where
		}
		all = append(all, one)
	}
	if c.DNS != nil {
		for _, n := range c.DNS.Names {
			one := object{"lb_endpoints": []object{endpoint(net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port))), "", n.Weight, false)}}
			all = append(all, one.set("priority", n.Priority).set("load_balancing_weight", n.LocalityWeight))
		}
	}
	return all
}

// compare translates resources back, and finds what they do not say as c does.
func compare(c *config.Config, docs []envoy.Document) error {
	in := envoy.Input{Resources: envoy.Set{}, Policies: c.Policies()}
	for _, d := range docs {
		in.Resources.Add(d.Resource)
	}
	back := envoy.Translate(in)
	var errs []error
	cannot := func(path, why string) {
		errs = append(errs, &attest.Error{
			Code: attest.CodeConfigValue, Check: "xds.short", Subject: path, Got: "what the short form can't be turned into resources for" + why,
			Want: "a default, or a resource of Envoy's API in place of this one",
		})
	}
	differ := func(at string, key envoy.Key, want, got any) {
		problem := back.Problems[key]
		if key.Type == resource.Listener && problem == nil {
			problem = back.Problems[envoy.Key{Type: resource.Route, Name: key.Name}]
		}
		if problem != nil {
			cannot(at, " ("+strings.ReplaceAll(problem.Error(), "\n", "; ")+")")
		} else if path, ok := difference(at, reflect.ValueOf(want), reflect.ValueOf(got)); ok {
			cannot(path, "")
		}
	}
	for i := range c.Listeners {
		name, got := c.Listeners[i].Name, config.Listener{}
		if j := slices.IndexFunc(back.Config.Listeners, func(l config.Listener) bool { return l.Name == name }); j >= 0 {
			got = back.Config.Listeners[j]
		}
		differ(fmt.Sprintf("listen[%d]", i), envoy.Key{Type: resource.Listener, Name: name}, c.Listeners[i], got)
	}
	for i := range c.Clusters {
		name, got := c.Clusters[i].Name, config.Cluster{}
		if have := back.Config.Cluster(name); have != nil {
			got = *have
		}
		differ(fmt.Sprintf("clusters[%d]", i), envoy.Key{Type: resource.Cluster, Name: name}, c.Clusters[i], got)
	}
	return errors.Join(errs...)
}

// difference answers the place of the first difference between two values of a type, in the words of the file. What has no key in the
// file is not compared.
func difference(at string, a, b reflect.Value) (string, bool) {
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return at, a.IsNil() != b.IsNil()
		}
		return difference(at, a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			return at, true
		}
		for i := range a.Len() {
			if path, ok := difference(fmt.Sprintf("%s[%d]", at, i), a.Index(i), b.Index(i)); ok {
				return path, true
			}
		}
		return at, false
	case reflect.Struct:
		for i := range a.NumField() {
			f := a.Type().Field(i)
			key, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "" && rest == "" || key == "-" {
				continue
			}
			path := at
			if key != "" {
				path += "." + key
			}
			if path, ok := difference(path, a.Field(i), b.Field(i)); ok {
				return path, true
			}
		}
		return at, false
	}
	return at, !reflect.DeepEqual(a.Interface(), b.Interface())
}
