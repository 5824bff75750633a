package envoy

//lint:file-ignore SA1019 control planes still send fields that are deprecated

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	httprbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/xds/resource"
)

// collectRoutes reads the route configurations. What they mean depends on who uses them, too.
func (t *translator) collectRoutes() {
	for _, r := range t.sorted(resource.Route) {
		s := t.scope(Key{r.Type, r.Name})
		m := new(routev3.RouteConfiguration)
		if s.read(r, m) && s.named(r, m.GetName()) {
			c := s.routes("", m, manner{})
			if len(s.errs) == 0 {
				_, err := t.forTable(&c).Table(&c)
				s.within("", err)
			}
		}
		if s.done() {
			t.routes[r.Name] = rds{m, s}
		}
	}
}

// rds is a route configuration that is sound, and the scope that its extensions are open in.
type rds struct {
	*routev3.RouteConfiguration
	*scope
}

// manner is what the user of routes adds to them.
type manner struct {
	idle  time.Duration // of streams, where a route says nothing; 0 is the default
	plain bool          // clients come without TLS

	retry    *routev3.RetryPolicy // of the virtual host, and so the next two
	hedge    *routev3.HedgePolicy
	hedgesAt string
}

func (s *scope) routes(at string, m *routev3.RouteConfiguration, how manner) route.Config {
	c := route.Config{IgnorePortInHostMatching: m.GetIgnorePortInHostMatching()}
	c.RequestHeaders = s.edits(at, "request", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	c.ResponseHeaders = s.edits(at, "response", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	s.perFilter(at, m.GetTypedPerFilterConfig())
	for i, v := range m.GetVirtualHosts() {
		c.VirtualHosts = append(c.VirtualHosts, s.virtualHost(join(at, fmt.Sprintf("virtual_hosts[%d]", i)), v, how))
	}
	if len(c.VirtualHosts) == 0 { // nothing is found, whatever is asked for
		c.VirtualHosts = []route.VirtualHost{{Name: "none", Domains: []string{"*"}}}
	}
	return c
}

func (s *scope) virtualHost(at string, v *routev3.VirtualHost, how manner) route.VirtualHost {
	out := route.VirtualHost{Name: v.GetName(), Domains: domains(v.GetDomains())}
	out.RequestHeaders = s.edits(at, "request", v.GetRequestHeadersToAdd(), v.GetRequestHeadersToRemove())
	out.ResponseHeaders = s.edits(at, "response", v.GetResponseHeadersToAdd(), v.GetResponseHeadersToRemove())
	s.perFilter(at, v.GetTypedPerFilterConfig())
	how.retry, how.hedge, how.hedgesAt = v.GetRetryPolicy(), v.GetHedgePolicy(), at+".hedge_policy"
	for i, r := range v.GetRoutes() {
		out.Routes = append(out.Routes, s.route(fmt.Sprintf("%s.routes[%d]", at, i), r, how))
	}
	switch tls := v.GetRequireTls(); tls {
	case routev3.VirtualHost_NONE:
	case routev3.VirtualHost_ALL:
		if how.plain {
			out.Routes = []route.Route{{Match: route.RouteMatch{Prefix: "/"}, Redirect: &route.RedirectAction{Scheme: "https"}}}
		}
	default:
		s.bad(at+".require_tls", tls.String(), "NONE or ALL")
	}
	return out
}

func (s *scope) route(at string, r *routev3.Route, how manner) route.Route {
	out := route.Route{Name: r.GetName(), Match: s.match(at+".match", r.GetMatch())}
	out.RequestHeaders = s.edits(at, "request", r.GetRequestHeadersToAdd(), r.GetRequestHeadersToRemove())
	out.ResponseHeaders = s.edits(at, "response", r.GetResponseHeadersToAdd(), r.GetResponseHeadersToRemove())
	s.perFilter(at, r.GetTypedPerFilterConfig())
	switch a := r.GetAction().(type) {
	case *routev3.Route_Route:
		out.Route = s.action(at+".route", a.Route, how)
	case *routev3.Route_Redirect:
		out.Redirect = s.redirect(at+".redirect", a.Redirect)
	case *routev3.Route_DirectResponse:
		d := a.DirectResponse
		if n := d.GetStatus(); n < 200 || n > 599 {
			s.bad(at+".direct_response.status", strconv.FormatUint(uint64(n), 10), "200 to 599")
		}
		out.DirectResponse = &route.DirectResponse{
			Status: int(min(d.GetStatus(), math.MaxInt16)),
			Body:   d.GetBody().GetInlineString() + string(d.GetBody().GetInlineBytes()),
		}
		if d.GetBody() != nil && d.GetBody().GetSpecifier() == nil {
			s.missing(at+".direct_response.body", "inline_string or inline_bytes")
		}
	default:
		s.missing(at, "route, redirect or direct_response")
	}
	return out
}

// perFilter checks what routes say to filters: there is none here that does anything.
func (s *scope) perFilter(at string, all map[string]*anypb.Any) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a, at := all[name], join(at, "typed_per_filter_config["+cut(strconv.Quote(name))+"]")
		switch m := s.open(a).(type) {
		case *faultv3.HTTPFault:
		case *httprbac.RBACPerRoute:
			s.rules(at+".rbac.rules", m.GetRbac().GetRules())
		case nil:
			if kind(a) == "" {
				s.missing(at, "a configuration")
			}
		default:
			s.bad(at, kind(a), "none: the filter does nothing here")
		}
	}
}

