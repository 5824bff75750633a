package trace_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
)

func attributes(r *trace.Record) map[string]any {
	all := map[string]any{}
	for _, a := range r.Attributes() {
		if _, twice := all[a.Key]; twice {
			panic(a.Key)
		}
		all[a.Key] = a.Value
	}
	return all
}

// record answers the Record of a span of which was said what say does.
func record(t testing.TB, say func(*trace.Span)) *trace.Record {
	t.Helper()
	tr, s := tracer(t, trace.Config{Methods: []string{"PROPFIND"}})
	span := tr.Start(now, parent("01"))
	say(&span)
	span.End(now.Add(time.Second))
	return s.all[0]
}

func TestServerSpan(t *testing.T) {
	r := record(t, func(s *trace.Span) {
		s.Request(&message.Request{
			Method: "GET", Authority: "api.example:8443", Path: "/users/7?token=SECRET", Fields: message.Fields{{Name: "Authorization", Value: "SECRET"}, {Name: "User-Agent", Value: "SECRET"}},
		}, "https", message.HTTP2)
		s.Route("users")
		s.Cluster("backend")
		s.Peer("192.0.2.1:51111")
		s.Status(200)
	})
	want := map[string]any{
		"http.request.method": "GET", "server.address": "api.example", "server.port": int64(8443), "url.scheme": "https", "url.path": "/users/7",
		"network.protocol.version": "2", "http.response.status_code": int64(200), "client.address": "192.0.2.1", "network.peer.address": "192.0.2.1",
		"network.peer.port": int64(51111), "jurat.route": "users", "jurat.cluster": "backend",
	}
	if got := attributes(r); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if r.Name() != "GET users" || r.ErrorType() != "" || r.Start != now || r.End != now.Add(time.Second) || strings.Contains(fmt.Sprintf("%+v", r), "SECRET") {
		t.Errorf("got %q, %+v", r.Name(), r)
	}
}

func TestClientSpan(t *testing.T) {
	tr, s := tracer(t, trace.Config{})
	span := tr.Start(now, append(parent("03"), message.Field{Name: "tracestate", Value: "a=1"}))
	span.Request(&message.Request{Method: "GET", Path: "/"}, "https", message.HTTP2)
	for try := range 2 {
		child := span.Child(now, try)
		child.Request(&message.Request{Method: "POST", Authority: "[2001:db8::1]:80", Path: "/x?SECRET"}, "http", message.HTTP11)
		child.Route("users")
		child.Peer("unix:/run/s.sock")
		child.Status(404)
		fields := child.Inject(parent("03"))
		if v, _ := fields.Get("traceparent"); v != child.Context().String() || !strings.HasSuffix(v, "-03") {
			t.Errorf("got %v", fields)
		}
		if v, _ := fields.Get("tracestate"); v != "a=1" {
			t.Errorf("got %v", fields)
		}
		child.End(now)
	}
	span.End(now)
	server := s.all[2]
	for try, r := range s.all[:2] {
		want := map[string]any{
			"http.request.method": "POST", "server.address": "2001:db8::1", "server.port": int64(80), "url.full": "http://[2001:db8::1]:80/x", "jurat.route": "users",
			"network.protocol.version": "1.1", "http.response.status_code": int64(404), "error.type": "404", "network.peer.address": "/run/s.sock",
		}
		if try > 0 {
			want["http.request.resend_count"] = int64(try)
		}
		if got := attributes(r); !reflect.DeepEqual(got, want) || r.Name() != "POST" {
			t.Errorf("got %q, %v", r.Name(), got)
		}
		if r.Kind != trace.Client || r.Parent != server.SpanID || r.TraceID != server.TraceID || r.Remote || r.State != "a=1" {
			t.Errorf("got %+v below %+v", r, server)
		}
	}
	if s.all[0].SpanID == s.all[1].SpanID {
		t.Error("two spans with one id")
	}
	if after := span.Child(now, 3); after.Recording() || after.Context() != span.Context() {
		t.Error("a child of a span that has ended")
	}
}

