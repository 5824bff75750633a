package route

import "time"

// Config is virtual hosts with their routes, in the words of Envoy's RouteConfiguration. A zero field is one that is not
// there, and takes the default that its comment names; a negative one is what the word in its tag says, which is how a file
// has it (strictyaml.Decode). The first sentence about a type and the comments of its fields are also the reference of
// the configuration file, docs/config.md.
type Config struct {
	VirtualHosts []VirtualHost `yaml:"virtual_hosts,required"` // sets of routes, by authority
	// The port is taken off the authority before it is compared with domains.
	IgnorePortInHostMatching bool `yaml:"ignore_port_in_host_matching"`
	// Paths with %2F and %5C are forwarded. A service that decodes them sees a path that no route was asked about.
	UnsafeKeepEscapedSlashes bool `yaml:"unsafe_keep_escaped_slashes"`

	RequestHeaders  HeaderMutation `yaml:"request_headers"`  // edits of all requests, after those of the virtual host
	ResponseHeaders HeaderMutation `yaml:"response_headers"` // edits of all answers, after those of the virtual host
}

// VirtualHost is a set of routes for authorities. The order of precedence over all hosts is: a domain that is equal, the
// longest "*suffix", the longest "prefix*", "*".
type VirtualHost struct {
	Name    string   `yaml:"name,required"`    // in logs and metrics
	Domains []string `yaml:"domains,required"` // pay.example, *.example, pay.* or *; the most exact one over all virtual hosts counts
	Routes  []Route  `yaml:"routes"`           // the first that matches is taken

	RequestHeaders  HeaderMutation `yaml:"request_headers"`  // edits of its requests, after those of the route
	ResponseHeaders HeaderMutation `yaml:"response_headers"` // edits of its answers, after those of the route
}

// Route has one of Route, Redirect and DirectResponse.
type Route struct {
	Name           string          `yaml:"name"`            // in logs and metrics
	Match          RouteMatch      `yaml:"match,required"`  // which requests it is for
	Route          *RouteAction    `yaml:"route"`           // forward them
	Redirect       *RedirectAction `yaml:"redirect"`        // send the client elsewhere
	DirectResponse *DirectResponse `yaml:"direct_response"` // answer without a service

	RequestHeaders  HeaderMutation `yaml:"request_headers"`  // edits of its requests
	ResponseHeaders HeaderMutation `yaml:"response_headers"` // edits of its answers
}

// RouteMatch has one of Prefix, PathSeparatedPrefix, Path, SafeRegex and Connect, and matches where everything in it does.
// Paths are compared without their query, in canonical form (Normalize).
type RouteMatch struct {
	Prefix              string `yaml:"prefix"`                // what the path begins with, such as /a, which /ab does too
	PathSeparatedPrefix string `yaml:"path_separated_prefix"` // the path itself, or what lies below it
	Path                string `yaml:"path"`                  // the whole path, without its query
	SafeRegex           string `yaml:"safe_regex"`            // RE2, of the whole path
	Connect             bool   `yaml:"connect_matcher"`       // CONNECT without a path, which nothing else matches
	IgnoreCase          bool   `yaml:"ignore_case"`           // of ASCII letters in the path; not for SafeRegex

	Methods         []string                `yaml:"methods"`          // any of them; none is any method
	Headers         []HeaderMatcher         `yaml:"headers"`          // all of them
	QueryParameters []QueryParameterMatcher `yaml:"query_parameters"` // all of them
}

// StringMatcher has one of its texts; without any it matches the empty value.
type StringMatcher struct {
	Exact      string `yaml:"exact"`       // the whole value
	Prefix     string `yaml:"prefix"`      // what it begins with
	Suffix     string `yaml:"suffix"`      // what it ends with
	Contains   string `yaml:"contains"`    // what is somewhere in it
	SafeRegex  string `yaml:"safe_regex"`  // RE2, of the whole value
	IgnoreCase bool   `yaml:"ignore_case"` // of ASCII letters; not for SafeRegex
}

// Range is whole numbers in decimal.
type Range struct {
	Start int64 `yaml:"start,signed"` // the first
	End   int64 `yaml:"end,signed"`   // the first that is no longer in it
}