func (s *scope) match(at string, m *routev3.RouteMatch) route.RouteMatch {
	var out route.RouteMatch
	out.IgnoreCase = m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if out.Prefix = p.Prefix; p.Prefix == "" {
			out.Prefix = "/"
		}
	case *routev3.RouteMatch_Path:
		out.Path = p.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.PathSeparatedPrefix = p.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		out.SafeRegex, out.IgnoreCase = p.SafeRegex.GetRegex(), false // which is not for it
	case *routev3.RouteMatch_ConnectMatcher_:
		out.Connect = true
	default:
		s.missing(at, "prefix, path, path_separated_prefix, safe_regex or connect_matcher")
	}
	if f := m.GetRuntimeFraction(); f != nil {
		if num, den := s.fraction(at+".runtime_fraction", f); num != den {
			s.bad(at+".runtime_fraction", fmt.Sprintf("%d of %d", num, den), "all requests, or weighted_clusters")
		}
	}
	for i, h := range m.GetHeaders() {
		out.Headers = append(out.Headers, s.header(fmt.Sprintf("%s.headers[%d]", at, i), h))
	}
	if m.GetGrpc() != nil {
		out.Headers = append(out.Headers, route.HeaderMatcher{Name: "content-type", String: &route.StringMatcher{SafeRegex: `application/grpc(\+.*)?`}})
	}
	for i, q := range m.GetQueryParameters() {
		at := fmt.Sprintf("%s.query_parameters[%d]", at, i)
		p := route.QueryParameterMatcher{Name: q.GetName()}
		switch v := q.GetQueryParameterMatchSpecifier().(type) {
		case *routev3.QueryParameterMatcher_StringMatch:
			p.String = s.text(at+".string_match", v.StringMatch)
		case *routev3.QueryParameterMatcher_PresentMatch:
			p.Present = &v.PresentMatch
		default:
			there := true
			p.Present = &there
		}
		out.QueryParameters = append(out.QueryParameters, p)
	}
	return out
}

