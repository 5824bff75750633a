package request_test

import (
	"bytes"
	"reflect"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/xds/internal/request"
)

// many is a request whose node has that many empty lists in its metadata: two bytes each, and a hundred in memory.
func many(delta bool, n int) []byte {
	const metadata, fields, value, list, values = 3, 1, 2, 6, 1 // of Node, Struct, Value and ListValue
	within := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	node := protowire.Number(2)
	if delta {
		node = 1
	}
	return within(node, within(metadata, within(fields, within(value, within(list, bytes.Repeat(within(values, nil), n))))))
}

// The request, node, metadata, entry, value and list around them.
const around = 6

func TestBounded(t *testing.T) {
	for _, delta := range []bool{true, false} {
		if _, err := request.Read(many(delta, 1000-around), delta, 1000); err != nil {
			t.Errorf("delta %v: %v", delta, err)
		}
		if _, err := request.Read(many(delta, 1001-around), delta, 1000); err == nil {
			t.Errorf("delta %v: it was read", delta)
		}
		raw := many(delta, 2<<20)
		if n := testing.AllocsPerRun(1, func() {
			if _, err := request.Read(raw, delta, 1000); err == nil {
				t.Errorf("delta %v: it was read", delta)
			}
		}); n > 2000 { // of looking at them
			t.Errorf("delta %v: %v allocations", delta, n)
		}
		if _, err := request.Read([]byte{0xff}, delta, 1000); err == nil {
			t.Errorf("delta %v: garbage was read", delta)
		}
	}
}

func TestRead(t *testing.T) {
	number := func(n uint64) *uint64 { return &n }
	node := func(fields map[string]any) *core.Node {
		s, err := structpb.NewStruct(map[string]any{"jurat": fields})
		if err != nil {
			t.Fatal(err)
		}
		return &core.Node{Id: "a\nb", UserAgentName: "jurat", UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: "1"}, Metadata: s}
	}
	for name, tc := range map[string]struct {
		m    proto.Message
		want request.Request
	}{
		"delta": {
			&discovery.DeltaDiscoveryRequest{TypeUrl: "t", ResponseNonce: "1", ResourceNamesSubscribe: []string{"a"}, ResourceNamesUnsubscribe: []string{"b"}, InitialResourceVersions: map[string]string{"a": "2"}},
			request.Request{Type: "t", Nonce: "1", Subscribe: []string{"a"}, Unsubscribe: []string{"b"}, Initial: map[string]string{"a": "2"}},
		},
		"state of the world": {
			&discovery.DiscoveryRequest{TypeUrl: "t", ResponseNonce: "1", ResourceNames: []string{"a"}, ErrorDetail: &status.Status{Message: "no\n"}},
			request.Request{Type: "t", Nonce: "1", Subscribe: []string{"a"}, Refused: true, Reason: "no?"},
		},
		"a node": {
			&discovery.DeltaDiscoveryRequest{Node: node(map[string]any{"open": 3, "refused": 0})},
			request.Request{Node: &request.Node{ID: "a?b", Agent: "jurat 1", Open: number(3), Refused: number(0)}},
		},
		"a node with no numbers": {
			&discovery.DeltaDiscoveryRequest{Node: node(map[string]any{"open": -1, "refused": 1e17})},
			request.Request{Node: &request.Node{ID: "a?b", Agent: "jurat 1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := proto.Marshal(tc.m)
			if err != nil {
				t.Fatal(err)
			}
			_, delta := tc.m.(*discovery.DeltaDiscoveryRequest)
			got, err := request.Read(raw, delta, 100)
			if err != nil || !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
