package route_test

import (
	"errors"
	"testing"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
)

func compile(t testing.TB, c route.Config) *route.Table {
	t.Helper()
	table, err := route.Compile(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func to(name string, m route.RouteMatch) route.Route {
	return route.Route{Name: name, Match: m, Route: &route.RouteAction{Cluster: name}}
}

// one is a table of one virtual host for everything.
func one(routes ...route.Route) route.Config {
	return route.Config{VirtualHosts: []route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
}

func get(authority, path string, fields ...message.Field) *message.Request {
	return &message.Request{Method: "GET", Scheme: "https", Authority: authority, Path: path, Fields: fields, Length: message.NoBody}
}

func TestVirtualHosts(t *testing.T) {
	var c route.Config
	for _, d := range []string{"a.example", "a.example:8080", "*.example", "*.b.example", "*-x.example", "y-*", "a.*", "a.b.*", "[::1]", "*"} {
		c.VirtualHosts = append(c.VirtualHosts, route.VirtualHost{Name: d, Domains: []string{d}, Routes: []route.Route{to("r", route.RouteMatch{Prefix: "/"})}})
	}
	table := compile(t, c)
	for authority, want := range map[string]string{
		"a.example": "a.example", "A.Example": "a.example", "a.example.": "a.example", "a.example:8080": "a.example:8080", "a.example.:8080": "a.example:8080",
		"a.example:9": "a.*", "c.example": "*.example", "c.b.example": "*.b.example", "c-x.example": "*-x.example", ".example": "*", "b.example": "*.example",
		"a.org": "a.*", "a.b.org": "a.b.*", "a.b.example": "*.b.example", "a.": "*", "y-": "*", "y-1": "y-*", "other": "*", "": "*", "[::1]": "[::1]", "[::1]:80": "*", "c.example:80": "*",
	} {
		d, err := table.Match(get(authority, "/"), 0)
		if err != nil || d.VirtualHost() != want {
			t.Errorf("%q: got %q, %v, want %q", authority, d.VirtualHost(), err, want)
		}
	}

	c.VirtualHosts = append(c.VirtualHosts[:1:1], c.VirtualHosts[8])
	c.IgnorePortInHostMatching = true
	table = compile(t, c)
	for authority, want := range map[string]string{"a.example:1": "a.example", "a.example.:1": "a.example", "[::1]:80": "[::1]", "[::1]": "[::1]", "b": "", "a.example:1-1": "", "a.example:x": ""} {
		d, err := table.Match(get(authority, "/"), 0)
		if want == "" != errors.Is(err, route.ErrNoRoute) || err == nil && d.VirtualHost() != want {
			t.Errorf("%q: got %v, want %q", authority, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	yes, no := true, false
	str := func(s route.StringMatcher) *route.StringMatcher { return &s }
	header := func(h route.HeaderMatcher) route.RouteMatch {
		return route.RouteMatch{Prefix: "/", Headers: []route.HeaderMatcher{h}}
	}
	query := func(q route.QueryParameterMatcher) route.RouteMatch {
		return route.RouteMatch{Prefix: "/", QueryParameters: []route.QueryParameterMatcher{q}}
	}
	f := func(name, value string) message.Field { return message.Field{Name: name, Value: value} }
	method := func(m, path string) *message.Request { r := get("a", path); r.Method = m; return r }
	for name, c := range map[string]struct {
		match   route.RouteMatch
		yes, no []*message.Request
	}{
		"path": {
			route.RouteMatch{Path: "/a"},
			[]*message.Request{get("a", "/a"), get("a", "/a?x"), get("a", "/%61"), get("a", "/b/../a"), get("a", "//a")},
			[]*message.Request{get("a", "/a/"), get("a", "/A"), get("a", "/ab"), get("a", "/")},
		},
		"star": {route.RouteMatch{Path: "*"}, []*message.Request{method("OPTIONS", "*")}, []*message.Request{get("a", "/*"), get("a", "/")}},
		"path, any case": {
			route.RouteMatch{Path: "/a", IgnoreCase: true},
			[]*message.Request{get("a", "/A")},
			[]*message.Request{get("a", "/B"), get("a", "/aa")},
		},
		"prefix": {
			route.RouteMatch{Prefix: "/a"},
			[]*message.Request{get("a", "/a"), get("a", "/ab"), get("a", "/a/b?c")},
			[]*message.Request{get("a", "/"), get("a", "/b/a"), method("OPTIONS", "*"), method("CONNECT", "")},
		},
		"separated prefix": {
			route.RouteMatch{PathSeparatedPrefix: "/a"},
			[]*message.Request{get("a", "/a"), get("a", "/a/"), get("a", "/a/b"), get("a", "/a?x")},
			[]*message.Request{get("a", "/ab"), get("a", "/")},
		},
		"separated prefix with its slash": {route.RouteMatch{PathSeparatedPrefix: "/a/"}, []*message.Request{get("a", "/a"), get("a", "/a/b")}, []*message.Request{get("a", "/ab")}},
		"separated root":                  {route.RouteMatch{PathSeparatedPrefix: "/"}, []*message.Request{get("a", "/"), get("a", "/b")}, []*message.Request{method("OPTIONS", "*")}},
		"regex": {
			route.RouteMatch{SafeRegex: "/a[0-9]+|/b"},
			[]*message.Request{get("a", "/a12"), get("a", "/b?/a"), get("a", "/%62")},
			[]*message.Request{get("a", "/a"), get("a", "/a1/"), get("a", "/x/b"), get("a", "/b/")},
		},
		"connect": {route.RouteMatch{Connect: true}, []*message.Request{method("CONNECT", "")}, []*message.Request{get("a", "/"), method("CONNECT", "/chat")}},
		"methods": {
			route.RouteMatch{Prefix: "/", Methods: []string{"PUT", "POST"}},
			[]*message.Request{method("PUT", "/"), method("POST", "/")},
			[]*message.Request{method("GET", "/"), method("put", "/")},
		},
		"header present": {header(route.HeaderMatcher{Name: "x-a", Present: &yes}), []*message.Request{get("a", "/", f("X-A", ""))}, []*message.Request{get("a", "/", f("X-B", ""))}},
		"header absent":  {header(route.HeaderMatcher{Name: "x-a", Present: &no}), []*message.Request{get("a", "/")}, []*message.Request{get("a", "/", f("X-A", ""))}},
		"header present, inverted": {
			header(route.HeaderMatcher{Name: "x-a", Present: &yes, Invert: true}),
			[]*message.Request{get("a", "/")},
			[]*message.Request{get("a", "/", f("X-A", ""))},
		},
		"header absent, inverted": {header(route.HeaderMatcher{Name: "x-a", Present: &no, Invert: true}), []*message.Request{get("a", "/", f("X-A", ""))}, []*message.Request{get("a", "/")}},
		"header exact": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Exact: "1"})}),
			[]*message.Request{get("a", "/", f("X-A", "1"))},
			[]*message.Request{get("a", "/"), get("a", "/", f("X-A", "12")), get("a", "/", f("X-A", "1"), f("x-a", "2"))},
		},
		"header twice": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Exact: "1,2"})}),
			[]*message.Request{get("a", "/", f("X-A", "1"), f("x-b", "3"), f("x-a", "2"), f("x-c", "4")), get("a", "/", f("X-A", "1,2"))},
			[]*message.Request{get("a", "/", f("X-A", "1"))},
		},
		"header empty": {header(route.HeaderMatcher{Name: "x-a", String: &route.StringMatcher{}}), []*message.Request{get("a", "/", f("X-A", ""))}, []*message.Request{get("a", "/"), get("a", "/", f("X-A", "1"))}},
		"header not exact": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Exact: "1"}), Invert: true}),
			[]*message.Request{get("a", "/", f("X-A", "2"))},
			[]*message.Request{get("a", "/"), get("a", "/", f("X-A", "1"))},
		},
		"header not exact or missing": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Exact: "1"}), Invert: true, TreatMissingAsEmpty: true}),
			[]*message.Request{get("a", "/", f("X-A", "2")), get("a", "/")},
			[]*message.Request{get("a", "/", f("X-A", "1"))},
		},
		"header prefix": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Prefix: "ab", IgnoreCase: true})}),
			[]*message.Request{get("a", "/", f("X-A", "ABc"))},
			[]*message.Request{get("a", "/", f("X-A", "a")), get("a", "/", f("X-A", "cab"))},
		},
		"header suffix": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Suffix: "ab"})}),
			[]*message.Request{get("a", "/", f("X-A", "cab"))},
			[]*message.Request{get("a", "/", f("X-A", "b")), get("a", "/", f("X-A", "abc")), get("a", "/", f("X-A", "cAb"))},
		},
		"header contains": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Contains: "ab"})}),
			[]*message.Request{get("a", "/", f("X-A", "cabd"))},
			[]*message.Request{get("a", "/", f("X-A", "cAbd"))},
		},
		"header contains, any case": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Contains: "ab", IgnoreCase: true})}),
			[]*message.Request{get("a", "/", f("X-A", "cAB"))},
			[]*message.Request{get("a", "/", f("X-A", "ba"))},
		},
		"header regex": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{SafeRegex: "a+"})}),
			[]*message.Request{get("a", "/", f("X-A", "aa"))},
			[]*message.Request{get("a", "/", f("X-A", "aab")), get("a", "/", f("X-A", ""))},
		},
		"header exact, any case": {
			header(route.HeaderMatcher{Name: "x-a", String: str(route.StringMatcher{Exact: "ab", IgnoreCase: true})}),
			[]*message.Request{get("a", "/", f("X-A", "AB"))},
			[]*message.Request{get("a", "/", f("X-A", "a")), get("a", "/", f("X-A", "abc"))},
		},
		"header range around 0": {
			header(route.HeaderMatcher{Name: "x-1", Range: &route.Range{Start: -10, End: 1000}}),
			[]*message.Request{get("a", "/", f("X-1", "-10")), get("a", "/", f("X-1", "9")), get("a", "/", f("X-1", "0"))},
			[]*message.Request{get("a", "/", f("X-1", "1000")), get("a", "/", f("X-1", "-11")), get("a", "/", f("X-1", "/")), get("a", "/", f("X-1", "x")), get("a", "/", f("X-1", "-")), get("a", "/", f("X-1", "")), get("a", "/", f("X-1", "1x")), get("a", "/", f("X-1", "-/")), get("a", "/", f("X-1", "18446744073709551617"))},
		},
		"header range": {
			header(route.HeaderMatcher{Name: "x-a", Range: &route.Range{Start: -10, End: 0}}),
			[]*message.Request{get("a", "/", f("X-A", "-10")), get("a", "/", f("X-A", "-1"))},
			[]*message.Request{get("a", "/", f("X-A", "0")), get("a", "/", f("X-A", "-11")), get("a", "/", f("X-A", "x")), get("a", "/", f("X-A", "-")), get("a", "/", f("X-A", "")), get("a", "/", f("X-A", "99999999999999999999")), get("a", "/")},
		},
		"authority present": {header(route.HeaderMatcher{Name: ":authority", Present: &yes}), []*message.Request{get("b", "/")}, []*message.Request{get("", "/")}},
		"scheme present":    {header(route.HeaderMatcher{Name: ":scheme", Present: &yes}), []*message.Request{get("b", "/")}, []*message.Request{{Method: "GET", Path: "/"}}},
		"authority":         {header(route.HeaderMatcher{Name: ":authority", String: str(route.StringMatcher{Exact: "b"})}), []*message.Request{get("b", "/")}, []*message.Request{get("a", "/")}},
		"method":            {header(route.HeaderMatcher{Name: ":method", String: str(route.StringMatcher{Exact: "PUT"})}), []*message.Request{method("PUT", "/")}, []*message.Request{get("a", "/")}},
		"scheme":            {header(route.HeaderMatcher{Name: ":scheme", String: str(route.StringMatcher{Exact: "https"})}), []*message.Request{get("a", "/")}, []*message.Request{{Method: "GET", Authority: "a", Path: "/"}}},
		"query present": {
			query(route.QueryParameterMatcher{Name: "a b", Present: &yes}),
			[]*message.Request{get("a", "/?a+b"), get("a", "/?c&%61%20b=1")},
			[]*message.Request{get("a", "/"), get("a", "/?"), get("a", "/?a"), get("a", "/?c=a+b")},
		},
		"query with digits": {
			query(route.QueryParameterMatcher{Name: "a12", String: str(route.StringMatcher{Exact: "%zz%1z%z1"})}),
			[]*message.Request{get("a", "/?a12=%zz%1z%z1")},
			[]*message.Request{get("a", "/?a123=%zz%1z%z1"), get("a", "/?a1=%zz%1z%z1")},
		},
		"query with a plus": {query(route.QueryParameterMatcher{Name: "a", String: str(route.StringMatcher{Exact: "x y"})}), []*message.Request{get("a", "/?a=x+y")}, []*message.Request{get("a", "/?ab=x+y")}},
		"query absent":      {query(route.QueryParameterMatcher{Name: "a", Present: &no}), []*message.Request{get("a", "/?b")}, []*message.Request{get("a", "/?a"), get("a", "/?%61=")}},
		"query exact": {
			query(route.QueryParameterMatcher{Name: "a", String: str(route.StringMatcher{Exact: "x y%"})}),
			[]*message.Request{get("a", "/?a=x%20y%"), get("a", "/?b&a=x+y%25&a=z"), get("a", "/?a=x+y%")},
			[]*message.Request{get("a", "/?a=xy"), get("a", "/?a=z&a=x+y%25"), get("a", "/")},
		},
	} {
		table := compile(t, one(to("it", c.match), to("rest", route.RouteMatch{Prefix: "/"}), to("tunnel", route.RouteMatch{Connect: true}), to("options", route.RouteMatch{Path: "*"})))
		for _, r := range c.yes {
			if d, err := table.Match(r, 0); err != nil || d.Route() != "it" {
				t.Errorf("%s: %+v doesn't match: %v", name, r, err)
			}
		}
		for _, r := range c.no {
			if d, err := table.Match(r, 0); err != nil || d.Route() == "it" {
				t.Errorf("%s: %+v matches: %v", name, r, err)
			}
		}
	}
}

