package grpcads

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// wrapper is the type of a state-of-the-world resource with a name, a version or a time to live around it.
const wrapper = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// marshal makes a DiscoveryRequest or a DeltaDiscoveryRequest (envoy.service.discovery.v3).
func marshal(kind protocol.Kind, r *protocol.Request) ([]byte, error) {
	var b []byte
	text := func(num protowire.Number, s string) {
		if s != "" {
			b = protowire.AppendTag(b, num, protowire.BytesType)
			b = protowire.AppendString(b, s)
		}
	}
	list := func(num protowire.Number, all []string) {
		for _, s := range all {
			b = protowire.AppendTag(b, num, protowire.BytesType)
			b = protowire.AppendString(b, s)
		}
	}
	message := func(num protowire.Number, m []byte) {
		b = protowire.AppendTag(b, num, protowire.BytesType)
		b = protowire.AppendBytes(b, m)
	}
	var node, refusal []byte
	if r.Node != nil {
		var err error
		if node, err = marshalNode(r.Node); err != nil {
			return nil, err
		}
	}
	if r.Error != nil {
		refusal = protowire.AppendTag(nil, 1, protowire.VarintType)
		refusal = protowire.AppendVarint(refusal, uint64(int32(r.Error.Code)))
		refusal = protowire.AppendTag(refusal, 2, protowire.BytesType)
		refusal = protowire.AppendString(refusal, r.Error.Message)
	}
	switch kind {
	case protocol.StateOfTheWorld:
		text(1, r.Version)
		if r.Node != nil {
			message(2, node)
		}
		list(3, r.Names)
		text(4, r.Type)
		text(5, r.Nonce)
		if refusal != nil {
			message(6, refusal)
		}
	case protocol.Delta:
		if r.Node != nil {
			message(1, node)
		}
		text(2, r.Type)
		list(3, r.Subscribe)
		list(4, r.Unsubscribe)
		for _, n := range slices.Sorted(maps.Keys(r.Initial)) {
			pair := protowire.AppendTag(nil, 1, protowire.BytesType)
			pair = protowire.AppendString(pair, n)
			pair = protowire.AppendTag(pair, 2, protowire.BytesType)
			message(5, protowire.AppendString(pair, r.Initial[n]))
		}
		text(6, r.Nonce)
		if refusal != nil {
			message(7, refusal)
		}
	default:
		return nil, errors.New("neither state of the world nor delta")
	}
	return b, nil
}

// marshalNode makes an envoy.config.core.v3.Node.
func marshalNode(n *protocol.Node) ([]byte, error) {
	var b []byte
	text := func(num protowire.Number, s string) {
		if s != "" {
			b = protowire.AppendTag(b, num, protowire.BytesType)
			b = protowire.AppendString(b, s)
		}
	}
	text(1, n.ID)
	text(2, n.Cluster)
	if len(n.Metadata) > 0 {
		st, err := structpb.NewStruct(n.Metadata)
		if err != nil {
			return nil, fmt.Errorf("the metadata of the node: %w", err)
		}
		m, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
		if err != nil {
			return nil, fmt.Errorf("the metadata of the node: %w", err)
		}
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, m)
	}
	outer := b
	b = nil
	text(1, n.Region)
	text(2, n.Zone)
	text(3, n.SubZone)
	locality := b
	if b = outer; len(locality) > 0 {
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendBytes(b, locality)
	}
	text(6, n.UserAgent)
	text(7, n.UserVersion)
	for _, f := range n.Features {
		text(10, f)
	}
	return b, nil
}

// field is one field of a message.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	bytes []byte // BytesType; a part of the message
	value uint64 // VarintType
}

var errCut = errors.New("it is not a protobuf message")

// each calls f for every field of a message, and stops at an error.
func each(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errCut
		}
		b = b[n:]
		v := field{num: num, typ: typ}
		switch typ {
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v.value, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errCut
		}
		b = b[n:]
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// message is what is read of a message. A field that is there twice, though it is not a list, is an error: another reader might
// take the other one.
type message struct {
	seen uint32
}

func (m *message) once(f field, want protowire.Type) error {
	if f.typ != want {
		return fmt.Errorf("its field %d is of another kind", f.num)
	}
	if m.seen&(1<<f.num) != 0 {
		return fmt.Errorf("its field %d is there twice", f.num)
	}
	m.seen |= 1 << f.num
	return nil
}

func (m *message) text(f field, into *string, most int) error {
	if err := m.once(f, protowire.BytesType); err != nil {
		return err
	}
	s, err := text(f, most)
	*into = s
	return err
}

// text is a member of a list, or any text.
func text(f field, most int) (string, error) {
	switch {
	case f.typ != protowire.BytesType:
		return "", fmt.Errorf("its field %d is of another kind", f.num)
	case len(f.bytes) > most:
		return "", fmt.Errorf("its field %d has %d bytes, of at most %d", f.num, len(f.bytes), most)
	case !utf8.Valid(f.bytes):
		return "", fmt.Errorf("its field %d is not UTF-8", f.num)
	}
	return string(f.bytes), nil
}

const maxText = 4096 // of what is for people only