func (s *scope) header(at string, h *routev3.HeaderMatcher) route.HeaderMatcher {
	out := route.HeaderMatcher{Name: h.GetName(), Invert: h.GetInvertMatch(), TreatMissingAsEmpty: h.GetTreatMissingHeaderAsEmpty()}
	text := func(m *route.StringMatcher, v, name string) *route.StringMatcher {
		if v == "" {
			s.bad(at+"."+name, `""`, "a text")
		}
		return m
	}
	switch v := h.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		out.String = s.text(at+".string_match", v.StringMatch)
	case *routev3.HeaderMatcher_ExactMatch:
		out.String = text(&route.StringMatcher{Exact: v.ExactMatch}, v.ExactMatch, "exact_match")
	case *routev3.HeaderMatcher_PrefixMatch:
		out.String = text(&route.StringMatcher{Prefix: v.PrefixMatch}, v.PrefixMatch, "prefix_match")
	case *routev3.HeaderMatcher_SuffixMatch:
		out.String = text(&route.StringMatcher{Suffix: v.SuffixMatch}, v.SuffixMatch, "suffix_match")
	case *routev3.HeaderMatcher_ContainsMatch:
		out.String = text(&route.StringMatcher{Contains: v.ContainsMatch}, v.ContainsMatch, "contains_match")
	case *routev3.HeaderMatcher_SafeRegexMatch:
		out.String = text(&route.StringMatcher{SafeRegex: v.SafeRegexMatch.GetRegex()}, v.SafeRegexMatch.GetRegex(), "safe_regex_match")
	case *routev3.HeaderMatcher_RangeMatch:
		out.Range = &route.Range{Start: v.RangeMatch.GetStart(), End: v.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_PresentMatch:
		out.Present = &v.PresentMatch
	default:
		there := true
		out.Present = &there
	}
	return out
}

// text reads what a value is compared with. An empty text of another kind than exact would match everything, and be empty here.
func (s *scope) text(at string, m *matcherv3.StringMatcher) *route.StringMatcher {
	out := &route.StringMatcher{IgnoreCase: m.GetIgnoreCase()}
	var v string
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		out.Exact = p.Exact
		return out
	case *matcherv3.StringMatcher_Prefix:
		v, out.Prefix = p.Prefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		v, out.Suffix = p.Suffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		v, out.Contains = p.Contains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		v, out.SafeRegex, out.IgnoreCase = p.SafeRegex.GetRegex(), p.SafeRegex.GetRegex(), false // which Envoy overlooks there
	}
	if v == "" {
		s.missing(at, "a text to compare with")
	}
	return out
}

func (s *scope) fraction(at string, f *corev3.RuntimeFractionalPercent) (numerator, denominator uint32) {
	switch d := f.GetDefaultValue().GetDenominator(); d {
	case typev3.FractionalPercent_HUNDRED:
		denominator = 100
	case typev3.FractionalPercent_TEN_THOUSAND:
		denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		denominator = 1_000_000
	default:
		s.bad(at+".default_value.denominator", d.String(), "HUNDRED, TEN_THOUSAND or MILLION")
	}
	if f.GetDefaultValue() == nil {
		s.missing(at+".default_value", "a fraction")
	}
	return min(f.GetDefaultValue().GetNumerator(), denominator), denominator
}