func TestFirstRouteWins(t *testing.T) {
	table := compile(t, one(to("a", route.RouteMatch{Prefix: "/a"}), to("ab", route.RouteMatch{Path: "/ab"})))
	if d, err := table.Match(get("x", "/ab"), 0); err != nil || d.Cluster() != "a" {
		t.Errorf("got %q, %v", d.Cluster(), err)
	}
	if _, err := table.Match(get("x", "/b"), 0); !errors.Is(err, route.ErrNoRoute) {
		t.Errorf("got %v", err)
	}
	if _, err := table.Match(get("x", "/ab/%2f"), 0); !errors.Is(err, route.ErrPath) {
		t.Errorf("got %v", err)
	}
	if _, err := table.Match(get("x", ""), 0); !errors.Is(err, route.ErrPath) {
		t.Errorf("got %v", err)
	}
	if d, err := new(route.Table).Match(get("x", "/"), 0); !errors.Is(err, route.ErrNoRoute) || d.Action() != 0 {
		t.Errorf("the zero table: got %v", err)
	}
}

// What is forwarded is what was matched.
func TestMatchNormalizes(t *testing.T) {
	table := compile(t, one(to("a", route.RouteMatch{Prefix: "/a"})))
	r := get("x", "/b/..//%61/./c?q=%61/..")
	if _, err := table.Match(r, 0); err != nil || r.Path != "/a/c?q=%61/.." {
		t.Errorf("got %q, %v", r.Path, err)
	}
	c := one(to("a", route.RouteMatch{Prefix: "/a"}))
	c.UnsafeKeepEscapedSlashes = true
	r = get("x", "/a%2fb")
	if _, err := compile(t, c).Match(r, 0); err != nil || r.Path != "/a%2Fb" {
		t.Errorf("got %q, %v", r.Path, err)
	}
}

func TestWeightedClusters(t *testing.T) {
	r := route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: &route.RouteAction{WeightedClusters: []route.WeightedCluster{
		{Name: "none"}, {Name: "a", Weight: 90}, {Name: "b", Weight: 10},
	}}}
	table := compile(t, one(r))
	got := map[string]int{}
	for random := range uint64(1000) {
		d, err := table.Match(get("x", "/"), random)
		if err != nil {
			t.Fatal(err)
		}
		got[d.Cluster()]++
	}
	if got["a"] != 900 || got["b"] != 100 || len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
