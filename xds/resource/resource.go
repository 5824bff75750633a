// Package resource is what crosses the rooms of xds: one resource of a control plane, as bytes, with its type and its name.
//
// Nothing here decodes a resource or believes it. Body is what the control plane sent, and a Resource that passes Validate
// has a type and a name that can be shown, compared and used as keys; it says nothing about the content.
package resource

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The types that are in use. Each is the type URL of a google.protobuf.Any.
const (
	Listener          = "type.googleapis.com/envoy.config.listener.v3.Listener"
	Route             = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	Cluster           = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Endpoints         = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Secret            = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	AttestationPolicy = "type.googleapis.com/jurat.config.v1alpha1.AttestationPolicy"
	ReferenceValues   = "type.googleapis.com/jurat.config.v1alpha1.ReferenceValues"
)

// Limits of what is valid. Istio's names of clusters, the longest in practice, stay below 400 bytes.
const (
	MaxType    = 256     // bytes of a type URL
	MaxName    = 2048    // bytes of a name or an alias
	MaxVersion = 1024    // bytes of a version
	MaxAliases = 64      // other names of one resource
	MaxBody    = 8 << 20 // bytes of one resource
)

// Wildcard as the name of a subscription means every resource of a type. No resource is called that.
const Wildcard = "*"

// Resource is one resource of a control plane. Whoever gets one must not change its Body: it is shared.
type Resource struct {
	Type    string        // one of the constants above, or any other type URL
	Name    string        // unique within its type
	Version string        // what the control plane calls this state of it; opaque, and not ordered
	Aliases []string      // other names that it was subscribed to by, in the delta protocol only
	Body    []byte        // the serialized message: the value of the Any
	TTL     time.Duration // how long it holds unless it is sent again; 0 means until it is removed
}

// Validate checks that everything but the content is within the limits and can be shown as it is.
func (r *Resource) Validate() error {
	if err := ValidType(r.Type); err != nil {
		return err
	}
	if err := ValidName(r.Name); err != nil {
		return err
	}
	if r.Name == Wildcard {
		return fmt.Errorf("a resource is called %q, which stands for all of them", Wildcard)
	}
	if len(r.Aliases) > MaxAliases {
		return fmt.Errorf("resource %q has %d aliases, of at most %d", r.Name, len(r.Aliases), MaxAliases)
	}
	for _, a := range r.Aliases {
		if err := ValidName(a); err != nil {
			return fmt.Errorf("resource %q: alias: %w", r.Name, err)
		}
	}
	switch {
	case len(r.Version) > MaxVersion:
		return fmt.Errorf("resource %q has a version of %d bytes, of at most %d", r.Name, len(r.Version), MaxVersion)
	case !printable(r.Version):
		return fmt.Errorf("resource %q has a version that is not printable text", r.Name)
	case len(r.Body) > MaxBody:
		return fmt.Errorf("resource %q has %d bytes, of at most %d", r.Name, len(r.Body), MaxBody)
	case r.TTL < 0:
		return fmt.Errorf("resource %q has a negative time to live", r.Name)
	}
	return nil
}

// ValidType checks a type URL: a prefix, a slash and the full name of a message (google.protobuf.Any).
func ValidType(typ string) error {
	if len(typ) > MaxType {
		return fmt.Errorf("a type URL has %d bytes, of at most %d", len(typ), MaxType)
	}
	slash := strings.LastIndexByte(typ, '/')
	if slash < 1 || slash == len(typ)-1 {
		return fmt.Errorf("%q is not the URL of a type", typ)
	}
	for i := range len(typ) {
		if c := typ[i]; c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%q is not the URL of a type", typ)
		}
	}
	return nil
}

// ValidName checks the name of a resource, or of a subscription. Names are arbitrary text, so they are never joined with a
// separator; only what would corrupt a log or a terminal is refused: control and format characters, and text that is not UTF-8.
func ValidName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a resource has no name")
	case len(name) > MaxName:
		return fmt.Errorf("a name has %d bytes, of at most %d", len(name), MaxName)
	case !printable(name):
		return fmt.Errorf("the name %q is not printable text", name)
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		// Format characters (Cf) turn text around on a screen, so that one name can pass for another.
		if unicode.Is(unicode.Cc, c) || unicode.Is(unicode.Cf, c) || c == '\u2028' || c == '\u2029' {
			return false
		}
	}
	return true
}

// NameOf reads the name out of the content of a resource: field 1, a string, in every type above and in the others of
// Envoy's API that are resources. It is how a state-of-the-world response says which resource is which. A name that is there
// twice is an error, since another reader might take the other one.
func NameOf(body []byte) (string, error) {
	name, found := "", false
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return "", fmt.Errorf("a resource is not a protobuf message")
		}
		body = body[n:]
		if num != 1 {
			if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
				return "", fmt.Errorf("a resource is not a protobuf message")
			}
			body = body[n:]
			continue
		}
		if typ != protowire.BytesType {
			return "", fmt.Errorf("a resource has no name: its field 1 is not text")
		}
		v, n := protowire.ConsumeBytes(body)
		if n < 0 {
			return "", fmt.Errorf("a resource is not a protobuf message")
		}
		if found {
			return "", fmt.Errorf("a resource has two names")
		}
		if len(v) > MaxName {
			return "", fmt.Errorf("a name has %d bytes, of at most %d", len(v), MaxName)
		}
		name, found, body = string(v), true, body[n:]
	}
	if !found {
		return "", fmt.Errorf("a resource has no name")
	}
	return name, ValidName(name)
}

// Named reports whether the resources of a type carry their name in field 1 and under no other name, so that what a
// delta response calls a resource has to be what the resource calls itself.
func Named(typ string) bool {
	switch typ {
	case Listener, Route, Cluster, Endpoints, Secret, AttestationPolicy, ReferenceValues:
		return true
	}
	return false
}

// Whole reports whether a state-of-the-world response of a type is everything there is of it, so that what is absent from
// it is removed. It is so for listeners and clusters alone: responses of other types are partial.
func Whole(typ string) bool { return typ == Listener || typ == Cluster }

// Rank orders types the way a change has to travel so that nothing is referred to before it is there: reference values and
// policies, clusters, their endpoints and secrets, listeners, routes, and then the others (Envoy's xDS protocol,
// "Eventual consistency considerations").
func Rank(typ string) int {
	switch typ {
	case ReferenceValues:
		return 0
	case AttestationPolicy:
		return 1
	case Cluster:
		return 2
	case Endpoints:
		return 3
	case Secret:
		return 4
	case Listener:
		return 5
	case Route:
		return 6
	}
	return 7
}

// Printable is text that anybody wrote, as it may be shown and logged: its first bytes, at most that many, and "…" where there are more.
func Printable(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if ValidName(string(r)) != nil {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