func (s *scope) action(at string, a *routev3.RouteAction, how manner) *route.RouteAction {
	out := &route.RouteAction{PrefixRewrite: a.GetPrefixRewrite(), RegexRewrite: s.rewrite(a.GetRegexRewrite())}
	switch c := a.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		out.Cluster = c.Cluster
	case *routev3.RouteAction_WeightedClusters:
		s.weighted(at+".weighted_clusters", out, c.WeightedClusters)
	default:
		s.missing(at, "cluster or weighted_clusters")
	}
	switch h := a.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		out.HostRewrite = h.HostRewriteLiteral
	case *routev3.RouteAction_AutoHostRewrite:
		if h.AutoHostRewrite.GetValue() {
			s.bad(at+".auto_host_rewrite", "true", "host_rewrite_literal")
		}
	}
	out.Timeout = s.orNever(at+".timeout", a.GetTimeout())
	if out.IdleTimeout = s.orNever(at+".idle_timeout", a.GetIdleTimeout()); a.GetIdleTimeout() == nil {
		out.IdleTimeout = how.idle
	}
	// With 0 the time that a client of gRPC says is not bounded, which is so here.
	out.MaxGRPCTimeout = s.duration(at+".max_grpc_timeout", a.GetMaxGrpcTimeout(), 0)
	if m := a.GetMaxStreamDuration(); m != nil {
		s.zero(at+".max_stream_duration.max_stream_duration", m.GetMaxStreamDuration(), "0 s or none: timeout and idle_timeout bound streams")
		s.zero(at+".max_stream_duration.grpc_timeout_header_max", m.GetGrpcTimeoutHeaderMax(), "0 s or none: the client's time counts")
	}
	if a.GetRetryPolicy() != nil {
		how.retry = a.GetRetryPolicy()
	}
	out.RetryPolicy = s.retry(at+".retry_policy", how.retry)
	if a.GetHedgePolicy() != nil {
		how.hedge, how.hedgesAt = a.GetHedgePolicy(), at+".hedge_policy"
	}
	s.hedge(how.hedgesAt, how.hedge, out.RetryPolicy)
	for i, m := range a.GetRequestMirrorPolicies() {
		at := fmt.Sprintf("%s.request_mirror_policies[%d]", at, i)
		p := route.RequestMirror{Cluster: m.GetCluster()}
		if m.GetRuntimeFraction() != nil {
			p.Numerator, p.Denominator = s.fraction(at+".runtime_fraction", m.GetRuntimeFraction())
		}
		out.RequestMirrorPolicies = append(out.RequestMirrorPolicies, p)
	}
	for i, h := range a.GetHashPolicy() {
		out.HashPolicy = append(out.HashPolicy, s.hash(fmt.Sprintf("%s.hash_policy[%d]", at, i), h))
	}
	for i, u := range a.GetUpgradeConfigs() {
		s.upgrade(fmt.Sprintf("%s.upgrade_configs[%d]", at, i), u.GetUpgradeType(), u.GetEnabled() == nil || u.GetEnabled().GetValue())
	}
	return out
}

// upgrade checks that no other upgrade than WebSocket is asked for, which is passed on wherever a client asks for it.
func (s *scope) upgrade(at, typ string, enabled bool) {
	if !strings.EqualFold(typ, "websocket") || !enabled {
		s.bad(at, fmt.Sprintf("%s, enabled: %t", quote(typ), enabled), "websocket, enabled: it is the only upgrade that is passed on, and always is")
	}
}

func (s *scope) rewrite(r *matcherv3.RegexMatchAndSubstitute) *route.RegexRewrite {
	if r == nil {
		return nil
	}
	return &route.RegexRewrite{Pattern: r.GetPattern().GetRegex(), Substitution: r.GetSubstitution()}
}

func (s *scope) weighted(at string, a *route.RouteAction, w *routev3.WeightedCluster) {
	var total uint64
	for i, c := range w.GetClusters() {
		at := fmt.Sprintf("%s.clusters[%d]", at, i)
		total += uint64(c.GetWeight().GetValue())
		s.perFilter(at, c.GetTypedPerFilterConfig())
		a.WeightedClusters = append(a.WeightedClusters, route.WeightedCluster{
			Name: c.GetName(), Weight: c.GetWeight().GetValue(),
			RequestHeaders:  s.edits(at, "request", c.GetRequestHeadersToAdd(), c.GetRequestHeadersToRemove()),
			ResponseHeaders: s.edits(at, "response", c.GetResponseHeadersToAdd(), c.GetResponseHeadersToRemove()),
		})
	}
	if t := w.GetTotalWeight(); t != nil && uint64(t.GetValue()) != total {
		s.bad(at+".total_weight", strconv.FormatUint(uint64(t.GetValue()), 10), "the sum of the weights, which is "+strconv.FormatUint(total, 10))
	}
	if len(w.GetClusters()) == 0 {
		s.missing(at+".clusters", "a cluster")
	}
}

