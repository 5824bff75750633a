// Package request reads what a client of a discovery service asks for, within a bound on what is made of it.
package request

import (
	"fmt"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/jurat-tls/jurat/xds/internal/bound"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Bounds on texts that are kept, in bytes.
const (
	maxReason = 1 << 10
	maxID     = 512
	maxAgent  = 128
)

// Request is a DiscoveryRequest or a DeltaDiscoveryRequest.
type Request struct {
	Type, Nonce string
	Node        *Node
	Refused     bool
	Reason      string   // of a refusal, printable
	Subscribe   []string // all names in the state of the world
	Unsubscribe []string
	Initial     map[string]string // versions by name
}

// Node is what a request says about its sender, which nobody has verified. Its texts are printable.
type Node struct {
	ID, Agent     string
	Open, Refused *uint64 // connections, where the proxy reports them
}

// Read reads a request of at most that many messages, itself among them. Where it has more, nothing was made of it.
func Read(raw []byte, delta bool, messages int) (*Request, error) {
	if delta {
		var m discovery.DeltaDiscoveryRequest
		if err := unmarshal(raw, &m, messages); err != nil {
			return nil, err
		}
		r := &Request{
			Type: m.GetTypeUrl(), Nonce: m.GetResponseNonce(), Subscribe: m.GetResourceNamesSubscribe(), Unsubscribe: m.GetResourceNamesUnsubscribe(),
			Initial: m.GetInitialResourceVersions(),
		}
		r.about(m.GetNode(), m.GetErrorDetail())
		return r, nil
	}
	var m discovery.DiscoveryRequest
	if err := unmarshal(raw, &m, messages); err != nil {
		return nil, err
	}
	r := &Request{Type: m.GetTypeUrl(), Nonce: m.GetResponseNonce(), Subscribe: m.GetResourceNames()}
	r.about(m.GetNode(), m.GetErrorDetail())
	return r, nil
}

// unmarshal reads a message, after a look at what would be made of it.
func unmarshal(raw []byte, m proto.Message, most int) error {
	switch n, err := bound.Messages(shape{m.ProtoReflect().Descriptor()}, raw, most); {
	case err != nil:
		return err
	case n > most:
		return fmt.Errorf("more than %d messages in a request", most)
	}
	return proto.Unmarshal(raw, m)
}

// shape is what package bound has to know.
type shape struct{ protoreflect.MessageDescriptor }

func (s shape) Message(field int32) bound.Shape {
	if f := s.Fields().ByNumber(protoreflect.FieldNumber(field)); f != nil && f.Message() != nil {
		return shape{f.Message()}
	}
	return nil
}

func (r *Request) about(n *core.Node, refused *status.Status) {
	if refused != nil {
		r.Refused, r.Reason = true, resource.Printable(refused.GetMessage(), maxReason)
	}
	if n == nil {
		return
	}
	r.Node = &Node{ID: resource.Printable(n.GetId(), maxID), Agent: resource.Printable(strings.TrimSpace(n.GetUserAgentName()+" "+n.GetUserAgentVersion()), maxAgent)}
	report := n.GetMetadata().GetFields()["jurat"].GetStructValue().GetFields()
	count := func(name string) *uint64 {
		v := report[name].GetNumberValue()
		if report[name] == nil || !(v >= 0 && v < 1<<53) {
			return nil
		}
		n := uint64(v)
		return &n
	}
	r.Node.Open, r.Node.Refused = count("open"), count("refused")
}
