package envoy_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

var resourceTypes = []string{resource.Listener, resource.Route, resource.Cluster, resource.Endpoints, resource.Secret, resource.AttestationPolicy, resource.ReferenceValues}

// Arbitrary bytes as a resource, beside sound ones.
func FuzzTranslate(f *testing.F) {
	for _, set := range corpus(f) {
		for _, k := range keys(set) {
			f.Add(uint8(slices.Index(resourceTypes, k.Type)), k.Name, set[k].Body)
		}
	}
	around := corpus(f)["testdata/istio-sidecar.yaml"]
	f.Fuzz(func(t *testing.T, kind uint8, name string, body []byte) {
		set := maps.Clone(around)
		set.Add(resource.Resource{Type: resourceTypes[int(kind)%len(resourceTypes)], Name: name, Body: body})
		holds(t, set, envoy.Translate(input(set)))
	})
}

// Sound resources in which anything was changed.
func FuzzMutated(f *testing.F) {
	files := corpus(f)
	names := slices.Sorted(maps.Keys(files))
	f.Add(uint8(0), []byte{1, 2, 3, 4})
	f.Add(uint8(1), []byte{9, 9, 9, 9, 200, 3, 7, 1})
	f.Fuzz(func(t *testing.T, file uint8, choices []byte) {
		set := maps.Clone(files[names[int(file)%len(names)]])
		next := func(n int) int {
			if len(choices) == 0 || n == 0 {
				return 0
			}
			c := int(choices[0])
			choices = choices[1:]
			if n > 256 && len(choices) > 0 {
				c, choices = c<<8|int(choices[0]), choices[1:]
			}
			return c % n
		}
		for range min(len(choices)/4, 8) {
			mutate(t, set, next)
		}
		holds(t, set, envoy.Translate(input(set)))
	})
}

// The same with generated choices, in every run of the tests.
func TestMutated(t *testing.T) {
	files := corpus(t)
	names := slices.Sorted(maps.Keys(files))
	rapid.Check(t, func(r *rapid.T) {
		set := maps.Clone(files[rapid.SampledFrom(names).Draw(r, "file")])
		for range rapid.IntRange(1, 6).Draw(r, "changes") {
			mutate(t, set, func(n int) int { return rapid.IntRange(0, max(n-1, 0)).Draw(r, "choice") })
		}
		holds(r, set, envoy.Translate(input(set)))
	})
}

// mutate changes one field of one message of one resource, or takes the resource away.
func mutate(t testing.TB, set envoy.Set, next func(int) int) {
	all := keys(set)
	if len(all) == 0 {
		return
	}
	key := all[next(len(all))]
	if next(20) == 0 {
		delete(set, key)
		return
	}
	places := sites(t, key, decoded(t, key.Type, set[key].Body))
	s := places[next(len(places))]
	fields := s.of.Fields()
	if fields.Len() == 0 {
		return
	}
	f := fields.Get(next(fields.Len()))
	edits := variations(f)
	edits = append(edits,
		func(m protoreflect.Message) { // a second one
			if f.IsList() && f.Message() != nil && m.Get(f).List().Len() > 0 {
				m.Mutable(f).List().Append(protoreflect.ValueOfMessage(proto.Clone(m.Get(f).List().Get(0).Message().Interface()).ProtoReflect()))
			}
		},
		func(m protoreflect.Message) { // fewer
			if f.IsList() && m.Get(f).List().Len() > 0 {
				m.Mutable(f).List().Truncate(m.Get(f).List().Len() - 1)
			}
		})
	edit := edits[next(len(edits))]
	for k, r := range s.change(t, set, edit) {
		set[k] = r
	}
}

type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// holds checks what no resource may break: what is answered passes Check, has no policy and no endpoint from elsewhere, and
// what is to be attested is never in plain.
func holds(t reporter, set envoy.Set, out *envoy.Translation) {
	t.Helper()
	if len(out.Config.Listeners) > 0 {
		if err := out.Config.Check(); err != nil {
			t.Fatalf("does not pass Check: %v", err)
		}
	}
	for _, c := range out.Config.Clusters {
		key := envoy.Key{Type: resource.Cluster, Name: c.Name}
		r, there := set[key]
		if !there {
			if c.Attested != nil || c.OriginalDestination != nil || c.DNS != nil || len(c.Static()) > 0 {
				t.Fatalf("the cluster %q that no resource describes has endpoints", c.Name)
			}
			continue
		}
		if out.Problems[key] != nil || out.Warming[key] != nil {
			t.Fatalf("the cluster %q is there, with a problem or before its time", c.Name)
		}
		if c.Attested == nil && hasValidator(r.Body) {
			t.Fatalf("the cluster %q has a validator, and is in plain", c.Name)
		}
	}
	for _, l := range out.Config.Listeners {
		key := envoy.Key{Type: resource.Listener, Name: l.Name}
		if out.Problems[key] != nil || out.Warming[key] != nil {
			t.Fatalf("the listener %q is there, with a problem or before its time", l.Name)
		}
		var m listenerv3.Listener
		if err := proto.Unmarshal(set[key].Body, &m); err != nil {
			t.Fatalf("%v", err)
		}
		// A chain with TLS is one of evidence; the default and alone ones are the listener itself.
		encrypted := 0
		for i, f := range m.GetFilterChains() {
			if !tls(f) {
				continue
			}
			encrypted++
			if len(l.Chains) == 0 {
				if l.Plain || l.Require == "" && !asksForIdentity(f) {
					t.Fatalf("the chain %d of %q is in plain", i, l.Name)
				}
			}
		}
		secured := 0
		for _, c := range l.Chains {
			if !c.Plain {
				secured++
			}
		}
		if len(l.Chains) > 0 && !m.GetUseOriginalDst().GetValue() && secured < encrypted {
			t.Fatalf("%q has %d chains with TLS, and %d of evidence", l.Name, encrypted, secured)
		}
		if d := m.GetDefaultFilterChain(); d != nil && tls(d) && len(l.Chains) == 0 && l.Plain {
			t.Fatalf("the default chain of %q is in plain", l.Name)
		}
	}
	policies(t, set, &out.Config)
}

func tls(f *listenerv3.FilterChain) bool {
	return strings.HasSuffix(f.GetTransportSocket().GetTypedConfig().GetTypeUrl(), "DownstreamTlsContext")
}

func asksForIdentity(f *listenerv3.FilterChain) bool {
	return strings.Contains(string(f.GetTransportSocket().GetTypedConfig().GetValue()), "jurat.config.v1alpha1.AttestedIdentity")
}

// policies checks that every policy is one that a validator in some resource names.
func policies(t reporter, set envoy.Set, c *config.Config) {
	for _, name := range c.Policies() {
		named := false
		for k, r := range set {
			named = named || k.Type != resource.AttestationPolicy && hasValidator(r.Body) && strings.Contains(string(r.Body), name)
		}
		if !named {
			t.Fatalf("no resource names the policy %q", name)
		}
	}
}

// hasValidator reports whether there is one anywhere in a resource, however it is wrapped.
func hasValidator(body []byte) bool {
	return strings.Contains(string(body), strings.TrimPrefix(api.TypeValidator, "type.googleapis.com/"))
}
