package resource_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/xds/resource"
)

// The names and the URLs of types are those of Envoy's API.
func TestEnvoy(t *testing.T) {
	for typ, m := range map[string]proto.Message{
		resource.Listener:  &listener.Listener{Name: "n"},
		resource.Route:     &route.RouteConfiguration{Name: "n"},
		resource.Cluster:   &cluster.Cluster{Name: "n", AltStatName: "other"},
		resource.Endpoints: &endpoint.ClusterLoadAssignment{ClusterName: "n"},
		resource.Secret:    &tls.Secret{Name: "n"},
	} {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		if a.TypeUrl != typ || !resource.Named(typ) {
			t.Errorf("%s, want %s", typ, a.TypeUrl)
		}
		if n, err := resource.NameOf(a.Value); n != "n" || err != nil {
			t.Errorf("%s: %q, %v", typ, n, err)
		}
	}
}

func TestValidate(t *testing.T) {
	good := resource.Resource{Type: resource.Cluster, Name: "outbound|80||a.b~c/d:e ü", Version: "1", Aliases: []string{"x"}, Body: []byte{1}, TTL: 1}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*resource.Resource){
		"nothing":              func(r *resource.Resource) { *r = resource.Resource{} },
		"no type":              func(r *resource.Resource) { r.Type = "" },
		"no slash":             func(r *resource.Resource) { r.Type = "envoy.config.cluster.v3.Cluster" },
		"nothing before it":    func(r *resource.Resource) { r.Type = "/x" },
		"nothing after it":     func(r *resource.Resource) { r.Type = "x/" },
		"a type with spaces":   func(r *resource.Resource) { r.Type = "x/a b" },
		"a type of ümlauts":    func(r *resource.Resource) { r.Type = "x/ü" },
		"a long type":          func(r *resource.Resource) { r.Type = "x/" + strings.Repeat("y", resource.MaxType-1) },
		"no name":              func(r *resource.Resource) { r.Name = "" },
		"everything":           func(r *resource.Resource) { r.Name = "*" },
		"a long name":          func(r *resource.Resource) { r.Name = strings.Repeat("y", resource.MaxName+1) },
		"no text":              func(r *resource.Resource) { r.Name = "\xff" },
		"a line":               func(r *resource.Resource) { r.Name = "a\nb" },
		"an escape":            func(r *resource.Resource) { r.Name = "a\x1b[1m" },
		"another control":      func(r *resource.Resource) { r.Name = "a\u0085" },
		"text turned around":   func(r *resource.Resource) { r.Name = "a\u202eb" },
		"a line of its own":    func(r *resource.Resource) { r.Name = "a\u2028b" },
		"another one":          func(r *resource.Resource) { r.Name = "a\u2029b" },
		"many aliases":         func(r *resource.Resource) { r.Aliases = slices.Repeat([]string{"a"}, resource.MaxAliases+1) },
		"an alias of nothing":  func(r *resource.Resource) { r.Aliases = []string{""} },
		"a long version":       func(r *resource.Resource) { r.Version = strings.Repeat("y", resource.MaxVersion+1) },
		"a version of control": func(r *resource.Resource) { r.Version = "\r" },
		"a large body":         func(r *resource.Resource) { r.Body = make([]byte, resource.MaxBody+1) },
		"a negative time":      func(r *resource.Resource) { r.TTL = -1 },
	} {
		r := good
		change(&r)
		if r.Validate() == nil {
			t.Errorf("%s is valid", name)
		}
	}
	for _, edge := range []resource.Resource{
		{Type: "x/" + strings.Repeat("y", resource.MaxType-2), Name: strings.Repeat("n", resource.MaxName)},
		{Type: "x/y", Name: "n", Version: strings.Repeat("v", resource.MaxVersion), Aliases: slices.Repeat([]string{"a"}, resource.MaxAliases), Body: make([]byte, resource.MaxBody)},
	} {
		if err := edge.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func text(num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
}

func TestNameOf(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"no name":       text(2, "x"),
		"an empty name": text(1, ""),
		"two names":     append(text(1, "a"), text(1, "a")...),
		"a long name":   text(1, strings.Repeat("x", resource.MaxName+1)),
		"a control":     text(1, "\x00"),
		"a number":      {0x08, 0x01},
		"cut short":     {0x0a, 0x02, 'a'},
		"a cut tag":     {0x80},
		"a cut field":   append(text(1, "a"), 0x12, 0x02, 'a'),
	} {
		if n, err := resource.NameOf(b); err == nil {
			t.Errorf("%s is called %q", name, n)
		}
	}
	if n, err := resource.NameOf(append(text(7, "x"), text(1, "a")...)); n != "a" || err != nil {
		t.Error(n, err)
	}
}

func TestRank(t *testing.T) {
	order := []string{resource.ReferenceValues, resource.AttestationPolicy, resource.Cluster, resource.Endpoints, resource.Secret, resource.Listener, resource.Route, "any/other"}
	for i, typ := range order {
		if resource.Rank(typ) != i {
			t.Errorf("%s has rank %d", typ, resource.Rank(typ))
		}
		if whole := typ == resource.Cluster || typ == resource.Listener; resource.Whole(typ) != whole {
			t.Error(typ)
		}
		if named := typ != "any/other"; resource.Named(typ) != named {
			t.Error(typ)
		}
	}
}

// FuzzNameOf holds the reader against the generated code: what it calls a resource is what that calls it.
func FuzzNameOf(f *testing.F) {
	f.Add(text(1, "a"))
	f.Add(append(text(7, "x"), text(1, "a|b")...))
	f.Add([]byte{0x0b, 0x0c, 0x0a, 0x01, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := resource.NameOf(b)
		if err != nil {
			return
		}
		var e endpoint.ClusterLoadAssignment
		if proto.Unmarshal(b, &e) == nil && e.ClusterName != n {
			t.Fatalf("%q, and to others %q", n, e.ClusterName)
		}
		if !bytes.Contains(b, []byte(n)) || resource.ValidName(n) != nil {
			t.Fatalf("%q", n)
		}
	})
}
