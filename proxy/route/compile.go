package route

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/pattern"
)

const (
	maxErrors = 20
	maxRegex  = 4 << 10  // bytes of an expression
	maxWeight = 8 << 10  // of one (package pattern): a token of three parts of up to a thousand bytes has 6,000
	maxBody   = 64 << 10 // bytes of a direct response
)

// Attested reports whether the endpoints of a cluster have to prove what they are.
type Attested func(cluster string) bool

// Compile makes a Table. Copies of requests go to attested clusters alone, but for those of a route whose requests themselves
// go to none: no copy may be less protected than what it is of. attested tells which are; nil allows no copies. The error joins an *attest.Error for each value that is not allowed, whose Subject is its place in the configuration, such as
// "virtual_hosts[0].routes[2].match.path".
func Compile(config Config, attested Attested) (*Table, error) {
	c := &compiler{attested: attested}
	t := &Table{ignorePort: config.IgnorePortInHostMatching, keepEscapedSlashes: config.UnsafeKeepEscapedSlashes}
	t.exact, t.suffixes.hosts, t.prefixes.hosts = map[string]*virtualHost{}, map[string]*virtualHost{}, map[string]*virtualHost{}
	global := c.edits("", config.RequestHeaders, config.ResponseHeaders)
	names := map[string]bool{}
	for i := range config.VirtualHosts {
		at := fmt.Sprintf("virtual_hosts[%d]", i)
		v := &config.VirtualHosts[i]
		if v.Name == "" || names[v.Name] {
			c.bad(at+".name", quote(v.Name), "a name that no other virtual host has")
		}
		names[v.Name] = true
		host := &virtualHost{name: v.Name}
		c.domains(t, host, at+".domains", v.Domains)
		edits := c.edits(at, v.RequestHeaders, v.ResponseHeaders).then(global)
		for j := range v.Routes {
			host.routes = append(host.routes, c.route(fmt.Sprintf("%s.routes[%d]", at, j), &v.Routes[j], edits, t.keepEscapedSlashes))
		}
	}
	t.suffixes.sort()
	t.prefixes.sort()
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return t, nil
}

type compiler struct {
	attested Attested
	errs     []error
}

func (c *compiler) bad(at, got, want string) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, &attest.Error{Code: attest.CodeConfigValue, Check: "route", Subject: at, Got: got, Want: want})
	}
}

func quote(s string) string { return fmt.Sprintf("%.100q", s) }

// regex compiles an expression that has to match all of a value.
func (c *compiler) regex(at, expr string) *regexp.Regexp {
	return c.pattern(at, expr, true)
}

func (c *compiler) pattern(at, expr string, whole bool) *regexp.Regexp {
	if len(expr) > maxRegex {
		c.bad(at, strconv.Itoa(len(expr))+" bytes", fmt.Sprintf("at most %d bytes", maxRegex))
		return nil
	}
	re, _, err := pattern.Compile(expr, whole, maxWeight)
	if err != nil {
		if _, more := syntax.Parse(expr, syntax.Perl); more != nil {
			err = more
		}
		c.bad(at, quote(expr), "an expression of RE2: "+err.Error())
	}
	return re
}

// one reports whether exactly one of the choices was made.
func (c *compiler) one(at, want string, choices ...bool) bool {
	n := 0
	for _, chosen := range choices {
		if chosen {
			n++
		}
	}
	if n != 1 {
		c.bad(at, strconv.Itoa(n)+" of them", "one of "+want)
	}
	return n == 1
}

// path checks that a path in the configuration is one that a request can have.
func (c *compiler) path(at, path string, keepEscapedSlashes bool) {
	canonical, err := Normalize(path, keepEscapedSlashes)
	switch {
	case err != nil:
		c.bad(at, quote(path), "a path that begins with a slash, without dot segments above the root, encoded slashes, spaces and control characters")
	case strings.ContainsRune(path, '?'):
		c.bad(at, quote(path), "a path without a query")
	case canonical != path:
		c.bad(at, quote(path), "its canonical form "+quote(canonical))
	}
}

