package route

import "time"

// Config of a Table. Its words are those of Envoy's RouteConfiguration; a zero field is one that is not there.
type Config struct {
	VirtualHosts []VirtualHost `yaml:"virtual_hosts,required"`
	// IgnorePortInHostMatching takes the port off the authority before it is compared with domains.
	IgnorePortInHostMatching bool `yaml:"ignore_port_in_host_matching"`
	// UnsafeKeepEscapedSlashes forwards paths with %2F and %5C. A service that decodes them sees a path that no route was
	// asked about.
	UnsafeKeepEscapedSlashes bool `yaml:"unsafe_keep_escaped_slashes"`

	RequestHeaders  HeaderMutation `yaml:"request_headers"`
	ResponseHeaders HeaderMutation `yaml:"response_headers"`
}

// VirtualHost is a set of routes for authorities. The order of precedence over all hosts is: a domain that is equal, the
// longest "*suffix", the longest "prefix*", "*".
type VirtualHost struct {
	Name    string   `yaml:"name,required"`
	Domains []string `yaml:"domains,required"`
	Routes  []Route  `yaml:"routes"` // the first that matches is taken

	RequestHeaders  HeaderMutation `yaml:"request_headers"`
	ResponseHeaders HeaderMutation `yaml:"response_headers"`
}

// Route has one of Route, Redirect and DirectResponse.
type Route struct {
	Name           string          `yaml:"name"`
	Match          RouteMatch      `yaml:"match,required"`
	Route          *RouteAction    `yaml:"route"`
	Redirect       *RedirectAction `yaml:"redirect"`
	DirectResponse *DirectResponse `yaml:"direct_response"`

	RequestHeaders  HeaderMutation `yaml:"request_headers"`
	ResponseHeaders HeaderMutation `yaml:"response_headers"`
}

// RouteMatch has one of Prefix, PathSeparatedPrefix, Path, SafeRegex and Connect, and matches where everything in it does.
// Paths are compared without their query, in canonical form (Normalize).
type RouteMatch struct {
	Prefix              string `yaml:"prefix"`
	PathSeparatedPrefix string `yaml:"path_separated_prefix"` // the path itself, or what lies below it
	Path                string `yaml:"path"`
	SafeRegex           string `yaml:"safe_regex"`      // RE2, of the whole path
	Connect             bool   `yaml:"connect_matcher"` // CONNECT without a path, which nothing else matches
	IgnoreCase          bool   `yaml:"ignore_case"`     // of ASCII letters in the path; not for SafeRegex

	Methods         []string                `yaml:"methods"` // any of them; none is any method
	Headers         []HeaderMatcher         `yaml:"headers"`
	QueryParameters []QueryParameterMatcher `yaml:"query_parameters"`
}

// StringMatcher has one of its texts; without any it matches the empty value.
type StringMatcher struct {
	Exact      string `yaml:"exact"`
	Prefix     string `yaml:"prefix"`
	Suffix     string `yaml:"suffix"`
	Contains   string `yaml:"contains"`
	SafeRegex  string `yaml:"safe_regex"`  // RE2, of the whole value
	IgnoreCase bool   `yaml:"ignore_case"` // of ASCII letters; not for SafeRegex
}

// Range is of decimal integers: Start is in it, End is not.
type Range struct {
	Start int64 `yaml:"start,signed"`
	End   int64 `yaml:"end,signed"`
}

// HeaderMatcher has one of String, Range and Present. Name may be ":authority", ":method" or ":scheme". A field that comes
// more than once has its values joined with commas.
type HeaderMatcher struct {
	Name    string         `yaml:"name,required"`
	String  *StringMatcher `yaml:"string_match"`
	Range   *Range         `yaml:"range_match"`
	Present *bool          `yaml:"present_match"`
	Invert  bool           `yaml:"invert_match"`
	// TreatMissingAsEmpty compares a field that is not there as if it were empty. Otherwise String and Range never match
	// then, inverted or not.
	TreatMissingAsEmpty bool `yaml:"treat_missing_header_as_empty"`
}

// QueryParameterMatcher has one of String and Present. It is about the first parameter of that name, decoded.
type QueryParameterMatcher struct {
	Name    string         `yaml:"name,required"`
	String  *StringMatcher `yaml:"string_match"`
	Present *bool          `yaml:"present_match"`
}

// RouteAction forwards to one of Cluster and WeightedClusters. At most one of PrefixRewrite and RegexRewrite.
type RouteAction struct {
	Cluster          string            `yaml:"cluster"`
	WeightedClusters []WeightedCluster `yaml:"weighted_clusters"`

	PrefixRewrite string        `yaml:"prefix_rewrite"` // of what the route's prefix or path matched
	RegexRewrite  *RegexRewrite `yaml:"regex_rewrite"`
	HostRewrite   string        `yaml:"host_rewrite_literal"`

	Timeout     time.Duration `yaml:"timeout,negative=never"`      // for the whole answer, 15 s; negative for ever
	IdleTimeout time.Duration `yaml:"idle_timeout,negative=never"` // of a stream on which nothing moves, 5 min; negative for ever

	RetryPolicy           *RetryPolicy    `yaml:"retry_policy"`
	HedgeOnPerTryTimeout  bool            `yaml:"hedge_on_per_try_timeout"` // a try that timed out stays in the race
	RequestMirrorPolicies []RequestMirror `yaml:"request_mirror_policies"`
	HashPolicy            []HashPolicy    `yaml:"hash_policy"`
}