// domains leaves out the names that another one is but for the dot at its end, which istiod writes out for each: it says nothing, neither
// in what a client asks for nor here.
func domains(all []string) []string {
	var out []string
	for _, d := range all {
		name, port := d, ""
		if i := strings.LastIndexByte(d, ':'); i >= 0 && !strings.HasSuffix(d, "]") {
			name, port = d[:i], d[i:]
		}
		if short := strings.TrimSuffix(name, ".") + port; short != d && short != port && slices.Contains(all, short) {
			continue
		}
		out = append(out, d)
	}
	return out
}

func (s *scope) retry(at string, p *routev3.RetryPolicy) *route.RetryPolicy {
	if p == nil || p.GetRetryOn() == "" { // with no condition nothing is tried again
		return nil
	}
	out := &route.RetryPolicy{
		PerTryTimeout:     s.duration(at+".per_try_timeout", p.GetPerTryTimeout(), 0),
		PerTryIdleTimeout: s.duration(at+".per_try_idle_timeout", p.GetPerTryIdleTimeout(), 0),
	}
	codes := false
	for name := range strings.SplitSeq(p.GetRetryOn(), ",") {
		name = strings.TrimSpace(name)
		if name == "reset-before-request" {
			s.note(at+".retry_on", "what resets before the request was sent is tried again where no connection came about")
			name = "connect-failure"
		}
		codes = codes || name == "retriable-status-codes"
		out.RetryOn = append(out.RetryOn, name)
	}
	if n := p.GetNumRetries(); n != nil {
		if out.NumRetries = int(min(n.GetValue(), math.MaxInt32)); n.GetValue() == 0 {
			out.NumRetries = -1
		}
	}
	if codes { // without the condition they mean nothing
		for _, code := range p.GetRetriableStatusCodes() {
			out.RetriableStatusCodes = append(out.RetriableStatusCodes, int(min(code, math.MaxInt16)))
		}
	}
	for i, h := range p.GetRetryHostPredicate() {
		at := fmt.Sprintf("%s.retry_host_predicate[%d]", at, i)
		_, ok := s.open(h.GetTypedConfig()).(*previoushosts.PreviousHostsPredicate)
		if !ok && (h.GetTypedConfig() != nil || h.GetName() != "envoy.retry_host_predicates.previous_hosts") {
			s.bad(at, quote(h.GetName())+" "+kind(h.GetTypedConfig()), "envoy.retry_host_predicates.previous_hosts")
		}
		out.AvoidPreviousHosts = true
	}
	if n := p.GetHostSelectionRetryMaxAttempts(); n < 0 || n > math.MaxInt32 {
		s.bad(at+".host_selection_retry_max_attempts", strconv.FormatInt(n, 10), "0 or more")
	} else {
		out.HostSelectionAttempts = int(n)
	}
	if b := p.GetRetryBackOff(); b != nil {
		out.BackOffBase = s.positive(at+".retry_back_off.base_interval", b.GetBaseInterval())
		out.BackOffMax = s.positive(at+".retry_back_off.max_interval", b.GetMaxInterval())
	}
	return out
}

// hedge adds to the retries that they are beside what they are of. Without a time for one try there is no time for it in Envoy either.
func (s *scope) hedge(at string, h *routev3.HedgePolicy, p *route.RetryPolicy) {
	if n := h.GetInitialRequests(); n != nil && n.GetValue() != 1 {
		s.bad(at+".initial_requests", strconv.FormatUint(uint64(n.GetValue()), 10), "1")
	}
	if h.GetHedgeOnPerTryTimeout() && p != nil && p.PerTryTimeout > 0 {
		s.note(at+".hedge_on_per_try_timeout", "for idempotent methods, on another endpoint")
		p.Hedge = &route.Hedge{}
	}
}

