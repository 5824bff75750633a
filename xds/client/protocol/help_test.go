package protocol_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

const (
	cds = resource.Cluster
	eds = resource.Endpoints
	sds = resource.Secret
	lds = resource.Listener
	rds = resource.Route
)

// body is a resource with a name and something else.
func body(name, content string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, 200, protowire.BytesType)
	return protowire.AppendString(b, content)
}

// script drives a Machine and records what comes of it.
type script struct {
	*testing.T
	*protocol.Machine
	now     time.Time
	verdict func(*protocol.Update) error
	updates []*protocol.Update // since the last look
	all     map[string]map[string]string
	nonce   int
}

func start(t *testing.T, kind protocol.Kind, change ...func(*protocol.Config)) *script {
	t.Helper()
	config := protocol.Config{Kind: kind, Node: protocol.Node{ID: "me"}, Random: func() float64 { return 0.5 }}
	for _, c := range change {
		c(&config)
	}
	m, err := protocol.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &script{T: t, Machine: m, now: time.Unix(1000, 0), all: map[string]map[string]string{}}
}

func (s *script) want(typ string, names ...string) { s.wantWithin(typ, 0, names...) }

func (s *script) wantWithin(typ string, within time.Duration, names ...string) {
	s.Helper()
	if err := s.Subscribe(s.now, typ, names, within); err != nil {
		s.Fatal(err)
	}
	if slices.Contains(names, "*") {
		return
	}
	for n := range s.all[typ] {
		if !slices.Contains(names, n) {
			delete(s.all[typ], n)
		}
	}
}

// judge answers an update and keeps the state that a Sink would keep.
func (s *script) judge(u *protocol.Update) {
	s.updates = append(s.updates, u)
	var err error
	if s.verdict != nil {
		err = s.verdict(u)
	}
	if err == nil || u.Cause == protocol.Expired {
		if s.all[u.Type] == nil {
			s.all[u.Type] = map[string]string{}
		}
		for _, r := range u.Changed {
			s.all[u.Type][r.Name] = content(r.Body)
		}
		for _, n := range u.Removed {
			delete(s.all[u.Type], n)
		}
	}
	s.Judged(s.now, err)
}

func content(b []byte) string {
	_, _, n := protowire.ConsumeTag(b)
	_, m := protowire.ConsumeBytes(b[n:])
	b = b[n+m:]
	_, _, n = protowire.ConsumeTag(b)
	v, _ := protowire.ConsumeString(b[n:])
	return v
}

func (s *script) due() {
	for u := s.Due(s.now); u != nil; u = s.Due(s.now) {
		s.judge(u)
	}
}

// get receives a response and fails if that ends the stream.
func (s *script) get(r *protocol.Response) {
	s.Helper()
	if err := s.try(r); err != nil {
		s.Fatal(err)
	}
}

func (s *script) try(r *protocol.Response) error {
	s.due()
	if r.Nonce == "" {
		s.nonce++
		r.Nonce = fmt.Sprint("n", s.nonce)
	} else if r.Nonce == "none" {
		r.Nonce = ""
	}
	u, err := s.Receive(s.now, r)
	if err != nil {
		return err
	}
	if u != nil {
		s.judge(u)
	}
	s.due()
	return nil
}

// says checks the requests that are to be sent, in short form.
func (s *script) says(want ...string) {
	s.Helper()
	var got []string
	for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
		if len(got) > 100 {
			s.Fatal("requests without end")
		}
		got = append(got, short(r))
	}
	if !slices.Equal(got, want) {
		s.Fatalf("requests:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// offered checks the updates since the last look, in short form.
func (s *script) offered(want ...string) {
	s.Helper()
	var got []string
	for _, u := range s.updates {
		got = append(got, shortUpdate(u))
	}
	s.updates = nil
	if !slices.Equal(got, want) {
		s.Fatalf("updates:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (s *script) state(typ string, want ...string) {
	s.Helper()
	var got []string
	for _, n := range slices.Sorted(maps.Keys(s.all[typ])) {
		got = append(got, n+"="+s.all[typ][n])
	}
	if !slices.Equal(got, want) {
		s.Fatalf("state %q, want %q", got, want)
	}
	// And it is what the machine says.
	got = nil
	for _, r := range s.Resources(typ) {
		if r.Body != nil {
			got = append(got, r.Name+"="+content(r.Body))
		}
	}
	if !slices.Equal(got, want) {
		s.Fatalf("the machine has %q, want %q", got, want)
	}
}

var names = map[string]string{cds: "CDS", eds: "EDS", sds: "SDS", lds: "LDS", rds: "RDS", resource.AttestationPolicy: "policy", resource.ReferenceValues: "values"}

func short(r *protocol.Request) string {
	var b strings.Builder
	b.WriteString(names[r.Type])
	if r.Node != nil {
		b.WriteString(" node")
	}
	if r.Version != "" {
		b.WriteString(" version " + r.Version)
	}
	list := func(word string, all []string) {
		if len(all) > 0 {
			fmt.Fprintf(&b, " %s%q", word, all)
		}
	}
	list("", r.Names)
	list("+", r.Subscribe)
	list("-", r.Unsubscribe)
	if len(r.Initial) > 0 {
		fmt.Fprintf(&b, " have %v", r.Initial)
	}
	if r.Nonce != "" {
		b.WriteString(" nonce " + r.Nonce)
	}
	if r.Error != nil {
		fmt.Fprintf(&b, " refused %d %s", r.Error.Code, r.Error.Message)
	}
	return b.String()
}

func shortUpdate(u *protocol.Update) string {
	var b strings.Builder
	b.WriteString(names[u.Type])
	if u.Cause != protocol.Answered {
		b.WriteString(" " + u.Cause.String())
	}
	for _, r := range u.Changed {
		b.WriteString(" " + r.Name + "=" + content(r.Body))
	}
	for _, n := range u.Removed {
		b.WriteString(" -" + n)
	}
	for _, f := range u.Failed {
		b.WriteString(" !" + f.Name)
	}
	if u.Complete {
		b.WriteString(" complete")
	}
	return b.String()
}

// sotw makes a state-of-the-world response of bare resources, "name=content".
func sotw(typ, version string, all ...string) *protocol.Response {
	r := &protocol.Response{Type: typ, Version: version}
	for _, a := range all {
		n, c, _ := strings.Cut(a, "=")
		r.Items = append(r.Items, protocol.Item{HasBody: true, Type: typ, Body: body(n, c)})
	}
	return r
}

// delta makes a delta response: "name=content" or "-name". The version of a resource is its content.
func delta(typ string, all ...string) *protocol.Response {
	r := &protocol.Response{Type: typ, Version: "debug"}
	for _, a := range all {
		if n, ok := strings.CutPrefix(a, "-"); ok {
			r.Removed = append(r.Removed, n)
			continue
		}
		n, c, _ := strings.Cut(a, "=")
		r.Items = append(r.Items, protocol.Item{Name: n, Version: c, HasBody: true, Type: typ, Body: body(n, c)})
	}
	return r
}