func TestErrorTypes(t *testing.T) {
	child := func(say func(*trace.Span)) *trace.Record {
		tr, s := tracer(t, trace.Config{})
		span := tr.Start(now, parent("01"))
		c := span.Child(now, 0)
		say(&c)
		c.End(now)
		return s.all[0]
	}
	server := func(say func(*trace.Span)) *trace.Record { return record(t, say) }
	for _, c := range []struct {
		of   func(func(*trace.Span)) *trace.Record
		say  func(*trace.Span)
		want string
	}{
		{server, func(*trace.Span) {}, ""},
		{server, func(s *trace.Span) { s.Status(302) }, ""},
		{server, func(s *trace.Span) { s.Status(499) }, ""},
		{server, func(s *trace.Span) { s.Status(500) }, "500"},
		{child, func(s *trace.Span) { s.Status(399) }, ""},
		{child, func(s *trace.Span) { s.Status(400) }, "400"},
		{child, func(s *trace.Span) { s.Status(503) }, "503"},
		{server, func(s *trace.Span) { s.Status(504); s.Fail(attest.CodeBackendFailed) }, "J107"},
		{server, func(s *trace.Span) { s.Status(200); s.ClientGone() }, "client_gone"},
		{server, func(s *trace.Span) { s.ClientGone(); s.Fail(attest.CodeTimeout) }, "J106"},
	} {
		r := c.of(c.say)
		if got, there := attributes(r)["error.type"]; r.ErrorType() != c.want || there != (c.want != "") || there && got != c.want {
			t.Errorf("got %q, want %q", r.ErrorType(), c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for want, say := range map[string]func(*trace.Span){
		"connection": func(*trace.Span) {},
		"PROPFIND":   func(s *trace.Span) { s.Request(&message.Request{Method: "PROPFIND"}, "https", message.HTTP11) },
		"HTTP":       func(s *trace.Span) { s.Request(&message.Request{Method: "BREW"}, "https", message.HTTP11) },
		"HTTP r":     func(s *trace.Span) { s.Route("r"); s.Request(&message.Request{Method: "get"}, "https", message.HTTP11) },
	} {
		if r := record(t, say); r.Name() != want {
			t.Errorf("got %q, want %q", r.Name(), want)
		}
	}
	a := attributes(record(t, func(s *trace.Span) { s.Request(&message.Request{Method: "get"}, "https", message.HTTP11) }))
	if a["http.request.method"] != "_OTHER" || a["http.request.method_original"] != "get" {
		t.Errorf("got %v", a)
	}
	// A later request takes nothing over from an earlier one.
	r := record(t, func(s *trace.Span) {
		s.Request(&message.Request{Method: "get"}, "https", message.HTTP11)
		s.Request(&message.Request{Method: "GET"}, "https", message.HTTP11)
		s.Peer("192.0.2.1:1")
		s.Peer("unix:/x")
	})
	if r.OriginalMethod != "" || r.PeerPort != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"":                             " 0",
		"a.example":                    "a.example 0",
		"a.example:":                   "a.example 0",
		"a.example:80":                 "a.example 80",
		"192.0.2.1:65535":              "192.0.2.1 65535",
		"a.example:65536":              "a.example:65536 0",
		"a.example:x":                  "a.example:x 0",
		"[2001:db8::1]:443":            "2001:db8::1 443",
		"[2001:db8::1]":                "2001:db8::1 0",
		"2001:db8::1":                  "2001:db8::1 0",
		"[::1":                         "::1 0",
		"a]:80":                        "a] 80",
		"user:secret@a.example:80":     "a.example 80",
		"user:secret@[::1]:80":         "::1 80",
		strings.Repeat("a", 300):       strings.Repeat("a", 255) + " 0",
		"a\xff.example:80":             "a\uFFFD.example 80",
		strings.Repeat("a", 254) + "é": strings.Repeat("a", 254) + "\uFFFD 0",
	} {
		r := record(t, func(s *trace.Span) {
			s.Request(&message.Request{Method: "GET", Authority: address}, "", 0)
			s.Peer(address)
		})
		if got := fmt.Sprint(r.Host, " ", r.Port); got != want {
			t.Errorf("%q: got %q", address, got)
		}
		if got := fmt.Sprint(r.PeerAddress, " ", r.PeerPort); got != want {
			t.Errorf("peer %q: got %q", address, got)
		}
	}
	for scheme, want := range map[string]any{"http": int64(80), "https": int64(443), "": nil} {
		r := record(t, func(s *trace.Span) { s.Request(&message.Request{Method: "GET", Authority: "a"}, scheme, 0) })
		if got := attributes(r)["server.port"]; got != want {
			t.Errorf("%q: got %v", scheme, got)
		}
	}
	for _, c := range []struct {
		scheme string
		r      message.Request
		want   any
	}{
		{"http", message.Request{Method: "GET", Authority: "a.example", Path: "/x?y"}, "http://a.example/x"},
		{"http", message.Request{Method: "GET", Authority: "a.example:81", Path: "/"}, "http://a.example:81/"},
		{"https", message.Request{Method: "GET", Authority: "[::1]", Path: "/"}, "https://[::1]/"},
		{"", message.Request{Method: "GET", Authority: "a.example", Path: "/"}, nil},
		{"http", message.Request{Method: "GET", Path: "/"}, nil},
		{"http", message.Request{Method: "OPTIONS", Authority: "a.example", Path: "*"}, nil},
		{"http", message.Request{Method: "CONNECT", Authority: "a.example"}, nil},
	} {
		tr, s := tracer(t, trace.Config{})
		span := tr.Start(now, parent("01"))
		child := span.Child(now, 0)
		child.Request(&c.r, c.scheme, message.HTTP11)
		child.End(now)
		if a := attributes(s.all[0]); a["url.full"] != c.want || c.r.Authority == "" && a["server.port"] != nil {
			t.Errorf("%+v: got %v", c.r, a)
		}
	}
}

// What strangers send is kept in part, and as UTF-8.
func TestBounds(t *testing.T) {
	long := strings.Repeat("x\xff", 50_000)
	r := record(t, func(s *trace.Span) {
		s.Request(&message.Request{Method: long, Authority: long, Path: "/" + long}, "https", message.HTTP11)
		s.Route(long)
		s.Cluster(long)
		s.Peer("unix:" + long)
	})
	size := 0
	for _, a := range r.Attributes() {
		if v, ok := a.Value.(string); ok {
			if size += len(v); !utf8.ValidString(v) {
				t.Errorf("%s: no UTF-8", a.Key)
			}
		}
	}
	if size > 10_000 {
		t.Errorf("%d bytes", size)
	}
}

type accept struct{}

func (accept) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:p", Checks: []attest.Check{{ID: "c", Status: attest.StatusPass}}}
}

func (accept) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	c := &attest.Claims{TEE: "snp", Vendor: "amd", Generation: "genoa", Simulated: true}
	copy(c.ReportData[:], ev.Raw)
	return c, nil
}

