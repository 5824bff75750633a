package route_test

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
)

func decide(t *testing.T, c route.Config, r *message.Request) route.Decision {
	t.Helper()
	table, err := route.Compile(c, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	d, err := table.Match(r, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct {
		match    route.RouteMatch
		action   route.RouteAction
		in, want string
	}{
		{route.RouteMatch{Prefix: "/a"}, route.RouteAction{}, "/a/b?c", "/a/b?c"},
		{route.RouteMatch{Prefix: "/a"}, route.RouteAction{PrefixRewrite: "/x"}, "/a/b?c", "/x/b?c"},
		{route.RouteMatch{Prefix: "/a"}, route.RouteAction{PrefixRewrite: "/"}, "/a/b", "/b"},
		{route.RouteMatch{Prefix: "/a"}, route.RouteAction{PrefixRewrite: "/"}, "/a", "/"},
		{route.RouteMatch{Prefix: "/a/"}, route.RouteAction{PrefixRewrite: "/x"}, "/a/b", "/xb"},
		{route.RouteMatch{Prefix: "/a", IgnoreCase: true}, route.RouteAction{PrefixRewrite: "/x"}, "/A/b", "/x/b"},
		{route.RouteMatch{PathSeparatedPrefix: "/a/"}, route.RouteAction{PrefixRewrite: "/x"}, "/a/b", "/x/b"},
		{route.RouteMatch{PathSeparatedPrefix: "/a/"}, route.RouteAction{PrefixRewrite: "/x"}, "/a", "/x"},
		{route.RouteMatch{Path: "/a"}, route.RouteAction{PrefixRewrite: "/x"}, "/a?b", "/x?b"},
		{route.RouteMatch{PathSeparatedPrefix: "/"}, route.RouteAction{PrefixRewrite: "/x"}, "/a", "/x/a"},
		// What a prefix takes off must not leave a dot segment.
		{route.RouteMatch{Prefix: "/a"}, route.RouteAction{PrefixRewrite: "/x/"}, "/a../b", ""},
		{route.RouteMatch{Prefix: "/a"}, route.RouteAction{PrefixRewrite: "/"}, "/a../b", ""},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "/(.*)/v1/(.*)", Substitution: `/\2/\1$1\\`}}, "/s/v1/m?v1", ""},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "/(.*)/v1/(.*)", Substitution: `/\2/\1$1`}}, "/s/v1/m?v1", "/m/s$1?v1"},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "a", Substitution: `(\0)`}}, "/aba", "/(a)b(a)"},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "a", Substitution: "[]"}}, "/a", ""},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "^/a", Substitution: "///"}}, "/a/b", "/b"},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "0", Substitution: ""}}, "/%200e", ""},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "^/"}}, "/a", ""},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: ".*"}}, "/a", ""},
		{route.RouteMatch{Prefix: "/"}, route.RouteAction{RegexRewrite: &route.RegexRewrite{Pattern: "a", Substitution: "?"}}, "/a", ""},
	} {
		c.action.Cluster = "c"
		r := get("a", c.in)
		d := decide(t, one(route.Route{Match: c.match, Route: &c.action}), r)
		err := d.Rewrite(r)
		if r.Authority != "a" {
			t.Errorf("%+v: authority %q", c.action, r.Authority)
		}
		if c.want == "" && !errors.Is(err, route.ErrPath) || c.want != "" && (err != nil || r.Path != c.want) {
			t.Errorf("%+v of %s: got %q, %v, want %q", c.action, c.in, r.Path, err, c.want)
		}
	}

	r := get("a", "/")
	if err := decide(t, one(route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: &route.RouteAction{Cluster: "c", HostRewrite: "b:1"}}), r).Rewrite(r); err != nil || r.Authority != "b:1" {
		t.Errorf("got %q, %v", r.Authority, err)
	}
	r = &message.Request{Method: "CONNECT", Authority: "a"}
	if err := decide(t, one(to("c", route.RouteMatch{Connect: true})), r).Rewrite(r); err != nil || r.Path != "" {
		t.Errorf("got %q, %v", r.Path, err)
	}
}

