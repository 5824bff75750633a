package request

import (
	"errors"
	"fmt"
	"strings"

	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/proxy/pattern"
)

// Bounds on what is asked about clients.
const (
	maxMatchers = 64
	maxWeight   = pattern.Most // of all expressions together
)

// Status is a ClientStatusRequest (envoy.service.status.v3): which clients, and whether what they hold is to be left out.
type Status struct {
	matchers []func(id string) bool
	weight   int  // of the expressions among them
	Bare     bool // exclude_resource_contents
}

// Matches reports whether a client with that node.id is asked about.
func (s *Status) Matches(id string) bool {
	for _, m := range s.matchers {
		if m(id) {
			return true
		}
	}
	return len(s.matchers) == 0
}

// ReadStatus reads a ClientStatusRequest of at most that many messages in each matcher. Who asks is not looked at.
func ReadStatus(raw []byte, messages int) (*Status, error) {
	s := &Status{}
	for len(raw) > 0 {
		number, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, errors.New("not a message")
		}
		raw = raw[n:]
		if n = protowire.ConsumeFieldValue(number, typ, raw); n < 0 {
			return nil, errors.New("not a message")
		}
		switch {
		case number == 1 && typ == protowire.BytesType:
			if len(s.matchers) == maxMatchers {
				return nil, fmt.Errorf("more than %d matchers", maxMatchers)
			}
			v, _ := protowire.ConsumeBytes(raw)
			var m matcher.NodeMatcher
			if err := unmarshal(v, &m, messages); err != nil {
				return nil, err
			}
			match, err := s.nodeMatcher(&m)
			if err != nil {
				return nil, err
			}
			s.matchers = append(s.matchers, match)
		case number == 3 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(raw)
			s.Bare = v != 0
		}
		raw = raw[n:]
	}
	return s, nil
}

// nodeMatcher says which nodes are meant. What can't be carried out is an error: it must not match everybody.
func (s *Status) nodeMatcher(m *matcher.NodeMatcher) (func(id string) bool, error) {
	if len(m.GetNodeMetadatas()) > 0 || m.GetNodeId() == nil {
		return nil, errors.New("clients are found by node_id alone")
	}
	fold := func(s string) string { return s }
	if m.GetNodeId().GetIgnoreCase() {
		fold = strings.ToLower
	}
	with := func(f func(id, what string) bool, what string) func(string) bool {
		what = fold(what)
		return func(id string) bool { return f(fold(id), what) }
	}
	switch p := m.GetNodeId().GetMatchPattern().(type) {
	case *matcher.StringMatcher_Exact:
		return with(func(id, what string) bool { return id == what }, p.Exact), nil
	case *matcher.StringMatcher_Prefix:
		return with(strings.HasPrefix, p.Prefix), nil
	case *matcher.StringMatcher_Suffix:
		return with(strings.HasSuffix, p.Suffix), nil
	case *matcher.StringMatcher_Contains:
		return with(strings.Contains, p.Contains), nil
	case *matcher.StringMatcher_SafeRegex:
		re, weight, err := pattern.Compile(p.SafeRegex.GetRegex(), true, pattern.Most) // the whole name, as Envoy has it
		if err != nil {
			return nil, fmt.Errorf("an expression that is %w", err)
		}
		if s.weight += weight; s.weight > maxWeight {
			return nil, errors.New("expressions that are too large together")
		}
		return re.MatchString, nil
	}
	return nil, errors.New("a matcher of a kind that is not known here")
}
