package route_test

import (
	"testing"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
)

// FuzzTable compiles what it can and routes a request: nothing panics, and what is forwarded is canonical.
func FuzzTable(f *testing.F) {
	f.Add("*.a.example", "/a", "/[a-z]+", "x-a", "v", "/b", `/\1`, "b.a.example:80", "/a/%62?q=1", "GET", byte(3))
	f.Add("a.*", "/", "(", "jurat", "\n", "/../", `\9`, "a.", "//", "CONNECT", byte(255))
	f.Fuzz(func(t *testing.T, domain, path, regex, name, value, rewrite, substitution, authority, target, method string, flags byte) {
		on := func(bit byte) bool { return flags&(1<<bit) != 0 }
		yes := true
		matchers := []route.HeaderMatcher{{Name: name, String: &route.StringMatcher{Contains: value, IgnoreCase: on(0)}, Invert: on(1), TreatMissingAsEmpty: on(2)}}
		set := route.HeaderMutation{Set: []route.SetHeader{{Name: name, Value: value, Action: "overwrite"}}}
		all := []route.Route{
			{Match: route.RouteMatch{Path: path, IgnoreCase: on(3), Headers: matchers}, Route: &route.RouteAction{Cluster: "a", PrefixRewrite: rewrite}, RequestHeaders: set},
			{Match: route.RouteMatch{PathSeparatedPrefix: path, QueryParameters: []route.QueryParameterMatcher{{Name: name, Present: &yes}}}, Redirect: &route.RedirectAction{PrefixRewrite: rewrite}},
			{Match: route.RouteMatch{SafeRegex: regex}, Route: &route.RouteAction{Cluster: "b", RegexRewrite: &route.RegexRewrite{Pattern: regex, Substitution: substitution}}},
			{Match: route.RouteMatch{Prefix: "/"}, Route: &route.RouteAction{Cluster: "c"}},
		}
		config := route.Config{VirtualHosts: []route.VirtualHost{{Name: "v", Domains: []string{domain, "*"}}}, IgnorePortInHostMatching: on(4), UnsafeKeepEscapedSlashes: on(5)}
		for _, r := range all { // those that compile
			config.VirtualHosts[0].Routes = append(config.VirtualHosts[0].Routes, r)
			if _, err := route.Compile(config, nil); err != nil {
				config.VirtualHosts[0].Routes = config.VirtualHosts[0].Routes[:len(config.VirtualHosts[0].Routes)-1]
			}
		}
		table, err := route.Compile(config, nil)
		if err != nil {
			return
		}
		r := &message.Request{Method: method, Authority: authority, Path: target, Fields: message.Fields{{Name: name, Value: value}}}
		d, err := table.Match(r, uint64(flags))
		if err != nil {
			return
		}
		canonical := func(path string) {
			if again, err := route.Normalize(path, on(5)); path != "" && (again != path || err != nil) {
				t.Fatalf("%q is not canonical: %q, %v", path, again, err)
			}
		}
		canonical(r.Path)
		if d.Action() == route.Redirect {
			_, _, _ = d.Location(r, "http")
			return
		}
		if d.Rewrite(r) != nil {
			return
		}
		canonical(r.Path)
		for _, f := range r.Fields[min(1, len(r.Fields)):] {
			if message.Identifies(f.Name) {
				t.Fatalf("%q was set", f.Name)
			}
		}
	})
}
