package route_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
)

func benchTable(b testing.TB) *route.Table {
	var c route.Config
	for i := range 100 {
		v := route.VirtualHost{Name: fmt.Sprint(i), Domains: []string{fmt.Sprintf("s%d.ns.svc.cluster.local", i), fmt.Sprintf("*.w%d.example", i)}}
		for j := range 20 {
			v.Routes = append(v.Routes, to(fmt.Sprint(j), route.RouteMatch{PathSeparatedPrefix: fmt.Sprintf("/api/v%d", j)}))
		}
		v.Routes = append(v.Routes,
			to("header", route.RouteMatch{
				Prefix: "/h", Methods: []string{"GET"},
				Headers:         []route.HeaderMatcher{{Name: "x-user", String: &route.StringMatcher{Exact: "jane"}}},
				QueryParameters: []route.QueryParameterMatcher{{Name: "q", String: &route.StringMatcher{Exact: "1"}}},
			}),
			to("regex", route.RouteMatch{SafeRegex: "/r/[0-9]+/(a|b)"}))
		v.Routes[len(v.Routes)-1].Route.HashPolicy = []route.HashPolicy{{Header: "x-user"}, {Cookie: &route.CookieHash{Name: "s"}}, {SourceIP: true}}
		c.VirtualHosts = append(c.VirtualHosts, v)
	}
	return compile(b, c)
}

var requests = map[string]*message.Request{
	"exact host, first route": get("s50.ns.svc.cluster.local", "/api/v0/x?y=1"),
	"suffix host, 20th route": get("A.W50.example", "/api/v19"),
	"header and query":        get("s50.ns.svc.cluster.local", "/h?p=2&q=1", message.Field{Name: "Accept", Value: "*/*"}, message.Field{Name: "X-User", Value: "jane"}),
	"regex":                   get("s50.ns.svc.cluster.local", "/r/123/b", message.Field{Name: "X-User", Value: "jane"}, message.Field{Name: "Cookie", Value: "t=1; s=2"}),
}

func BenchmarkMatch(b *testing.B) {
	table := benchTable(b)
	for name, r := range requests {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Match(r, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHash(b *testing.B) {
	r := requests["regex"]
	d, err := benchTable(b).Match(r, 0)
	if err != nil {
		b.Fatal(err)
	}
	source := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		d.Hash(r, source, 0)
	}
}

func BenchmarkNormalize(b *testing.B) {
	for _, p := range []string{"/api/v1/users/42/orders?limit=10&after=abc", "/api/%76%31/../v2//x"} {
		b.Run(p, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := route.Normalize(p, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := benchTable(t)
	for name, r := range requests {
		if n := testing.AllocsPerRun(100, func() {
			d, err := table.Match(r, 0)
			if err != nil {
				t.Fatal(err)
			}
			d.Hash(r, netip.IPv6Loopback(), 0)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