// notNegative checks that a duration is not below 0.
func (c *compiler) notNegative(at string, d time.Duration) {
	if d < 0 {
		c.bad(at, d.String(), "0 or more")
	}
}

func (c *compiler) route(at string, r *Route, outer edits, keep bool) *entry {
	e := &entry{name: r.Name, match: c.match(at+".match", &r.Match, keep)}
	inner := c.edits(at, r.RequestHeaders, r.ResponseHeaders).then(outer)
	e.plain = target{edits: inner}
	if !c.one(at, "route, redirect and direct_response", r.Route != nil, r.Redirect != nil, r.DirectResponse != nil) {
		return e
	}
	switch {
	case r.Route != nil:
		e.action = Forward
		c.forward(at+".route", e, r, inner)
	case r.Redirect != nil:
		e.action = Redirect
		e.redirect = c.redirect(at+".redirect", r.Redirect, &r.Match)
	default:
		e.action = Respond
		e.direct = *r.DirectResponse
		if s := e.direct.Status; s < 200 || s > 599 {
			c.bad(at+".direct_response.status", strconv.Itoa(s), "200 to 599")
		}
		if s := e.direct.Status; e.direct.Body != "" && (s == 204 || s == 205 || s == 304) { // RFC 9110 sections 15.3.5, 15.3.6, 15.4.5
			c.bad(at+".direct_response.body", "one beside status "+strconv.Itoa(s), "no body: an answer of that status has none")
		}
		if len(e.direct.Body) > maxBody {
			c.bad(at+".direct_response.body", strconv.Itoa(len(e.direct.Body))+" bytes", fmt.Sprintf("at most %d bytes", maxBody))
		}
	}
	return e
}

func (c *compiler) forward(at string, e *entry, r *Route, inner edits) {
	a := r.Route
	if c.one(at, "cluster and weighted_clusters", a.Cluster != "", len(a.WeightedClusters) > 0) {
		e.plain.cluster = a.Cluster
		c.weighted(at+".weighted_clusters", e, a.WeightedClusters, inner)
	}
	e.rewrite = c.rewrite(at, a.PrefixRewrite, a.RegexRewrite, &r.Match)
	if a.HostRewrite != "" && !authority(a.HostRewrite) {
		c.bad(at+".host_rewrite_literal", quote(a.HostRewrite), "a host, with or without a port")
	}
	e.host = a.HostRewrite
	e.timeouts = Timeouts{Request: withDefault(a.Timeout, 15*time.Second), Idle: withDefault(a.IdleTimeout, 5*time.Minute), GRPC: a.MaxGRPCTimeout, Defaults: a.Timeout == 0}
	c.notNegative(at+".max_grpc_timeout", a.MaxGRPCTimeout)
	if a.RetryPolicy != nil {
		e.retry = c.retry(at+".retry_policy", a.RetryPolicy)
		e.timeouts.PerTry, e.timeouts.PerTryIdle = a.RetryPolicy.PerTryTimeout, a.RetryPolicy.PerTryIdleTimeout
	}
	e.mirrors = c.mirror(at+".request_mirror_policies", a.RequestMirrorPolicies, e)
	e.hash = c.hash(at+".hash_policy", a.HashPolicy)
}

func (c *compiler) weighted(at string, e *entry, clusters []WeightedCluster, inner edits) {
	for i, w := range clusters {
		here := fmt.Sprintf("%s[%d]", at, i)
		if w.Name == "" {
			c.bad(here+".name", `""`, "the name of a cluster")
		}
		e.total += uint64(w.Weight)
		e.targets = append(e.targets, target{cluster: w.Name, upTo: e.total, edits: c.edits(here, w.RequestHeaders, w.ResponseHeaders).then(inner)})
	}
	if len(clusters) > 0 && e.total == 0 {
		c.bad(at, "weights of 0", "a weight above 0")
	}
}

func withDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return max(d, 0)
}