// HeaderMatcher has one of String, Range and Present. A field that comes more than once has its values joined with commas.
type HeaderMatcher struct {
	Name    string         `yaml:"name,required"` // of a header, or :authority, :method or :scheme
	String  *StringMatcher `yaml:"string_match"`  // the value
	Range   *Range         `yaml:"range_match"`   // the value as a number
	Present *bool          `yaml:"present_match"` // whether it is there
	Invert  bool           `yaml:"invert_match"`  // matches where it would not
	// A header that is not there is compared as if it were empty. Otherwise String and Range never match then, inverted or
	// not.
	TreatMissingAsEmpty bool `yaml:"treat_missing_header_as_empty"`
}

// QueryParameterMatcher has one of String and Present, and is about the first parameter of that name, decoded.
type QueryParameterMatcher struct {
	Name    string         `yaml:"name,required"` // of the parameter
	String  *StringMatcher `yaml:"string_match"`  // the value
	Present *bool          `yaml:"present_match"` // whether it is there
}

// RouteAction forwards to one of Cluster and WeightedClusters, with at most one of PrefixRewrite and RegexRewrite.
type RouteAction struct {
	Cluster          string            `yaml:"cluster"`           // the name of one
	WeightedClusters []WeightedCluster `yaml:"weighted_clusters"` // several that share the requests

	PrefixRewrite string        `yaml:"prefix_rewrite"`       // what takes the place of what the route's prefix or path matched
	RegexRewrite  *RegexRewrite `yaml:"regex_rewrite"`        // of the path
	HostRewrite   string        `yaml:"host_rewrite_literal"` // the authority for the service

	Timeout     time.Duration `yaml:"timeout,negative=never"`      // for the whole answer, all tries together, default 15 s
	IdleTimeout time.Duration `yaml:"idle_timeout,negative=never"` // of a stream on which nothing moves, default 5 min

	// The most time that a gRPC call gets, whatever its client says in grpc-timeout; 0 leaves it to the client, and to timeout where the
	// client says nothing.
	MaxGRPCTimeout time.Duration `yaml:"max_grpc_timeout,zero"`

	RetryPolicy           *RetryPolicy    `yaml:"retry_policy"`            // when to try again; without it never
	RequestMirrorPolicies []RequestMirror `yaml:"request_mirror_policies"` // where copies of requests go
	HashPolicy            []HashPolicy    `yaml:"hash_policy"`             // for ring_hash and maglev
}

// WeightedCluster gets its weight's share of the requests.
type WeightedCluster struct {
	Name            string         `yaml:"name,required"`        // of a cluster
	Weight          uint32         `yaml:"weight,required,zero"` // in relation to the sum of all
	RequestHeaders  HeaderMutation `yaml:"request_headers"`      // edits of its requests, before those of the route
	ResponseHeaders HeaderMutation `yaml:"response_headers"`     // edits of its answers, before those of the route
}

// RegexRewrite replaces every match of Pattern in the path without its query.
type RegexRewrite struct {
	Pattern      string `yaml:"pattern,required"` // RE2
	Substitution string `yaml:"substitution"`     // \1 is the first group, \0 the match and \\ a backslash; default empty
}

// RedirectAction changes what it names in the URL, and keeps the rest. At most one of Path, PrefixRewrite and RegexRewrite.
type RedirectAction struct {
	Scheme        string        `yaml:"scheme_redirect,one=http|https"` // another scheme
	Host          string        `yaml:"host_redirect"`                  // another host, without a port
	Port          uint16        `yaml:"port_redirect"`                  // another port
	Path          string        `yaml:"path_redirect"`                  // another path; may have a query, which then replaces the request's
	PrefixRewrite string        `yaml:"prefix_rewrite"`                 // what takes the place of what the route's prefix or path matched
	RegexRewrite  *RegexRewrite `yaml:"regex_rewrite"`                  // of the path
	Code          int           `yaml:"response_code"`                  // 301, 302, 303, 307 or 308, default 301
	StripQuery    bool          `yaml:"strip_query"`                    // leave the query out
}

// DirectResponse is an answer without a service.
type DirectResponse struct {
	Status int    `yaml:"status,required"` // 200 to 599
	Body   string `yaml:"body"`            // at most 64 KiB, default empty
}

