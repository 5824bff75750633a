package trace

import (
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// SchemaURL names the version of the semantic conventions that attributes are after.
const SchemaURL = "https://opentelemetry.io/schemas/1.43.0"

const otherMethod = "_OTHER"

// Kind of a span, with the numbers of OTLP.
type Kind uint8

// The kinds that there are.
const (
	Server Kind = 2 // of a request that came in, until its response is out
	Client Kind = 3 // of a try to have a service answer it
)

// Record is a span that has ended. All text in it is UTF-8.
type Record struct {
	Context
	State      string // tracestate, "" for none
	Parent     SpanID // zero for a root
	Remote     bool   // Parent is of another process
	Kind       Kind
	Start, End time.Time

	Method         string // "" of a connection that carries no HTTP
	OriginalMethod string // where Method is "_OTHER"
	Scheme         string
	Host           string // of the authority
	Port           uint16 // of the authority, 0 where it has none
	Path           string // without the query
	Version        message.Version
	Status         int // of the response, 0 for none
	Resend         int // tries before this one

	Route, Cluster string
	PeerAddress    string
	PeerPort       uint16

	Attestation *Attestation // of the peer; nil where that was not asked
	Code        attest.Code  // of a failure
	ClientGone  bool

	tracer *Tracer
	paid   *bucket
	ended  bool // for the goroutine that the Span belongs to, which alone looks at it
}

// Attestation is what a peer has proved.
type Attestation struct {
	Verdict                 attest.Verdict
	TEE, Vendor, Generation string
	Simulated               bool
	Binding                 attest.Level
	Policy                  string // its id
	Evidence                string // "sha256:" and hex
}

// Name is the method and, of a request that came in, the name of its route.
func (r *Record) Name() string {
	switch {
	case r.Method == "":
		return "connection"
	case r.Method == otherMethod:
		return "HTTP" + r.target()
	}
	return r.Method + r.target()
}

func (r *Record) target() string {
	if r.Kind != Server || r.Route == "" {
		return ""
	}
	return " " + r.Route
}

// ErrorType is the class of the error that the span ended with, "" for none: a code of attest, "client_gone" or the status of
// the response. 4xx is an error of a Client span only: its sender got no more than it asked for.
func (r *Record) ErrorType() string {
	failed := 500
	if r.Kind == Client {
		failed = 400
	}
	switch {
	case r.Code != "":
		return string(r.Code)
	case r.ClientGone:
		return "client_gone"
	case r.Status >= failed:
		return strconv.Itoa(r.Status)
	}
	return ""
}

// Attribute says something of a span.
type Attribute struct {
	Key   string
	Value any // a string, an int64 or a bool
}

// Attributes are those that are known, in no particular order.
func (r *Record) Attributes() []Attribute {
	a := make(attributes, 0, 24)
	a.text("http.request.method", r.Method)
	a.text("http.request.method_original", r.OriginalMethod)
	a.text("server.address", r.Host)
	if r.Host != "" {
		a.number("server.port", int(r.port()))
	}
	if r.Kind == Server {
		a.text("url.scheme", r.Scheme)
		a.text("url.path", r.Path)
		a.text("client.address", r.PeerAddress)
	} else {
		a.text("url.full", r.url())
	}
	a.text("network.protocol.version", versions[r.Version])
	a.number("http.response.status_code", r.Status)
	a.number("http.request.resend_count", r.Resend)
	a.text("network.peer.address", r.PeerAddress)
	a.number("network.peer.port", int(r.PeerPort))
	a.text("error.type", r.ErrorType())
	a.text("jurat.route", r.Route)
	a.text("jurat.cluster", r.Cluster)
	if p := r.Attestation; p != nil {
		a.text("jurat.verdict", p.Verdict.String())
		a.text("jurat.tee", p.TEE)
		a.text("jurat.vendor", p.Vendor)
		a.text("jurat.generation", p.Generation)
		if p.Simulated {
			a = append(a, Attribute{"jurat.simulated", true})
		}
		a.text("jurat.binding", string(p.Binding))
		a.text("jurat.policy", p.Policy)
		a.text("jurat.evidence", p.Evidence)
	}
	a.text("jurat.code", string(r.Code))
	return a
}

// versions are those of network.protocol.version.
var versions = map[message.Version]string{message.HTTP10: "1.0", message.HTTP11: "1.1", message.HTTP2: "2"}

type attributes []Attribute

func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, Attribute{key, value})
	}
}

func (a *attributes) number(key string, value int) {
	if value != 0 {
		*a = append(*a, Attribute{key, int64(value)})
	}
}

// port is the one that the request is for.
func (r *Record) port() uint16 {
	switch {
	case r.Port != 0:
		return r.Port
	case r.Scheme == "https":
		return 443
	case r.Scheme == "http":
		return 80
	}
	return 0
}

// url is without a query, "" where the request is for none that is known.
func (r *Record) url() string {
	if r.Scheme == "" || r.Host == "" || !strings.HasPrefix(r.Path, "/") {
		return ""
	}
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if r.Port != 0 {
		host += ":" + strconv.Itoa(int(r.Port))
	}
	return r.Scheme + "://" + host + r.Path
}