// WeightedCluster gets its weight's share of the requests.
type WeightedCluster struct {
	Name            string         `yaml:"name,required"`
	Weight          uint32         `yaml:"weight,required,zero"`
	RequestHeaders  HeaderMutation `yaml:"request_headers"`
	ResponseHeaders HeaderMutation `yaml:"response_headers"`
}

// RegexRewrite replaces every match of Pattern (RE2) in the path without its query. Substitution refers to groups as \1,
// to the match as \0, and has \\ for a backslash.
type RegexRewrite struct {
	Pattern      string `yaml:"pattern,required"`
	Substitution string `yaml:"substitution"`
}

// RedirectAction changes what it names, and keeps the rest. At most one of Path, PrefixRewrite and RegexRewrite.
type RedirectAction struct {
	Scheme        string        `yaml:"scheme_redirect,one=http|https"` // "http" or "https"
	Host          string        `yaml:"host_redirect"`                  // without a port
	Port          uint16        `yaml:"port_redirect"`
	Path          string        `yaml:"path_redirect"` // may have a query, which then replaces the request's
	PrefixRewrite string        `yaml:"prefix_rewrite"`
	RegexRewrite  *RegexRewrite `yaml:"regex_rewrite"`
	Code          int           `yaml:"response_code"` // 301 (which is also the default), 302, 303, 307 or 308
	StripQuery    bool          `yaml:"strip_query"`
}

// DirectResponse is an answer without a service.
type DirectResponse struct {
	Status int    `yaml:"status,required"` // 200 to 599
	Body   string `yaml:"body"`            // at most 64 KiB
}

// HeaderMutation edits fields: first Remove, then Set in order. Values are taken literally.
type HeaderMutation struct {
	Remove []string    `yaml:"remove"`
	Set    []SetHeader `yaml:"set"`
}

// SetHeader puts a value into a field.
type SetHeader struct {
	Name  string `yaml:"name,required"`
	Value string `yaml:"value"`
	// Action is "append" (a further field of that name; the default), "add_if_absent", "overwrite" (or add) or
	// "overwrite_if_exists".
	Action string `yaml:"append_action,one=append|add_if_absent|overwrite|overwrite_if_exists"`
}

// RetryPolicy says after which failures a request is tried again.
type RetryPolicy struct {
	// RetryOn has Envoy's names: 5xx, gateway-error, reset, connect-failure, refused-stream, retriable-4xx,
	// retriable-status-codes, and of gRPC cancelled, deadline-exceeded, internal, resource-exhausted, unavailable.
	RetryOn              []string `yaml:"retry_on,required,one=5xx|gateway-error|reset|connect-failure|refused-stream|retriable-4xx|retriable-status-codes|cancelled|deadline-exceeded|internal|resource-exhausted|unavailable"`
	RetriableStatusCodes []int    `yaml:"retriable_status_codes"`
	// NumRetries is how often, after the first try; 0 takes the default 1, negative is never.
	NumRetries         int           `yaml:"num_retries,negative=never"`
	PerTryTimeout      time.Duration `yaml:"per_try_timeout,zero"`      // 0 for none but the request's
	PerTryIdleTimeout  time.Duration `yaml:"per_try_idle_timeout,zero"` // 0 for none but the request's
	BackOffBase        time.Duration `yaml:"base_interval"`             // 25 ms
	BackOffMax         time.Duration `yaml:"max_interval"`              // 10 times the base
	AvoidPreviousHosts bool          `yaml:"avoid_previous_hosts"`      // Envoy's retry_host_predicate previous_hosts
	// HostSelectionAttempts is how often another endpoint is drawn where one was tried before, 1.
	HostSelectionAttempts int `yaml:"host_selection_retry_max_attempts"`
}

// RequestMirror sends a copy of requests to another cluster, and drops its answers.
type RequestMirror struct {
	Cluster string `yaml:"cluster,required"`
	// Numerator of Denominator requests are copied: of 100, 10 000 or 1 000 000. Denominator 0 is all requests.
	Numerator   uint32 `yaml:"numerator,zero"`
	Denominator uint32 `yaml:"denominator"`
}

// HashPolicy has one of Header, QueryParameter, Cookie and SourceIP: what the choice of an endpoint sticks to.
type HashPolicy struct {
	Header         string      `yaml:"header"`
	QueryParameter string      `yaml:"query_parameter"`
	Cookie         *CookieHash `yaml:"cookie"`
	SourceIP       bool        `yaml:"source_ip"`
	Terminal       bool        `yaml:"terminal"` // where this one gave a hash, the policies after it are not asked
}

// CookieHash is a cookie. With a TTL other than 0 the proxy sets it where the client has none; negative is for the session.
type CookieHash struct {
	Name string        `yaml:"name,required"`
	Path string        `yaml:"path"`
	TTL  time.Duration `yaml:"ttl,zero,negative=session"`
}