// unmarshal reads a DiscoveryResponse or a DeltaDiscoveryResponse with at most so many resources, removed resources and errors. If only type,
// version and nonce can be read, Malformed says why; without a nonce there is nothing to refuse, and it is an error.
func unmarshal(kind protocol.Kind, b []byte, most int) (*protocol.Response, error) {
	r := &protocol.Response{}
	var m message
	counts := map[protowire.Number]int{}
	delta := kind == protocol.Delta
	lists := map[protowire.Number]bool{2: true, 7: !delta, 6: delta, 8: delta, 9: delta}
	if err := each(b, func(f field) error {
		switch {
		case lists[f.num]:
			counts[f.num]++
		case f.num == 1:
			return m.text(f, &r.Version, resource.MaxVersion)
		case f.num == 4:
			return m.text(f, &r.Type, resource.MaxType)
		case f.num == 5:
			return m.text(f, &r.Nonce, 1024)
		case f.num == 6 && !delta || f.num == 7 && delta:
			if err := m.once(f, protowire.BytesType); err != nil {
				return err
			}
			return each(f.bytes, func(f field) (err error) {
				if f.num == 1 {
					r.ControlPlane, err = text(f, maxText)
				}
				return err
			})
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("the response cannot be read: %w", err)
	}
	items, removed, failed := counts[2], counts[6]+counts[8], counts[7]+counts[9]
	if items > most || removed > most || failed > most {
		r.Malformed = fmt.Sprintf("%d resources, %d removed and %d errors in one response, of at most %d each", items, removed, failed, most)
		return r, nil
	}
	r.Items = make([]protocol.Item, 0, items)
	err := each(b, func(f field) error {
		switch {
		case !lists[f.num]:
			return nil
		case f.typ != protowire.BytesType:
			return fmt.Errorf("its field %d is of another kind", f.num)
		case f.num == 2:
			var i protocol.Item
			var err error
			if delta {
				err = readResource(f.bytes, &i)
			} else {
				err = readAny(f.bytes, &i, true)
			}
			r.Items = append(r.Items, i)
			return err
		case f.num == 6:
			n, err := text(f, resource.MaxName)
			r.Removed = append(r.Removed, n)
			return err
		case f.num == 8:
			n, err := readName(f.bytes)
			r.Removed = append(r.Removed, n)
			return err
		}
		e, err := readError(f.bytes)
		r.Errors = append(r.Errors, e)
		return err
	})
	if err != nil {
		r.Items, r.Removed, r.Errors = nil, nil, nil
		r.Malformed = "the response cannot be read: " + err.Error()
	}
	return r, nil
}

// readAny reads a google.protobuf.Any. unwrap takes it for a Resource if it says that it is one.
func readAny(b []byte, i *protocol.Item, unwrap bool) error {
	var m message
	var body []byte
	typ := ""
	err := each(b, func(f field) error {
		switch f.num {
		case 1:
			return m.text(f, &typ, resource.MaxType)
		case 2:
			body = f.bytes
			return m.once(f, protowire.BytesType)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case unwrap && typ == wrapper:
		return readResource(body, i)
	case len(body) > resource.MaxBody:
		return fmt.Errorf("a resource has %d bytes, of at most %d", len(body), resource.MaxBody)
	}
	i.HasBody, i.Type = true, typ
	i.Body = slices.Clone(body) // or one small resource would keep all of a large message
	return nil
}

// readResource reads an envoy.service.discovery.v3.Resource.
func readResource(b []byte, i *protocol.Item) error {
	var m message
	name := ""
	err := each(b, func(f field) error {
		switch f.num {
		case 1:
			return m.text(f, &i.Version, resource.MaxVersion)
		case 2:
			if err := m.once(f, protowire.BytesType); err != nil {
				return err
			}
			return readAny(f.bytes, i, false)
		case 3:
			return m.text(f, &i.Name, resource.MaxName)
		case 4:
			if len(i.Aliases) == resource.MaxAliases {
				return fmt.Errorf("a resource has more than %d aliases", resource.MaxAliases)
			}
			a, err := text(f, resource.MaxName)
			i.Aliases = append(i.Aliases, a)
			return err
		case 6:
			err := m.once(f, protowire.BytesType)
			if err == nil {
				i.TTL, err = readDuration(f.bytes)
			}
			return err
		case 8:
			err := m.once(f, protowire.BytesType)
			if err == nil {
				name, err = readName(f.bytes)
			}
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if name != "" && i.Name != "" {
		return errors.New("a resource has a name of each kind")
	}
	i.Name += name
	return nil
}

// readName reads an envoy.service.discovery.v3.ResourceName. Variants of a resource are not subscribed to, so that one is an error.
func readName(b []byte) (name string, err error) {
	var m message
	err = each(b, func(f field) error {
		switch f.num {
		case 1:
			return m.text(f, &name, resource.MaxName)
		case 2:
			return errors.New("a resource is a variant, with constraints of parameters")
		}
		return nil
	})
	return name, err
}

// readError reads an envoy.service.discovery.v3.ResourceError.
func readError(b []byte) (e protocol.ItemError, err error) {
	var m message
	err = each(b, func(f field) (err error) {
		switch f.num {
		case 1:
			if err = m.once(f, protowire.BytesType); err == nil {
				e.Name, err = readName(f.bytes)
			}
		case 2:
			if err = m.once(f, protowire.BytesType); err != nil {
				return err
			}
			var s message
			return each(f.bytes, func(f field) error {
				switch f.num {
				case 1:
					e.Code = int(int32(f.value))
					return s.once(f, protowire.VarintType)
				case 2:
					return s.text(f, &e.Message, maxText)
				}
				return nil
			})
		}
		return err
	})
	return e, err
}

// readDuration reads a google.protobuf.Duration that is not negative. What is more than a time.Duration holds is the most that it holds.
func readDuration(b []byte) (time.Duration, error) {
	var m message
	var seconds, nanos int64
	err := each(b, func(f field) error {
		switch f.num {
		case 1:
			seconds = int64(f.value)
			return m.once(f, protowire.VarintType)
		case 2:
			nanos = int64(f.value)
			return m.once(f, protowire.VarintType)
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case seconds < 0 || nanos < 0 || nanos > 999_999_999:
		return 0, errors.New("a time to live is negative, or no time")
	case seconds >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64, nil
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos), nil
}
