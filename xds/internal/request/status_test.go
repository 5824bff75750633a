package request_test

import (
	"bytes"
	"slices"
	"testing"

	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/xds/internal/request"
)

// statusRequest is a ClientStatusRequest with matchers of these patterns.
func statusRequest(t testing.TB, patterns ...*matcher.StringMatcher) []byte {
	var raw []byte
	for _, p := range patterns {
		m, err := proto.Marshal(&matcher.NodeMatcher{NodeId: p})
		if err != nil {
			t.Fatal(err)
		}
		raw = protowire.AppendBytes(protowire.AppendTag(raw, 1, protowire.BytesType), m)
	}
	return raw
}

func expressions(n int, text string) (all []*matcher.StringMatcher) {
	for range n {
		all = append(all, &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: text}}})
	}
	return all
}

func TestReadStatus(t *testing.T) {
	exact := &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: "a"}}
	folded := &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Suffix{Suffix: "B"}, IgnoreCase: true}
	for name, c := range map[string]struct {
		raw   []byte
		bare  bool
		match []string // of a, ab and c
	}{
		"nothing":    {nil, false, []string{"a", "ab", "c"}},
		"exact":      {statusRequest(t, exact), false, []string{"a"}},
		"either":     {statusRequest(t, exact, folded), false, []string{"a", "ab"}},
		"bare":       {protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 1), true, []string{"a", "ab", "c"}},
		"not bare":   {protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 0), false, []string{"a", "ab", "c"}},
		"who it is":  {protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte("\x0a\x01x")), false, []string{"a", "ab", "c"}},
		"of a later": {protowire.AppendVarint(protowire.AppendTag(nil, 100, protowire.VarintType), 1), false, []string{"a", "ab", "c"}},
	} {
		s, err := request.ReadStatus(c.raw, 10)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var match []string
		for _, id := range []string{"a", "ab", "c"} {
			if s.Matches(id) {
				match = append(match, id)
			}
		}
		if s.Bare != c.bare || !slices.Equal(match, c.match) {
			t.Errorf("%s: %v, %v", name, s.Bare, match)
		}
	}
	for name, raw := range map[string][]byte{
		"garbage": {0xff}, "cut off": {10, 5, 1}, "a matcher that is none": protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0xff}),
		"too many":                bytes.Repeat(statusRequest(t, exact), 65),
		"no pattern":              statusRequest(t, &matcher.StringMatcher{}),
		"what repeats":            statusRequest(t, expressions(1, "(x*){600}")...),
		"what repeats, in pieces": statusRequest(t, expressions(40, "(x*){10}")...),
		"no condition":            protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), nil),
		"metadata": protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), append(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), nil),
			statusRequest(t, exact)[2:]...)),
		"many messages": protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), bytes.Repeat([]byte{18, 0}, 10)),
	} {
		if _, err := request.ReadStatus(raw, 10); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
	if _, err := request.ReadStatus(bytes.Repeat(statusRequest(t, exact), 64), 10); err != nil {
		t.Error(err)
	}
}

func FuzzReadStatus(f *testing.F) {
	f.Add(statusRequest(f, &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: "a"}}), "a")
	f.Add(statusRequest(f, &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: "a|b"}}}), "b")
	f.Fuzz(func(t *testing.T, raw []byte, id string) {
		s, err := request.ReadStatus(raw, 100)
		if err != nil {
			return
		}
		if again := s.Matches(id); again != s.Matches(id) {
			t.Error("it says one thing and another")
		}
	})
}