func affirmed(t testing.TB) *attest.Result {
	data := attest.ReportData{1}
	r := attest.NewAppraiser(attest.NoEndorser{}, accept{}).Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, attest.Expect(data, attest.LevelSession, now), accept{}, now)
	if !r.Affirmed() {
		t.Fatal(r.Err())
	}
	return r
}

func TestAttestation(t *testing.T) {
	refused := attest.RefusedResult(&attest.Error{Code: attest.CodeMeasurement}, now)
	r := record(t, func(s *trace.Span) { s.Attested(refused) })
	want := map[string]any{"jurat.verdict": "refused", "jurat.code": "J502", "error.type": "J502"}
	if got := attributes(r); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	r = record(t, func(s *trace.Span) { s.Attested(nil) })
	if r.Attestation != nil || len(r.Attributes()) != 0 {
		t.Errorf("got %v", r.Attributes())
	}
	if r = record(t, func(s *trace.Span) { s.Attested(&attest.Result{}) }); r.ErrorType() != "J508" {
		t.Errorf("a Result that nobody made: %q", r.ErrorType())
	}
	// An affirmed Result does not take a failure away.
	r = record(t, func(s *trace.Span) { s.Fail(attest.CodeTimeout); s.Attested(affirmed(t)) })
	got := attributes(r)
	evidence, _ := got["jurat.evidence"].(string)
	delete(got, "jurat.evidence")
	want = map[string]any{
		"jurat.verdict": "affirmed", "jurat.tee": "snp", "jurat.vendor": "amd", "jurat.generation": "genoa", "jurat.simulated": true, "jurat.binding": "session",
		"jurat.policy": "sha256:p", "jurat.code": "J106", "error.type": "J106",
	}
	if !reflect.DeepEqual(got, want) || !strings.HasPrefix(evidence, "sha256:") || len(evidence) != 71 {
		t.Errorf("got %v, %q", got, evidence)
	}
	if slices.ContainsFunc(r.Attributes(), func(a trace.Attribute) bool { return a.Value == "" }) {
		t.Error("an empty attribute")
	}
}
