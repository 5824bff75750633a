package grpcads

import (
	"bytes"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// What is sent is what Envoy's own types read.
func TestMarshal(t *testing.T) {
	node := &protocol.Node{
		ID: "sidecar~10.0.0.1~a.b~c", Cluster: "c", Metadata: map[string]any{"NAMESPACE": "b", "n": 1.5, "l": []any{true, nil, map[string]any{"x": "y"}}},
		Region: "r", Zone: "z", SubZone: "s", UserAgent: "jurat", UserVersion: "1.2", Features: []string{"f", "g"},
	}
	metadata, err := structpb.NewStruct(node.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	want := &core.Node{
		Id: node.ID, Cluster: "c", Metadata: metadata, Locality: &core.Locality{Region: "r", Zone: "z", SubZone: "s"},
		UserAgentName: "jurat", UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: "1.2"}, ClientFeatures: []string{"f", "g"},
	}
	same := func(kind protocol.Kind, r *protocol.Request, into, want proto.Message) {
		t.Helper()
		raw, err := marshal(kind, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(into, want) {
			t.Errorf("%v\nwant %v", into, want)
		}
	}
	status := &rpc.Status{Code: 3, Message: "no\nno"}
	same(protocol.StateOfTheWorld, &protocol.Request{
		Node: node, Type: resource.Cluster, Nonce: "n", Version: "v", Names: []string{"a", "", "b|c"}, Error: &protocol.Refusal{Code: 3, Message: "no\nno"},
	}, &discovery.DiscoveryRequest{}, &discovery.DiscoveryRequest{
		Node: want, TypeUrl: resource.Cluster, ResponseNonce: "n", VersionInfo: "v", ResourceNames: []string{"a", "", "b|c"}, ErrorDetail: status,
	})
	same(protocol.StateOfTheWorld, &protocol.Request{Node: &protocol.Node{}}, &discovery.DiscoveryRequest{}, &discovery.DiscoveryRequest{Node: &core.Node{}})
	same(protocol.Delta, &protocol.Request{
		Node: node, Type: resource.Cluster, Nonce: "n", Subscribe: []string{"a", "*"}, Unsubscribe: []string{"b"}, Initial: map[string]string{"x": "1", "y": ""},
		Error: &protocol.Refusal{Code: 3, Message: "no\nno"},
	}, &discovery.DeltaDiscoveryRequest{}, &discovery.DeltaDiscoveryRequest{
		Node: want, TypeUrl: resource.Cluster, ResponseNonce: "n", ResourceNamesSubscribe: []string{"a", "*"}, ResourceNamesUnsubscribe: []string{"b"},
		InitialResourceVersions: map[string]string{"x": "1", "y": ""}, ErrorDetail: status,
	})
	if _, err := marshal(0, &protocol.Request{}); err == nil {
		t.Error("of no kind")
	}
	if _, err := marshal(protocol.Delta, &protocol.Request{Node: &protocol.Node{Metadata: map[string]any{"x": struct{}{}}}}); err == nil {
		t.Error("metadata that are no JSON")
	}
}

func any1(typ string, body []byte) *anypb.Any { return &anypb.Any{TypeUrl: typ, Value: body} }

func named(name string) *discovery.ResourceName { return &discovery.ResourceName{Name: name} }

// samples are messages of Envoy's own types, with what they say.
func samples(t testing.TB) (kinds []protocol.Kind, raws [][]byte, wants []*protocol.Response) {
	inner := any1(resource.Cluster, []byte("body"))
	wrapped, err := anypb.New(&discovery.Resource{Name: "a", Version: "7", Resource: inner, Ttl: durationpb.New(1500 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	renewal, err := anypb.New(&discovery.Resource{Name: "a", Ttl: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	add := func(kind protocol.Kind, m proto.Message, want *protocol.Response) {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		kinds, raws, wants = append(kinds, kind), append(raws, raw), append(wants, want)
	}
	add(protocol.StateOfTheWorld, &discovery.DiscoveryResponse{}, &protocol.Response{})
	add(protocol.StateOfTheWorld, &discovery.DiscoveryResponse{
		VersionInfo: "v", TypeUrl: resource.Cluster, Nonce: "n", Canary: true, ControlPlane: &core.ControlPlane{Identifier: "cp"},
		Resources:      []*anypb.Any{inner, wrapped, renewal, {}},
		ResourceErrors: []*discovery.ResourceError{{ResourceName: named("e"), ErrorDetail: &rpc.Status{Code: 5, Message: "none", Details: []*anypb.Any{inner}}}},
	}, &protocol.Response{
		Version: "v", Type: resource.Cluster, Nonce: "n", ControlPlane: "cp",
		Items: []protocol.Item{
			{HasBody: true, Type: resource.Cluster, Body: []byte("body")},
			{Name: "a", Version: "7", HasBody: true, Type: resource.Cluster, Body: []byte("body"), TTL: 1500 * time.Millisecond},
			{Name: "a", TTL: time.Second},
			{HasBody: true},
		},
		Errors: []protocol.ItemError{{Name: "e", Code: 5, Message: "none"}},
	})
	add(protocol.Delta, &discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: "v", TypeUrl: resource.Cluster, Nonce: "n", ControlPlane: &core.ControlPlane{Identifier: "cp"},
		Resources: []*discovery.Resource{
			{
				Name: "a", Version: "1", Resource: inner, Aliases: []string{"b", "c"}, CacheControl: &discovery.Resource_CacheControl{DoNotCache: true},
				Metadata: &core.Metadata{},
			},
			{ResourceName: named("d"), Ttl: durationpb.New(time.Hour)},
			{Name: "w", Resource: wrapped},
		},
		RemovedResources: []string{"x", "y"}, RemovedResourceNames: []*discovery.ResourceName{named("z")},
		ResourceErrors: []*discovery.ResourceError{{ErrorDetail: &rpc.Status{Code: -1}}},
	}, &protocol.Response{
		Version: "v", Type: resource.Cluster, Nonce: "n", ControlPlane: "cp",
		Items: []protocol.Item{
			{Name: "a", Version: "1", Aliases: []string{"b", "c"}, HasBody: true, Type: resource.Cluster, Body: []byte("body")},
			{Name: "d", TTL: time.Hour},
			{Name: "w", HasBody: true, Type: wrapper, Body: wrapped.Value}, // one wrapper is enough
		},
		Removed: []string{"x", "y", "z"},
		Errors:  []protocol.ItemError{{Code: -1}},
	})
	return kinds, raws, wants
}

func equal(a, b *protocol.Response) bool {
	return a.Version == b.Version && a.Type == b.Type && a.Nonce == b.Nonce && a.ControlPlane == b.ControlPlane && a.Malformed == b.Malformed &&
		slices.EqualFunc(a.Items, b.Items, func(a, b protocol.Item) bool {
			return a.Name == b.Name && a.Version == b.Version && slices.Equal(a.Aliases, b.Aliases) && a.HasBody == b.HasBody && a.Type == b.Type && bytes.Equal(a.Body, b.Body) && a.TTL == b.TTL
		}) && slices.Equal(a.Removed, b.Removed) && slices.Equal(a.Errors, b.Errors)
}

// What is received is read as Envoy's own types write it.
func TestUnmarshal(t *testing.T) {
	kinds, raws, wants := samples(t)
	for i := range kinds {
		got, err := unmarshal(kinds[i], raws[i], 100)
		if err != nil || !equal(got, wants[i]) {
			t.Errorf("%d: %+v, %v\nwant %+v", i, got, err, wants[i])
		}
	}
	// The content is not that of the buffer.
	raw := raws[1]
	got, _ := unmarshal(kinds[1], raw, 100)
	clear(raw)
	if string(got.Items[0].Body) != "body" {
		t.Error("the buffer is kept")
	}
}

func TestUnmarshalRefused(t *testing.T) {
	field := func(num protowire.Number, b ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	number := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	join := func(all ...[]byte) []byte { return bytes.Join(all, nil) }
	long := bytes.Repeat([]byte("x"), 10_000)
	head := join(field(4, []byte(resource.Cluster)...), field(5, 'n'))
	for name, c := range map[string]struct {
		kind protocol.Kind // 0 is both
		raw  []byte
		says string // "": there is nothing to refuse
	}{
		"garbage":                      {0, []byte{0xff, 0xff}, ""},
		"cut short":                    {0, head[:len(head)-1], ""},
		"a group without end":          {0, protowire.AppendTag(nil, 9, protowire.StartGroupType), ""},
		"a type twice":                 {0, join(head, head), ""},
		"a nonce of another kind":      {0, join(number(5, 1)), ""},
		"a nonce that is no text":      {0, field(5, 0xff), ""},
		"a long nonce":                 {0, field(5, long...), ""},
		"a long type":                  {0, field(4, long...), ""},
		"a long version":               {0, field(1, long...), ""},
		"control planes":               {protocol.Delta, join(field(7), field(7)), ""},
		"a control plane that is none": {protocol.StateOfTheWorld, field(6, 0xff), ""},
		"too many resources":           {0, join(head, bytes.Repeat(field(2), 101)), "101 resources"},
		"too many removed":             {protocol.Delta, join(head, bytes.Repeat(field(6), 51), bytes.Repeat(field(8), 50)), "101 removed"},
		"too many errors":              {protocol.StateOfTheWorld, join(head, bytes.Repeat(field(7), 101)), "101 errors"},
		"too many errors of delta":     {protocol.Delta, join(head, bytes.Repeat(field(9), 101)), "101 errors"},
		"a number for a resource":      {0, join(head, number(2, 7)), "another kind"},
		"a resource of garbage":        {0, join(head, field(2, 0xff)), "not a protobuf"},
		"an Any twice":                 {protocol.Delta, join(head, field(2, join(field(2), field(2))...)), "twice"},
		"a type of an Any twice":       {protocol.StateOfTheWorld, join(head, field(2, join(field(1, 'a'), field(1, 'a'))...)), "twice"},
		"a value of an Any twice":      {protocol.StateOfTheWorld, join(head, field(2, join(field(2, 'a'), field(2, 'a'))...)), "twice"},
		"two names":                    {protocol.Delta, join(head, field(2, join(field(3, 'a'), field(8, field(1, 'b')...))...)), "of each kind"},
		"a variant":                    {protocol.Delta, join(head, field(2, field(8, join(field(1, 'b'), field(2))...)...)), "variant"},
		"a variant that is removed":    {protocol.Delta, join(head, field(8, join(field(1, 'b'), field(2))...)), "variant"},
		"aliases without end":          {protocol.Delta, join(head, field(2, bytes.Repeat(field(4, 'a'), 65)...)), "64 aliases"},
		"a long alias":                 {protocol.Delta, join(head, field(2, field(4, long...)...)), "10000 bytes"},
		"a long name":                  {protocol.Delta, join(head, field(2, field(3, long...)...)), "10000 bytes"},
		"a long removed name":          {protocol.Delta, join(head, field(6, long...)), "10000 bytes"},
		"a large body":                 {protocol.StateOfTheWorld, join(head, field(2, field(2, make([]byte, resource.MaxBody+1)...)...)), "at most"},
		"a negative time":              {protocol.Delta, join(head, field(2, field(6, number(1, math.MaxUint64)...)...)), "negative"},
		"negative nanoseconds":         {protocol.Delta, join(head, field(2, field(6, number(2, math.MaxUint64)...)...)), "negative"},
		"more than a second":           {protocol.Delta, join(head, field(2, field(6, number(2, 1_000_000_000)...)...)), "negative, or no time"},
		"a time of text":               {protocol.Delta, join(head, field(2, field(6, field(1, 'a')...)...)), "another kind"},
		"an error with two names":      {protocol.Delta, join(head, field(9, join(field(1), field(1))...)), "twice"},
		"an error with two reasons":    {protocol.Delta, join(head, field(9, join(field(2), field(2))...)), "twice"},
		"an error with two codes":      {protocol.Delta, join(head, field(9, field(2, join(number(1, 1), number(1, 2))...)...)), "twice"},
		"an error that is no text":     {protocol.Delta, join(head, field(9, field(2, field(2, 0xff)...)...)), "UTF-8"},
	} {
		for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
			if c.kind != 0 && c.kind != kind {
				continue
			}
			r, err := unmarshal(kind, c.raw, 100)
			switch {
			case c.says == "" && err == nil:
				t.Errorf("%s: %+v", name, r)
			case c.says != "" && (err != nil || !strings.Contains(r.Malformed, c.says)):
				t.Errorf("%s: %+v, %v", name, r, err)
			case c.says != "" && (r.Nonce != "n" || r.Type != resource.Cluster || r.Items != nil || r.Removed != nil || r.Errors != nil):
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	r, err := unmarshal(protocol.Delta, join(head, field(2, field(6, number(1, math.MaxInt64)...)...)), 100)
	if err != nil || r.Malformed != "" || r.Items[0].TTL != math.MaxInt64 {
		t.Errorf("a very long time: %+v, %v", r, err)
	}
}

// FuzzUnmarshal holds the reader against the generated code: what it takes says the same there, and it takes little memory.
func FuzzUnmarshal(f *testing.F) {
	kinds, raws, _ := samples(f)
	for i := range kinds {
		f.Add(kinds[i] == protocol.Delta, raws[i])
	}
	f.Fuzz(func(t *testing.T, delta bool, raw []byte) {
		kind := protocol.StateOfTheWorld
		if delta {
			kind = protocol.Delta
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := unmarshal(kind, raw, 100)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(16*len(raw)+1<<20) {
			t.Fatalf("%d bytes for %d", n, len(raw))
		}
		if err != nil || got.Malformed != "" {
			return
		}
		want, err := reference(delta, raw)
		if err != nil {
			return // something that is not read here, such as metadata
		}
		slices.Sort(got.Removed) // there are two lists of them, whose order is of no consequence
		slices.Sort(want.Removed)
		if !equal(got, want) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	})
}

// reference reads a response with the generated code.
func reference(delta bool, raw []byte) (*protocol.Response, error) {
	body := func(a *anypb.Any, i *protocol.Item) {
		if a != nil {
			i.HasBody, i.Type, i.Body = true, a.TypeUrl, a.Value
		}
	}
	item := func(r *discovery.Resource) protocol.Item {
		i := protocol.Item{Name: r.Name + r.ResourceName.GetName(), Version: r.Version, Aliases: r.Aliases}
		body(r.Resource, &i)
		if r.Ttl != nil {
			if i.TTL = r.Ttl.AsDuration(); r.Ttl.Seconds >= math.MaxInt64/int64(time.Second) {
				i.TTL = math.MaxInt64
			}
		}
		return i
	}
	failed := func(all []*discovery.ResourceError) (list []protocol.ItemError) {
		for _, e := range all {
			list = append(list, protocol.ItemError{Name: e.ResourceName.GetName(), Code: int(e.ErrorDetail.GetCode()), Message: e.ErrorDetail.GetMessage()})
		}
		return list
	}
	if delta {
		var m discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		r := &protocol.Response{Type: m.TypeUrl, Version: m.SystemVersionInfo, Nonce: m.Nonce, ControlPlane: m.ControlPlane.GetIdentifier(), Errors: failed(m.ResourceErrors)}
		for _, i := range m.Resources {
			r.Items = append(r.Items, item(i))
		}
		r.Removed = append(r.Removed, m.RemovedResources...)
		for _, n := range m.RemovedResourceNames {
			r.Removed = append(r.Removed, n.Name)
		}
		return r, nil
	}
	var m discovery.DiscoveryResponse
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	r := &protocol.Response{Type: m.TypeUrl, Version: m.VersionInfo, Nonce: m.Nonce, ControlPlane: m.ControlPlane.GetIdentifier(), Errors: failed(m.ResourceErrors)}
	for _, a := range m.Resources {
		i := protocol.Item{}
		if a.TypeUrl == wrapper {
			var w discovery.Resource
			if err := proto.Unmarshal(a.Value, &w); err != nil {
				return nil, err
			}
			i = item(&w)
		} else {
			body(a, &i)
		}
		r.Items = append(r.Items, i)
	}
	return r, nil
}