// HeaderMutation edits headers: first Remove, then Set in order. Values are taken literally.
type HeaderMutation struct {
	Remove []string    `yaml:"remove"` // names; of requests also what a service could take for one, such as x_role for X-Role
	Set    []SetHeader `yaml:"set"`    // in this order
}

// SetHeader puts a value into a header.
type SetHeader struct {
	Name  string `yaml:"name,required"` // of the header; those that say who the client is are the proxy's own
	Value string `yaml:"value"`         // taken literally, default empty
	// Where the header is there, in a request also as x_role for X-Role: append a further one, add_if_absent to leave it, overwrite it (or add one), or
	// overwrite_if_exists (and never add), default append
	Action string `yaml:"append_action,one=append|add_if_absent|overwrite|overwrite_if_exists"`
}

// RetryPolicy says after which failures a request is tried again.
type RetryPolicy struct {
	// Conditions in Envoy's words; cancelled and what follows it are of gRPC.
	RetryOn              []string      `yaml:"retry_on,required,one=5xx|gateway-error|reset|connect-failure|refused-stream|retriable-4xx|retriable-status-codes|cancelled|deadline-exceeded|internal|resource-exhausted|unavailable"`
	RetriableStatusCodes []int         `yaml:"retriable_status_codes"`     // of retriable-status-codes
	NumRetries           int           `yaml:"num_retries,negative=never"` // how often, after the first try, default 1
	PerTryTimeout        time.Duration `yaml:"per_try_timeout,zero"`       // for one try, default none but the request's
	PerTryIdleTimeout    time.Duration `yaml:"per_try_idle_timeout,zero"`  // of one try on which nothing moves, default none but the request's
	BackOffBase          time.Duration `yaml:"base_interval"`              // before try n after the first, up to 2ⁿ-1 times this is waited, default 25 ms
	BackOffMax           time.Duration `yaml:"max_interval"`               // the most that this comes to, default 10 times the base
	AvoidPreviousHosts   bool          `yaml:"avoid_previous_hosts"`       // Envoy's retry_host_predicate previous_hosts
	// How often another endpoint is drawn where one was tried before, default 1
	HostSelectionAttempts int `yaml:"host_selection_retry_max_attempts"`

	Hedge *Hedge `yaml:"hedge"` // further tries beside a slow one, default none
}

// Hedge begins another try, on another endpoint, beside one that has not been answered in time; the first good answer counts, and the
// other tries are called off. It is for requests that have come to their end and are kept whole. Each such try is one of num_retries.
// A request that is hedged has no per_try_timeout: its tries go on until timeout.
type Hedge struct {
	After     time.Duration `yaml:"after"`      // without an answer, and again for each further try, default the per_try_timeout
	AnyMethod bool          `yaml:"any_method"` // also methods that are not idempotent, such as POST: the service may do twice what is asked for
}

// RequestMirror sends a copy of requests to another cluster, and drops its answers.
type RequestMirror struct {
	Cluster string `yaml:"cluster,required"` // an attested one, or a plain one beside nothing but plain ones
	// So many of Denominator requests are copied. Without both it is all of them.
	Numerator   uint32 `yaml:"numerator,zero"`
	Denominator uint32 `yaml:"denominator"` // 100, 10000 or 1000000
}

// HashPolicy has one of Header, QueryParameter, Cookie and SourceIP: what the choice of an endpoint sticks to.
type HashPolicy struct {
	Header         string      `yaml:"header"`          // the value of this one
	QueryParameter string      `yaml:"query_parameter"` // the value of this one
	Cookie         *CookieHash `yaml:"cookie"`          // the value of this one
	SourceIP       bool        `yaml:"source_ip"`       // the address of the client
	Terminal       bool        `yaml:"terminal"`        // where this one gave a hash, those after it are not asked
}

// CookieHash is a cookie.
type CookieHash struct {
	Name string        `yaml:"name,required"`             // of the cookie
	Path string        `yaml:"path"`                      // that it is set for
	TTL  time.Duration `yaml:"ttl,zero,negative=session"` // the proxy sets the cookie for so long where the client has none, default not at all
}
