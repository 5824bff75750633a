package route_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/route"
)

// Each value that is not allowed is named by its place.
func TestCompileErrors(t *testing.T) {
	yes := true
	with := func(change func(*route.Route)) route.Config {
		r := to("c", route.RouteMatch{Prefix: "/"})
		change(&r)
		return one(to("first", route.RouteMatch{Prefix: "/"}), r)
	}
	match := func(m route.RouteMatch) route.Config { return with(func(r *route.Route) { r.Match = m }) }
	header := func(h route.HeaderMatcher) route.Config {
		return match(route.RouteMatch{Prefix: "/", Headers: []route.HeaderMatcher{h}})
	}
	query := func(q route.QueryParameterMatcher) route.Config {
		return match(route.RouteMatch{Prefix: "/", QueryParameters: []route.QueryParameterMatcher{q}})
	}
	action := func(change func(*route.RouteAction)) route.Config {
		return with(func(r *route.Route) { change(r.Route) })
	}
	redirect := func(a route.RedirectAction) route.Config {
		return with(func(r *route.Route) { r.Route, r.Redirect = nil, &a })
	}
	retry := func(p route.RetryPolicy) route.Config {
		return action(func(a *route.RouteAction) { a.RetryPolicy = &p })
	}
	set := func(name, value, action string) route.Config {
		return with(func(r *route.Route) {
			r.RequestHeaders.Set = []route.SetHeader{{Name: name, Value: value, Action: action}}
		})
	}
	hash := func(p route.HashPolicy) route.Config {
		return action(func(a *route.RouteAction) { a.HashPolicy = []route.HashPolicy{p} })
	}
	mirror := func(m route.RequestMirror) route.Config {
		return action(func(a *route.RouteAction) { a.RequestMirrorPolicies = []route.RequestMirror{m} })
	}
	host := func(domains ...string) route.Config {
		return route.Config{VirtualHosts: []route.VirtualHost{{Name: "a", Domains: []string{"a.example"}}, {Name: "b", Domains: domains}}}
	}
	ignoring := host("b.example:80")
	ignoring.IgnorePortInHostMatching = true
	global := one()
	global.ResponseHeaders.Remove = []string{"Jurat-Error"}
	local := one()
	local.VirtualHosts[0].ResponseHeaders.Set = []route.SetHeader{{Name: "x y"}}
	groups := strings.Repeat("(a)", 12)
	const r = "virtual_hosts[0].routes[1]"
	long := strings.Repeat("a", 5000)
	for _, c := range []struct {
		config route.Config
		place  string
	}{
		{route.Config{VirtualHosts: []route.VirtualHost{{Domains: []string{"*"}}}}, "virtual_hosts[0].name"},
		{route.Config{VirtualHosts: []route.VirtualHost{{Name: "a", Domains: []string{"a"}}, {Name: "a", Domains: []string{"b"}}}}, "virtual_hosts[1].name"},
		{host(), "virtual_hosts[1].domains"},
		{host("A.Example"), "virtual_hosts[1].domains[0]"},
		{host("b", "b"), "virtual_hosts[1].domains[1]"},
		{host("*", "*"), "virtual_hosts[1].domains[1]"},
		{host("*.b", "*.b"), "virtual_hosts[1].domains[1]"},
		{host("b.*", "b.*"), "virtual_hosts[1].domains[1]"},
		{host("a*b"), "virtual_hosts[1].domains[0]"},
		{host("b.example."), "virtual_hosts[1].domains[0]"},
		{host(""), "virtual_hosts[1].domains[0]"},
		{host("http://b"), "virtual_hosts[1].domains[0]"},
		{host("b@c"), "virtual_hosts[1].domains[0]"},
		{host("b{c"), "virtual_hosts[1].domains[0]"},
		{ignoring, "virtual_hosts[1].domains[0]"},
		{global, "response_headers.remove[0]"},
		{local, "virtual_hosts[0].response_headers.set[0].name"},

		{with(func(r *route.Route) { r.Route = nil }), r},
		{with(func(r *route.Route) { r.DirectResponse = &route.DirectResponse{Status: 200} }), r},
		{with(func(r *route.Route) { r.Route, r.DirectResponse = nil, &route.DirectResponse{Status: 100} }), r + ".direct_response.status"},
		{with(func(r *route.Route) { r.Route, r.DirectResponse = nil, &route.DirectResponse{Status: 600} }), r + ".direct_response.status"},
		{with(func(r *route.Route) { r.Route, r.DirectResponse = nil, &route.DirectResponse{Status: 204, Body: "x"} }), r + ".direct_response.body"},
		{with(func(r *route.Route) { r.Route, r.DirectResponse = nil, &route.DirectResponse{Status: 304, Body: "x"} }), r + ".direct_response.body"},
		{with(func(r *route.Route) { r.Route, r.DirectResponse = nil, &route.DirectResponse{} }), r + ".direct_response.status"},
		{with(func(r *route.Route) {
			r.Route, r.DirectResponse = nil, &route.DirectResponse{Status: 200, Body: strings.Repeat("x", 1<<17)}
		}), r + ".direct_response.body"},

		{match(route.RouteMatch{}), r + ".match"},
		{match(route.RouteMatch{Path: "/", Prefix: "/"}), r + ".match"},
		{match(route.RouteMatch{Path: "a"}), r + ".match.path"},
		{match(route.RouteMatch{Path: "/a?b"}), r + ".match.path"},
		{match(route.RouteMatch{Path: "/%61"}), r + ".match.path"},
		{match(route.RouteMatch{Path: "/a/../b"}), r + ".match.path"},
		{match(route.RouteMatch{Prefix: "/a//"}), r + ".match.prefix"},
		{match(route.RouteMatch{Prefix: "*"}), r + ".match"},
		{match(route.RouteMatch{PathSeparatedPrefix: "*"}), r + ".match"},
		{match(route.RouteMatch{PathSeparatedPrefix: "/a%2Fb"}), r + ".match.path_separated_prefix"},
		{match(route.RouteMatch{SafeRegex: "("}), r + ".match.safe_regex"},
		{match(route.RouteMatch{SafeRegex: "a)|(?:b"}), r + ".match.safe_regex"},
		{match(route.RouteMatch{SafeRegex: long}), r + ".match.safe_regex"},
		{match(route.RouteMatch{SafeRegex: "/.{0,1000}.{0,1000}.{0,1000}.{0,1000}.{0,1000}"}), r + ".match.safe_regex"}, // which takes thousands of steps a byte
		{match(route.RouteMatch{SafeRegex: "a", IgnoreCase: true}), r + ".match.ignore_case"},
		{match(route.RouteMatch{Prefix: "/", Methods: []string{"GET", "G T"}}), r + ".match.methods[1]"},
		{header(route.HeaderMatcher{Name: ":path", Present: &yes}), r + ".match.headers[0].name"},
		{header(route.HeaderMatcher{Name: ":status", Present: &yes}), r + ".match.headers[0].name"},
		{header(route.HeaderMatcher{Present: &yes}), r + ".match.headers[0].name"},
		{header(route.HeaderMatcher{Name: "a"}), r + ".match.headers[0]"},
		{header(route.HeaderMatcher{Name: "a", Range: &route.Range{Start: 1, End: 1}}), r + ".match.headers[0].range_match"},
		{header(route.HeaderMatcher{Name: "a", String: &route.StringMatcher{Exact: "a", Prefix: "b"}}), r + ".match.headers[0].string_match"},
		{header(route.HeaderMatcher{Name: "a", String: &route.StringMatcher{SafeRegex: "["}}), r + ".match.headers[0].string_match.safe_regex"},
		{header(route.HeaderMatcher{Name: "a", String: &route.StringMatcher{SafeRegex: "a", IgnoreCase: true}}), r + ".match.headers[0].string_match.ignore_case"},
		{query(route.QueryParameterMatcher{Present: &yes}), r + ".match.query_parameters[0].name"},
		{query(route.QueryParameterMatcher{Name: "a"}), r + ".match.query_parameters[0]"},

		{action(func(a *route.RouteAction) { a.Cluster = "" }), r + ".route"},
		{action(func(a *route.RouteAction) { a.WeightedClusters = []route.WeightedCluster{{Name: "a", Weight: 1}} }), r + ".route"},
		{action(func(a *route.RouteAction) { a.Cluster, a.WeightedClusters = "", []route.WeightedCluster{{Name: "a"}} }), r + ".route.weighted_clusters"},
		{action(func(a *route.RouteAction) { a.Cluster, a.WeightedClusters = "", []route.WeightedCluster{{Weight: 1}} }), r + ".route.weighted_clusters[0].name"},
		{action(func(a *route.RouteAction) {
			a.Cluster, a.WeightedClusters = "", []route.WeightedCluster{{Name: "a", Weight: 1, RequestHeaders: route.HeaderMutation{Remove: []string{"Host"}}}}
		}), r + ".route.weighted_clusters[0].request_headers.remove[0]"},
		{action(func(a *route.RouteAction) { a.MaxGRPCTimeout = -1 }), r + ".route.max_grpc_timeout"},
		{action(func(a *route.RouteAction) { a.HostRewrite = "a b" }), r + ".route.host_rewrite_literal"},
		{action(func(a *route.RouteAction) { a.PrefixRewrite = "a" }), r + ".route.prefix_rewrite"},
		{action(func(a *route.RouteAction) { a.PrefixRewrite, a.RegexRewrite = "/a", &route.RegexRewrite{Pattern: "a"} }), r + ".route.regex_rewrite"},
		{action(func(a *route.RouteAction) { a.RegexRewrite = &route.RegexRewrite{Pattern: "("} }), r + ".route.regex_rewrite.pattern"},
		{action(func(a *route.RouteAction) { a.RegexRewrite = &route.RegexRewrite{Pattern: "(abcdefgh.){999}"} }), r + ".route.regex_rewrite.pattern"},
		{action(func(a *route.RouteAction) { a.RegexRewrite = &route.RegexRewrite{Pattern: "(a)", Substitution: `\2`} }), r + ".route.regex_rewrite.substitution"},
		{action(func(a *route.RouteAction) { a.RegexRewrite = &route.RegexRewrite{Pattern: "a", Substitution: `\`} }), r + ".route.regex_rewrite.substitution"},
		{action(func(a *route.RouteAction) { a.RegexRewrite = &route.RegexRewrite{Pattern: groups, Substitution: `\:`} }), r + ".route.regex_rewrite.substitution"},
		{action(func(a *route.RouteAction) { a.RegexRewrite = &route.RegexRewrite{Pattern: groups, Substitution: `\!`} }), r + ".route.regex_rewrite.substitution"},
		{with(func(r *route.Route) { r.Match, r.Route.PrefixRewrite = route.RouteMatch{Connect: true}, "/a" }), r + ".route.prefix_rewrite"},
		{with(func(r *route.Route) { r.Match, r.Route.PrefixRewrite = route.RouteMatch{SafeRegex: "/"}, "/a" }), r + ".route.prefix_rewrite"},

		{retry(route.RetryPolicy{}), r + ".route.retry_policy.retry_on"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx", "6xx"}}), r + ".route.retry_policy.retry_on[1]"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, RetriableStatusCodes: []int{404}}), r + ".route.retry_policy.retriable_status_codes"},
		{retry(route.RetryPolicy{RetryOn: []string{"retriable-status-codes"}, RetriableStatusCodes: []int{404, 1}}), r + ".route.retry_policy.retriable_status_codes[1]"},
		{retry(route.RetryPolicy{RetryOn: []string{"retriable-status-codes"}, RetriableStatusCodes: []int{600}}), r + ".route.retry_policy.retriable_status_codes[0]"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, PerTryTimeout: -1}), r + ".route.retry_policy.per_try_timeout"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, PerTryIdleTimeout: -1}), r + ".route.retry_policy.per_try_idle_timeout"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, BackOffBase: -1}), r + ".route.retry_policy.base_interval"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, BackOffMax: time.Millisecond}), r + ".route.retry_policy.max_interval"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, Hedge: &route.Hedge{}}), r + ".route.retry_policy.hedge.after"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, Hedge: &route.Hedge{After: -1}}), r + ".route.retry_policy.hedge.after"},
		{retry(route.RetryPolicy{RetryOn: []string{"5xx"}, HostSelectionAttempts: -1}), r + ".route.retry_policy.host_selection_retry_max_attempts"},

		{mirror(route.RequestMirror{}), r + ".route.request_mirror_policies[0].cluster"},
		{mirror(route.RequestMirror{Cluster: "plain"}), r + ".route.request_mirror_policies[0].cluster"},
		{mirror(route.RequestMirror{Cluster: "attested", Numerator: 1, Denominator: 7}), r + ".route.request_mirror_policies[0].denominator"},
		{mirror(route.RequestMirror{Cluster: "attested", Numerator: 1}), r + ".route.request_mirror_policies[0].denominator"},
		{mirror(route.RequestMirror{Cluster: "attested", Numerator: 101, Denominator: 100}), r + ".route.request_mirror_policies[0].numerator"},
		{hash(route.HashPolicy{}), r + ".route.hash_policy[0]"},
		{hash(route.HashPolicy{Header: "a", SourceIP: true}), r + ".route.hash_policy[0]"},
		{hash(route.HashPolicy{Header: "a b"}), r + ".route.hash_policy[0].header"},
		{hash(route.HashPolicy{Cookie: &route.CookieHash{Name: "a;"}}), r + ".route.hash_policy[0].cookie.name"},
		{hash(route.HashPolicy{Cookie: &route.CookieHash{Name: "a", Path: "/;x"}}), r + ".route.hash_policy[0].cookie.path"},
		{hash(route.HashPolicy{Cookie: &route.CookieHash{Name: "a", Path: "/\n"}}), r + ".route.hash_policy[0].cookie.path"},

		{redirect(route.RedirectAction{Code: 200}), r + ".redirect.response_code"},
		{redirect(route.RedirectAction{Scheme: "ftp"}), r + ".redirect.scheme_redirect"},
		{redirect(route.RedirectAction{Host: "a:1"}), r + ".redirect.host_redirect"},
		{redirect(route.RedirectAction{Host: "a/"}), r + ".redirect.host_redirect"},
		{redirect(route.RedirectAction{Path: "//evil"}), r + ".redirect.path_redirect"},
		{redirect(route.RedirectAction{Path: "/a?b c"}), r + ".redirect.path_redirect"},
		{redirect(route.RedirectAction{Path: "/a", PrefixRewrite: "/b"}), r + ".redirect.path_redirect"},
		{redirect(route.RedirectAction{Path: "/a", RegexRewrite: &route.RegexRewrite{Pattern: "a"}}), r + ".redirect.path_redirect"},
		{redirect(route.RedirectAction{PrefixRewrite: "b"}), r + ".redirect.prefix_rewrite"},
		{with(func(r *route.Route) {
			r.Match, r.Route, r.Redirect = route.RouteMatch{Connect: true}, nil, &route.RedirectAction{Host: "a"}
		}), r + ".redirect"},

		{set("x y", "", ""), r + ".request_headers.set[0].name"},
		{set("", "", ""), r + ".request_headers.set[0].name"},
		{set(":path", "/", ""), r + ".request_headers.set[0].name"},
		{set("Host", "a", ""), r + ".request_headers.set[0].name"},
		{set("connection", "a", ""), r + ".request_headers.set[0].name"},
		{set("Content-Length", "1", ""), r + ".request_headers.set[0].name"},
		{set("transfer_encoding", "1", ""), r + ".request_headers.set[0].name"},
		{set("Jurat-Result", "a", ""), r + ".request_headers.set[0].name"},
		{set("jurat_result", "a", ""), r + ".request_headers.set[0].name"},
		{set("X-Forwarded-Client-Cert", "a", ""), r + ".request_headers.set[0].name"},
		{set("x", "a\r\nb: c", ""), r + ".request_headers.set[0].value"},
		{set("x", " a", ""), r + ".request_headers.set[0].value"},
		{set("x", "a\x7f", ""), r + ".request_headers.set[0].value"},
		{set("x{", "a", ""), r + ".request_headers.set[0].name"},
		{set("x", "a", "replace"), r + ".request_headers.set[0].append_action"},
	} {
		table, err := route.Compile(c.config, func(cluster string) bool { return cluster != "plain" })
		var e *attest.Error
		if table != nil || !errors.As(err, &e) || e.Code != attest.CodeConfigValue || attest.CodeOf(err) != e.Code || e.Subject != c.place || e.Want == "" || strings.HasSuffix(e.Want, `""`) {
			t.Errorf("want %s, got %v", c.place, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one error: %v", err)
		}
	}
}

// A copy is as protected as what it is of.
func TestMirrorsOfPlainRoutes(t *testing.T) {
	attested := func(name string) bool { return name == "attested" }
	for want, action := range map[bool][]*route.RouteAction{
		true:  {{Cluster: "plain"}, {WeightedClusters: []route.WeightedCluster{{Name: "plain", Weight: 1}, {Name: "other", Weight: 1}}}},
		false: {{Cluster: "attested"}, {WeightedClusters: []route.WeightedCluster{{Name: "plain", Weight: 1}, {Name: "attested", Weight: 1}}}},
	} {
		for _, a := range action {
			a.RequestMirrorPolicies = []route.RequestMirror{{Cluster: "copies"}}
			_, err := route.Compile(route.Config{VirtualHosts: []route.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []route.Route{{Match: route.RouteMatch{Prefix: "/"}, Route: a}}}}}, attested)
			if (err == nil) != want {
				t.Errorf("%+v: %v", a, err)
			}
		}
	}
}

// Without a word about a cluster nothing is mirrored to it, and all that is wrong is told, within reason.
func TestCompileManyErrors(t *testing.T) {
	var c route.Config
	for range 100 {
		r := to("c", route.RouteMatch{Prefix: "/"})
		r.Route.RequestMirrorPolicies = []route.RequestMirror{{Cluster: "attested"}}
		c.VirtualHosts = append(c.VirtualHosts, route.VirtualHost{Name: "a", Domains: []string{"*"}, Routes: []route.Route{r}})
	}
	_, err := route.Compile(c, nil)
	if n := strings.Count(err.Error(), "\n") + 1; n != 20 || !strings.Contains(err.Error(), "virtual_hosts[0].routes[0].route.request_mirror_policies[0].cluster") {
		t.Errorf("got %d: %v", n, err)
	}
	if _, err := route.Compile(route.Config{}, nil); err != nil {
		t.Errorf("no virtual hosts: %v", err)
	}
}