// TestEditsOfOtherSpellings: of a request goes every spelling that a service could take for the name, and of a response none but it.
func TestEditsOfOtherSpellings(t *testing.T) {
	r := to("c", route.RouteMatch{Prefix: "/"})
	edit := route.HeaderMutation{Remove: []string{"x-gone"}, Set: []route.SetHeader{
		{Name: "X-Role", Value: "guest", Action: "overwrite"},
		{Name: "X-If", Value: "guest", Action: "overwrite_if_exists"},
		{Name: "X-Absent", Value: "guest", Action: "add_if_absent"},
	}}
	r.RequestHeaders, r.ResponseHeaders = edit, edit
	spelt := func() message.Fields {
		return message.Fields{{Name: "x_role", Value: "root"}, {Name: "X.ROLE", Value: "root"}, {Name: "X-Roles", Value: "1"}, {Name: "x_gone", Value: "1"}, {Name: "x_if", Value: "root"}, {Name: "x_absent", Value: "1"}}
	}
	req := get("a", "/", spelt()...)
	d := decide(t, one(r), req)
	if err := d.Rewrite(req); err != nil {
		t.Fatal(err)
	}
	want := message.Fields{{Name: "X-Roles", Value: "1"}, {Name: "x_absent", Value: "1"}, {Name: "X-Role", Value: "guest"}, {Name: "X-If", Value: "guest"}}
	if !reflect.DeepEqual(req.Fields, want) {
		t.Errorf("got %v", req.Fields)
	}
	if got, want := d.EditResponse(spelt()), append(spelt(), message.Field{Name: "X-Role", Value: "guest"}, message.Field{Name: "X-Absent", Value: "guest"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestEdits(t *testing.T) {
	set := func(name, value, action string) []route.SetHeader {
		return []route.SetHeader{{Name: name, Value: value, Action: action}}
	}
	r := to("c", route.RouteMatch{Prefix: "/"})
	r.RequestHeaders = route.HeaderMutation{Remove: []string{"x-gone", "x-none"}, Set: []route.SetHeader{
		{Name: "X-Append", Value: "2"},
		{Name: "x-absent", Value: "1", Action: "add_if_absent"},
		{Name: "x-there", Value: "2", Action: "add_if_absent"},
		{Name: "x-over", Value: "2", Action: "overwrite"},
		{Name: "x-new", Value: "1\t2", Action: "overwrite"},
		{Name: "x-if", Value: "2", Action: "overwrite_if_exists"},
		{Name: "x-if-not", Value: "2", Action: "overwrite_if_exists"},
	}}
	r.Route = &route.RouteAction{WeightedClusters: []route.WeightedCluster{{
		Name: "w", Weight: 1, RequestHeaders: route.HeaderMutation{Set: set("x-order", "cluster", "append")},
		ResponseHeaders: route.HeaderMutation{Set: set("x-out", "cluster", "append")},
	}}}
	c := one(r)
	c.VirtualHosts[0].RequestHeaders.Set = set("x-order", "host", "append")
	c.RequestHeaders.Set = set("x-order", "table", "append")
	c.ResponseHeaders.Set = set("x-out", "table", "overwrite")
	req := get("a", "/",
		message.Field{Name: "X-Gone", Value: "1"}, message.Field{Name: "X-Append", Value: "1"}, message.Field{Name: "X-There", Value: "1"},
		message.Field{Name: "X-Over", Value: "1"}, message.Field{Name: "x-over", Value: "1"}, message.Field{Name: "X-If", Value: "1"}, message.Field{Name: "x-gone", Value: "2"})
	d := decide(t, c, req)
	if err := d.Rewrite(req); err != nil {
		t.Fatal(err)
	}
	want := message.Fields{
		{Name: "X-Append", Value: "1"},
		{Name: "X-There", Value: "1"},
		{Name: "x-order", Value: "cluster"},
		{Name: "X-Append", Value: "2"},
		{Name: "x-absent", Value: "1"},
		{Name: "x-over", Value: "2"},
		{Name: "x-new", Value: "1\t2"},
		{Name: "x-if", Value: "2"},
		{Name: "x-order", Value: "host"},
		{Name: "x-order", Value: "table"},
	}
	if !reflect.DeepEqual(req.Fields, want) {
		t.Errorf("got %v", req.Fields)
	}
	if got := d.EditResponse(nil); !reflect.DeepEqual(got, message.Fields{{Name: "x-out", Value: "table"}}) {
		t.Errorf("got %v", got)
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		action          route.RedirectAction
		scheme, in      string // authority and target
		want            string
		code            int
		regex           bool
		optionsAsterisk bool
	}{
		{action: route.RedirectAction{Scheme: "https"}, scheme: "http", in: "a:80/p/x?q", want: "https://a/p/x?q", code: 301},
		{action: route.RedirectAction{Scheme: "https"}, scheme: "http", in: "a:8080/p", want: "https://a:8080/p", code: 301},
		{action: route.RedirectAction{Scheme: "http", Code: 302}, scheme: "https", in: "a:443/p", want: "http://a/p", code: 302},
		{action: route.RedirectAction{Scheme: "http"}, scheme: "https", in: "a:80/p", want: "http://a:80/p", code: 301},
		{action: route.RedirectAction{Scheme: "http"}, scheme: "https", in: "a:8443/p", want: "http://a:8443/p", code: 301},
		{action: route.RedirectAction{Scheme: "https"}, scheme: "http", in: "a:443/p", want: "https://a:443/p", code: 301},
		{action: route.RedirectAction{Scheme: "https"}, scheme: "https", in: "a:443/p", want: "https://a:443/p", code: 301},
		{action: route.RedirectAction{Scheme: "https", Port: 8443, Code: 308}, scheme: "http", in: "a:80/p", want: "https://a:8443/p", code: 308},
		{action: route.RedirectAction{Host: "b", Code: 307}, scheme: "https", in: "a:1/p", want: "https://b/p", code: 307},
		{action: route.RedirectAction{Path: "/n", Code: 303}, scheme: "https", in: "a/p?q", want: "https://a/n?q", code: 303},
		{action: route.RedirectAction{Path: "/n?m"}, scheme: "https", in: "a/p?q", want: "https://a/n?m", code: 301},
		{action: route.RedirectAction{Path: "/n", StripQuery: true}, scheme: "https", in: "a/p?q", want: "https://a/n", code: 301},
		{action: route.RedirectAction{PrefixRewrite: "/"}, scheme: "https", in: "a/p/evil.example?q", want: "https://a/evil.example?q", code: 301},
		{action: route.RedirectAction{PrefixRewrite: "/", StripQuery: true}, scheme: "https", in: "a/p?q", want: "https://a/", code: 301},
		{action: route.RedirectAction{RegexRewrite: &route.RegexRewrite{Pattern: "^/p/(.*)", Substitution: `/\1/q`}}, scheme: "https", in: "a/p/x", want: "https://a/x/q", code: 301},
		{action: route.RedirectAction{RegexRewrite: &route.RegexRewrite{Pattern: "^/", Substitution: "x"}}, scheme: "https", in: "a/p/x"},
		{action: route.RedirectAction{Scheme: "https"}, scheme: "http", in: "/p"},
		{action: route.RedirectAction{Scheme: "https"}, scheme: "http", in: "a@b/p"},
		{action: route.RedirectAction{Scheme: "https", Host: "b"}, scheme: "http", in: "/p", want: "https://b/p", code: 301},
	} {
		authority, path := c.in[:strings.IndexByte(c.in, '/')], c.in[strings.IndexByte(c.in, '/'):]
		r := get(authority, path)
		d := decide(t, one(route.Route{Match: route.RouteMatch{Prefix: "/p"}, Redirect: &c.action}), r)
		code, got, err := d.Location(r, c.scheme)
		if d.Action() != route.Redirect || got != c.want || c.want != "" && code != c.code || (err == nil) != (c.want != "") {
			t.Errorf("%+v of %s: got %d %q, %v", c.action, c.in, code, got, err)
		}
	}
	r := get("a", "*")
	if _, _, err := decide(t, one(route.Route{Match: route.RouteMatch{Path: "*"}, Redirect: &route.RedirectAction{Host: "b"}}), r).Location(r, "http"); !errors.Is(err, route.ErrPath) {
		t.Errorf("got %v", err)
	}
}

func TestDirectResponse(t *testing.T) {
	d := decide(t, one(route.Route{Match: route.RouteMatch{Prefix: "/"}, DirectResponse: &route.DirectResponse{Status: 403, Body: "no"}}), get("a", "/"))
	if s, b := d.DirectResponse(); d.Action() != route.Respond || s != 403 || b != "no" {
		t.Errorf("got %v %d %q", d.Action(), s, b)
	}
}

func forward(a route.RouteAction) route.Config {
	a.Cluster = "c"
	return one(route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: &a})
}

func TestTimeouts(t *testing.T) {
	d := decide(t, forward(route.RouteAction{}), get("a", "/"))
	if got := d.Timeouts(); got != (route.Timeouts{Request: 15 * time.Second, Idle: 5 * time.Minute, Defaults: true}) || d.Action() != route.Forward {
		t.Errorf("got %+v", got)
	}
	d = decide(t, forward(route.RouteAction{
		Timeout: -1, IdleTimeout: time.Second, MaxGRPCTimeout: 4,
		RetryPolicy: &route.RetryPolicy{RetryOn: []string{"5xx"}, PerTryTimeout: 2, PerTryIdleTimeout: 3},
	}), get("a", "/"))
	if got := d.Timeouts(); got != (route.Timeouts{Idle: time.Second, PerTry: 2, PerTryIdle: 3, GRPC: 4}) {
		t.Errorf("got %+v", got)
	}
}

func TestRetry(t *testing.T) {
	retry := func(p route.RetryPolicy) *route.Retry {
		return decide(t, forward(route.RouteAction{RetryPolicy: &p}), get("a", "/")).Retry()
	}
	all := []route.Failure{route.FailureConnect, route.FailureRefusedStream, route.FailureReset, route.FailureTimeout, 99}
	for _, c := range []struct {
		on       string
		status   []int
		failures string // one letter for each of all
		grpc     []uint32
	}{
		{"5xx", []int{500, 502, 503, 504, 599}, "yyyyn", nil},
		{"gateway-error", []int{502, 503, 504}, "yyyyn", nil},
		{"reset", nil, "yyyyn", nil},
		{"connect-failure", nil, "ynnnn", nil},
		{"refused-stream", nil, "nynnn", nil},
		{"retriable-4xx", []int{409}, "nnnnn", nil},
		{"retriable-status-codes", []int{404}, "nnnnn", nil},
		{"cancelled", nil, "nnnnn", []uint32{1}},
		{"deadline-exceeded", nil, "nnnnn", []uint32{4}},
		{"resource-exhausted", nil, "nnnnn", []uint32{8}},
		{"internal", nil, "nnnnn", []uint32{13}},
		{"unavailable", nil, "nnnnn", []uint32{14}},
	} {
		p := route.RetryPolicy{RetryOn: []string{c.on}}
		if c.on == "retriable-status-codes" {
			p.RetriableStatusCodes = []int{404}
		}
		r := retry(p)
		var status []int
		for _, s := range []int{200, 404, 409, 499, 500, 502, 503, 504, 599, 600} {
			if r.OnStatus(s) {
				status = append(status, s)
			}
		}
		var grpc []uint32
		for s := range uint32(64) {
			if r.OnGRPC(s) {
				grpc = append(grpc, s)
			}
		}
		failures := ""
		for _, f := range all {
			failures += map[bool]string{true: "y", false: "n"}[r.OnFailure(f)]
		}
		if !reflect.DeepEqual(status, c.status) || failures != c.failures || !reflect.DeepEqual(grpc, c.grpc) {
			t.Errorf("%s: got %v %s %v", c.on, status, failures, grpc)
		}
	}

	r := retry(route.RetryPolicy{RetryOn: []string{"5xx"}})
	if r.Number() != 1 || r.AvoidTried() != 0 {
		t.Errorf("got %d, %d", r.Number(), r.AvoidTried())
	}
	const most = ^uint64(0)
	for n, want := range []time.Duration{25, 25, 75, 175, 250, 250} {
		if got := r.BackOff(n, most); got != want*time.Millisecond || r.BackOff(n, 0) != 0 || r.BackOff(n, most/2).Round(time.Microsecond) != got/2 {
			t.Errorf("retry %d: got %v, want %v ms", n, got, want)
		}
	}
	for _, n := range []int{31, 32, 33, 62, 63, 64, 1000} {
		if got := r.BackOff(n, most); got != 250*time.Millisecond {
			t.Errorf("retry %d: got %v", n, got)
		}
	}
	if got := retry(route.RetryPolicy{RetryOn: []string{"5xx"}, BackOffBase: time.Second}).BackOff(9, most); got != 10*time.Second {
		t.Errorf("got %v", got)
	}
	r = retry(route.RetryPolicy{RetryOn: []string{"5xx"}, NumRetries: 7, AvoidPreviousHosts: true, HostSelectionAttempts: 5, BackOffBase: time.Hour, BackOffMax: time.Hour})
	if r.Number() != 7 || r.AvoidTried() != 5 || r.BackOff(40, most) != time.Hour {
		t.Errorf("got %d, %d", r.Number(), r.AvoidTried())
	}
	if r = retry(route.RetryPolicy{RetryOn: []string{"5xx"}, NumRetries: -1, AvoidPreviousHosts: true}); r.Number() != 0 || r.AvoidTried() != 1 {
		t.Errorf("got %d, %d", r.Number(), r.AvoidTried())
	}
	if r = nil; r.Number() != 0 || r.OnStatus(500) || r.OnGRPC(14) || r.OnFailure(route.FailureConnect) || r.AvoidTried() != 0 {
		t.Error("no policy retries")
	}
}

func TestHedge(t *testing.T) {
	methods := []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "get", "X"}
	const s, m = time.Second, time.Minute
	for _, c := range []struct {
		policy *route.RetryPolicy
		want   []time.Duration
	}{
		{nil, make([]time.Duration, 10)},
		{&route.RetryPolicy{PerTryTimeout: s}, make([]time.Duration, 10)},
		{&route.RetryPolicy{PerTryTimeout: s, Hedge: &route.Hedge{}}, []time.Duration{s, s, s, s, s, s, 0, 0, 0, 0}},
		{&route.RetryPolicy{PerTryTimeout: s, Hedge: &route.Hedge{After: m}}, []time.Duration{m, m, m, m, m, m, 0, 0, 0, 0}},
		{&route.RetryPolicy{Hedge: &route.Hedge{After: m, AnyMethod: true}}, slices.Repeat([]time.Duration{m}, 10)},
	} {
		r := to("r", route.RouteMatch{Prefix: "/"})
		if c.policy != nil {
			c.policy.RetryOn = []string{"5xx"}
		}
		r.Route.RetryPolicy = c.policy
		d := decide(t, one(r), get("a", "/"))
		var got []time.Duration
		for _, m := range methods {
			got = append(got, d.Retry().HedgeAfter(m))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v", c.policy, got)
		}
	}
}

func TestMirrors(t *testing.T) {
	d := decide(t, forward(route.RouteAction{RequestMirrorPolicies: []route.RequestMirror{
		{Cluster: "all"}, {Cluster: "some", Numerator: 25, Denominator: 100}, {Cluster: "none", Denominator: 1_000_000}, {Cluster: "few", Numerator: 100, Denominator: 10_000},
	}}), get("a", "/"))
	got := map[string]int{}
	for random := range uint64(1000) {
		for _, m := range d.Mirrors() {
			if m.Wanted(random) {
				got[m.Cluster]++
			}
		}
	}
	if !reflect.DeepEqual(got, map[string]int{"all": 1000, "some": 250, "few": 100}) {
		t.Errorf("got %v", got)
	}
}

func TestHash(t *testing.T) {
	v4, mapped, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	hash := func(r *message.Request, source netip.Addr, policies ...route.HashPolicy) (uint64, string, bool) {
		return decide(t, forward(route.RouteAction{HashPolicy: policies}), r).Hash(r, source, 0xabc)
	}
	with := func(value string) *message.Request { return get("a", "/", message.Field{Name: "X-User", Value: value}) }
	user, source := route.HashPolicy{Header: "x-user"}, route.HashPolicy{SourceIP: true}
	a, _, ok := hash(with("1"), v4, user)
	if again, _, _ := hash(with("1"), other, user); !ok || again != a {
		t.Errorf("got %x, %x", a, again)
	}
	if b, _, _ := hash(with("2"), v4, user); b == a {
		t.Error("two users have one hash")
	}
	if _, _, ok := hash(get("a", "/"), v4, user); ok {
		t.Error("a hash of nothing")
	}
	if _, _, ok := hash(get("a", "/"), netip.Addr{}, source); ok {
		t.Error("a hash of no address")
	}
	ip, _, _ := hash(with("1"), v4, source)
	if same, _, _ := hash(with("2"), mapped, source); same != ip {
		t.Error("a mapped address is another")
	}
	if b, _, _ := hash(with("1"), other, source); b == ip {
		t.Error("two addresses have one hash")
	}
	query := route.HashPolicy{QueryParameter: "u"}
	q, _, ok := hash(get("a", "/?t=2&u=%31"), v4, query)
	if !ok || q != a {
		t.Errorf("got %x of a query", q)
	}
	if _, _, ok := hash(get("a", "/?t=2"), v4, query); ok {
		t.Error("a hash of no parameter")
	}
	// Policies combine, up to a terminal one that gave something.
	both, _, _ := hash(with("1"), v4, user, source)
	if both == a || both == ip {
		t.Error("policies don't combine")
	}
	terminal := user
	terminal.Terminal = true
	if got, _, _ := hash(with("1"), v4, terminal, source); got != a {
		t.Error("terminal was not the end")
	}
	if got, _, _ := hash(get("a", "/"), v4, terminal, source); got != ip {
		t.Error("terminal without a hash was the end")
	}
	// Cookies.
	sticky := route.HashPolicy{Cookie: &route.CookieHash{Name: "s", Path: "/", TTL: 1500 * time.Millisecond}}
	made, set, ok := hash(get("a", "/"), v4, sticky)
	if !ok || set != "s=abc; Path=/; Max-Age=2; HttpOnly" {
		t.Errorf("got %q", set)
	}
	for _, c := range []string{"s=abc", "t=1;s=abc", `t; s = "abc" ; s=2`} {
		if back, set, ok := hash(get("a", "/", message.Field{Name: "x", Value: "s=2"}, message.Field{Name: "Cookie", Value: c}), v4, sticky); !ok || back != made || set != "" {
			t.Errorf("%s: got %x, %q, want %x", c, back, set, made)
		}
	}
	sticky.Cookie.TTL, sticky.Cookie.Path = -1, ""
	if _, set, _ := hash(get("a", "/"), v4, sticky); set != "s=abc; HttpOnly" {
		t.Errorf("got %q", set)
	}
	sticky.Cookie.TTL = 0
	if _, set, ok := hash(get("a", "/", message.Field{Name: "Cookie", Value: "ss=1"}), v4, sticky); set != "" || ok {
		t.Errorf("got %q", set)
	}
}