func (s *scope) hash(at string, h *routev3.RouteAction_HashPolicy) route.HashPolicy {
	out := route.HashPolicy{Terminal: h.GetTerminal()}
	switch p := h.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		out.Header = p.Header.GetHeaderName()
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		out.QueryParameter = p.QueryParameter.GetName()
	case *routev3.RouteAction_HashPolicy_Cookie_:
		out.Cookie = &route.CookieHash{Name: p.Cookie.GetName(), Path: p.Cookie.GetPath(), TTL: s.orNever(at+".cookie.ttl", p.Cookie.GetTtl())}
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		if out.SourceIP = p.ConnectionProperties.GetSourceIp(); !out.SourceIP {
			s.missing(at+".connection_properties.source_ip", "true")
		}
	default:
		s.missing(at, "header, cookie, query_parameter or connection_properties")
	}
	return out
}

func (s *scope) redirect(at string, r *routev3.RedirectAction) *route.RedirectAction {
	out := &route.RedirectAction{Host: r.GetHostRedirect(), StripQuery: r.GetStripQuery()}
	if p := r.GetPortRedirect(); p > 65535 {
		s.bad(at+".port_redirect", strconv.FormatUint(uint64(p), 10), "1 to 65535")
	} else {
		out.Port = uint16(p)
	}
	switch v := r.GetSchemeRewriteSpecifier().(type) {
	case *routev3.RedirectAction_HttpsRedirect:
		if v.HttpsRedirect {
			out.Scheme = "https"
		}
	case *routev3.RedirectAction_SchemeRedirect:
		out.Scheme = v.SchemeRedirect
	}
	switch v := r.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		out.Path = v.PathRedirect
	case *routev3.RedirectAction_PrefixRewrite:
		out.PrefixRewrite = v.PrefixRewrite
	case *routev3.RedirectAction_RegexRewrite:
		out.RegexRewrite = s.rewrite(v.RegexRewrite)
	}
	switch code := r.GetResponseCode(); code {
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		out.Code = 301
	case routev3.RedirectAction_FOUND:
		out.Code = 302
	case routev3.RedirectAction_SEE_OTHER:
		out.Code = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		out.Code = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		out.Code = 308
	default:
		s.bad(at+".response_code", code.String(), "a code of a redirect")
	}
	return out
}

// edits reads what is done with headers of one direction.
func (s *scope) edits(at, direction string, add []*corev3.HeaderValueOption, remove []string) route.HeaderMutation {
	out := route.HeaderMutation{Remove: remove}
	for i, o := range add {
		at := join(at, fmt.Sprintf("%s_headers_to_add[%d]", direction, i))
		h := o.GetHeader()
		set := route.SetHeader{Name: h.GetKey()}
		text := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			text = string(h.GetRawValue())
		}
		var ok bool
		if set.Value, ok = literal(text); !ok {
			s.bad(at+".header.value", quote(text), "a text without operators, in which %% is %")
		}
		switch a := o.GetAppendAction(); a {
		case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			set.Action = "append"
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			set.Action = "add_if_absent"
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			set.Action = "overwrite"
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			set.Action = "overwrite_if_exists"
		default:
			s.bad(at+".append_action", a.String(), "an action that is known")
		}
		if a := o.GetAppend(); a != nil { // what append_action took the place of
			if set.Action != "append" {
				s.bad(at+".append", "beside append_action", "one of them")
			}
			if !a.GetValue() {
				set.Action = "overwrite"
			}
		}
		if set.Value == "" && !o.GetKeepEmptyValue() {
			if strings.HasPrefix(set.Action, "overwrite") {
				s.bad(at+".header.value", `""`, "a value, or keep_empty_value")
			}
			continue // nothing is added, then
		}
		out.Set = append(out.Set, set)
	}
	return out
}

// literal takes the escapes out of a text that may have operators (%REQ(x)%), and false where it has one.
func literal(text string) (string, bool) {
	without := strings.ReplaceAll(text, "%%", "")
	return strings.ReplaceAll(text, "%%", "%"), !strings.ContainsRune(without, '%')
}
