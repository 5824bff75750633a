package inspect

import (
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/internal/request"
)

// Service is the name of CSDS in gRPC.
const Service = "envoy.service.status.v3.ClientStatusDiscoveryService"

// Methods that are served.
const (
	methodStream = "/" + Service + "/StreamClientStatus"
	methodFetch  = "/" + Service + "/FetchClientStatus"
)

// maxParts are the messages within a matcher of a request: what a client asks about.
const maxParts = 100

// Source answers the clients for whose node.id wanted is true, in order; without the bodies of resources where contents is false.
type Source func(wanted func(id string) bool, contents bool) []Client

// Handlers are the methods of CSDS, for an attested.Server. Whoever reaches it is told of all clients. One answer is made at a time: an answer
// can be as large as all that a proxy holds.
func Handlers(source Source) map[string]attested.Handler {
	busy := make(chan struct{}, 1)
	answer := func(s attested.Stream) error {
		raw, err := s.Recv()
		if err != nil {
			return err
		}
		asked, err := request.ReadStatus(raw, maxParts)
		if err != nil {
			return &attested.Status{Code: attested.InvalidArgument, Message: err.Error()}
		}
		select {
		case busy <- struct{}{}:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		defer func() { <-busy }()
		return s.Send(response(source(asked.Matches, !asked.Bare), !asked.Bare))
	}
	return map[string]attested.Handler{
		methodFetch: answer,
		methodStream: func(s attested.Stream) error {
			for {
				if err := answer(s); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
			}
		},
	}
}

// message is one that is being written.
type message []byte

func (m *message) text(field protowire.Number, s string) {
	if s != "" {
		*m = protowire.AppendString(protowire.AppendTag(*m, field, protowire.BytesType), strings.ToValidUTF8(s, "?"))
	}
}

func (m *message) number(field protowire.Number, n uint64) {
	if n != 0 {
		*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), n)
	}
}

func (m *message) bytes(field protowire.Number, raw []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), raw)
}

// time writes a google.protobuf.Timestamp.
func (m *message) time(field protowire.Number, t time.Time) {
	if t.IsZero() {
		return
	}
	var inner message
	inner.number(1, uint64(t.Unix()))
	inner.number(2, uint64(t.Nanosecond()))
	m.bytes(field, inner)
}

// response is a ClientStatusResponse.
func response(all []Client, contents bool) []byte {
	var m message
	screen := envoy.NewScreen()
	for i := range all {
		m.bytes(1, all[i].message(screen, contents))
	}
	return m
}

// message is a ClientConfig.
func (c *Client) message(screen *envoy.Screen, contents bool) []byte {
	var m message
	m.bytes(1, c.Node.message())
	for i := range c.Resources {
		m.bytes(3, c.Resources[i].message(screen, contents))
	}
	m.text(4, c.Scope)
	return m
}

// message is an envoy.config.core.v3.Node.
func (n *Node) message() []byte {
	var m message
	m.text(1, n.ID)
	m.text(2, n.Cluster)
	if metadata, err := n.shown(); err == nil && len(metadata) > 0 {
		if fields, err := structpb.NewStruct(metadata); err == nil {
			if raw, err := (proto.MarshalOptions{Deterministic: true}).Marshal(fields); err == nil {
				m.bytes(3, raw)
			}
		}
	}
	m.text(6, n.Agent)
	m.text(7, n.Version)
	return m
}

// message is a GenericXdsConfig.
func (r *Resource) message(screen *envoy.Screen, contents bool) []byte {
	var m message
	m.text(1, r.Type)
	m.text(2, r.Name)
	m.text(3, r.Version)
	if contents && len(r.Body) > 0 {
		if typ, body, err := screen.Show(r.Resource); err == nil {
			var a message
			a.text(1, typ)
			a.bytes(2, body)
			m.bytes(4, a)
		}
	}
	m.time(5, r.Since)
	m.number(6, uint64(r.Standing))
	m.number(7, uint64(r.Condition))
	if r.Refusal != nil {
		var f message
		f.time(2, r.Refusal.Time)
		f.text(3, r.Refusal.Reason)
		f.text(4, r.Refusal.Version)
		m.bytes(8, f)
	}
	return m
}
