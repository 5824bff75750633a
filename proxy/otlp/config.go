package otlp

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Config of an Exporter. A zero field takes the default that its comment names.
type Config struct {
	// Endpoint is the URL of the collector, such as "https://collector.example:4318". /v1/traces and /v1/metrics are below it.
	// It is https, or http on this machine.
	Endpoint string `yaml:"endpoint"`
	// UnsafePlaintextToOtherMachines allows http to everywhere: whoever is on the way reads paths, addresses and headers.
	UnsafePlaintextToOtherMachines bool `yaml:"unsafe_plaintext_to_other_machines"`
	// Headers go with every request, such as the one that authorizes it.
	Headers Headers `yaml:"headers"`
	// Resource is what the process is, by OpenTelemetry's names; "service.name" is "jurat" unless it is said here.
	Resource map[string]string `yaml:"resource"`

	Timeout      time.Duration `yaml:"timeout"`          // of one request, 10 s
	RetryFor     time.Duration `yaml:"retry_for"`        // after which a request that may be repeated is given up, 1 min
	Queue        int           `yaml:"max_queued_spans"` // 2048; further ones are dropped
	Batch        int           `yaml:"max_batch"`        // spans in a request, 512
	SpanDelay    time.Duration `yaml:"span_delay"`       // for which spans wait for others, 5 s
	MetricPeriod time.Duration `yaml:"metric_period"`    // 1 min
}

// Headers are values by name. They are secret: whichever way they are printed, only their number shows.
type Headers map[string]string

// Format implements fmt.Formatter.
func (h Headers) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "[%d headers]", len(h)) }

// MarshalText implements encoding.TextMarshaler, which encoders of JSON and YAML and package slog go by.
func (h Headers) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "[%d headers]", len(h)), nil }

const (
	maxQueue     = 1 << 16
	maxBatch     = 2048 // of which even the longest stay below the 20 MiB that a collector takes
	maxHeaders   = 32
	maxHeader    = 8 << 10 // bytes of a value
	maxResources = 64

	serviceName = "service.name"
)

// checker keeps the first value that is not allowed.
type checker struct{ err error }

func (k *checker) bad(at, got, want string) {
	if k.err == nil {
		k.err = &attest.Error{Code: attest.CodeConfigValue, Check: "otlp", Subject: at, Got: got, Want: want}
	}
}

func (k *checker) number(at string, v *int, def, most int) {
	if *v == 0 {
		*v = def
	}
	if *v < 1 || *v > most {
		k.bad(at, strconv.Itoa(*v), fmt.Sprintf("1 to %d", most))
	}
}

func (k *checker) duration(at string, d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
	if *d < 0 {
		k.bad(at, d.String(), "a time above 0")
	}
}

// complete answers c with its defaults, checked, and its endpoint.
func (c Config) complete() (Config, *url.URL, error) {
	var k checker
	u := k.endpoint(&c)
	c.Headers = maps.Clone(c.Headers)
	k.headers(c.Headers)
	if len(c.Resource) > maxResources {
		k.bad("resource", strconv.Itoa(len(c.Resource)), fmt.Sprintf("at most %d", maxResources))
	}
	k.duration("timeout", &c.Timeout, 10*time.Second)
	k.duration("retry_for", &c.RetryFor, time.Minute)
	k.number("max_queued_spans", &c.Queue, 2048, maxQueue)
	k.number("max_batch", &c.Batch, min(512, max(c.Queue, 1)), max(min(maxBatch, c.Queue), 1))
	k.duration("span_delay", &c.SpanDelay, 5*time.Second)
	k.duration("metric_period", &c.MetricPeriod, time.Minute)
	return c, u, k.err
}

func (k *checker) endpoint(c *Config) *url.URL {
	const at = "endpoint"
	if c.Endpoint == "" {
		k.err = &attest.Error{Code: attest.CodeConfigMissing, Check: "otlp", Subject: at, Want: "the URL of a collector"}
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		k.bad(at, "what is no URL", "https://host:port") // the error repeats what may hold a password
		return nil
	}
	if u.Path == "" {
		u.Path = "/" // what is joined to none has no slash in front
	}
	got := fmt.Sprintf("%.100q", u.Scheme+"://"+u.Host) // what is behind it may be secret too
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		k.bad(at, got, "https://host:port")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		k.bad(at, got, "a URL without user, query and fragment")
	case u.Scheme == "http" && !c.UnsafePlaintextToOtherMachines && !local(u.Hostname()):
		k.bad(at, got, "https, or unsafe_plaintext_to_other_machines")
	}
	return u
}

// local reports whether a host is this machine by its name. Where it really is shows when it is dialled.
func local(host string) bool {
	ip, _ := netip.ParseAddr(host)
	return host == "localhost" || ip.IsLoopback()
}

// headers checks that they are of use to the collector only. An error must not repeat a value.
func (k *checker) headers(h Headers) {
	if len(h) > maxHeaders {
		k.bad("headers", strconv.Itoa(len(h)), fmt.Sprintf("at most %d", maxHeaders))
		return
	}
	for name, value := range h {
		lower := strings.ToLower(name)
		switch {
		case name == "" || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") != "":
			k.bad("headers", fmt.Sprintf("the name %.40q", name), "letters, digits and hyphens")
		case strings.HasPrefix(lower, "content-") || slices.Contains([]string{
			"host", "connection", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect", "accept-encoding", "user-agent",
		}, lower):
			k.bad("headers", fmt.Sprintf("the name %.40q", name), "one that HTTP does not need for itself")
		case len(value) > maxHeader || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }):
			k.bad("headers", fmt.Sprintf("a value of %.40q that is not allowed", name), fmt.Sprintf("at most %d printable ASCII characters", maxHeader))
		}
	}
}
