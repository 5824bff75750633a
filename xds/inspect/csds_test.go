package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/inspect"
)

// served is a CSDS server for a real client of gRPC, over HTTP as the admin API has it.
func served(t *testing.T, source inspect.Source) statusv3.ClientStatusDiscoveryServiceClient {
	t.Helper()
	return servedWith(t, source, attested.Options{Message: 64 << 10})
}

func servedWith(t *testing.T, source inspect.Source, opts attested.Options) statusv3.ClientStatusDiscoveryServiceClient {
	t.Helper()
	s := attested.NewServer(func(context.Context, net.Conn) (attested.Conn, error) { return nil, errors.New("nobody") }, inspect.Handlers(source), opts)
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: s.LocalHTTP("admin"), Protocols: protocols, ReadHeaderTimeout: time.Minute}
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(ln) })
	conn, err := grpc.NewClient("unix:"+ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = server.Close()
		s.Stop()
		work.Wait()
	})
	return statusv3.NewClientStatusDiscoveryServiceClient(conn)
}

func clients(t *testing.T) inspect.Source {
	return func(wanted func(string) bool, contents bool) (out []inspect.Client) {
		for _, id := range []string{"pay.example/1", "pay.example/2"} {
			if wanted(id) {
				c := inspect.Client{Node: inspect.Node{ID: id, Cluster: "c", Agent: "jurat", Version: "1", Metadata: map[string]any{"a": "b", "password": secret}}, Scope: "delta", Resources: all(t)}
				out = append(out, c)
			}
		}
		return out
	}
}

func node(pattern *matcherv3.StringMatcher) *statusv3.ClientStatusRequest {
	return &statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{{NodeId: pattern}}}
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func TestCSDS(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("served", func(t *testing.T) {
		c := served(t, clients(t))
		got, err := c.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
		if err != nil || len(got.GetConfig()) != 2 {
			t.Fatalf("%v %v", got, err)
		}
		one := got.GetConfig()[0]
		if n := one.GetNode(); n.GetId() != "pay.example/1" || n.GetCluster() != "c" || n.GetUserAgentName() != "jurat" || n.GetUserAgentVersion() != "1" || n.GetMetadata().GetFields()["a"].GetStringValue() != "b" || one.GetClientScope() != "delta" {
			t.Errorf("node %v", n)
		}
		want := map[string]struct {
			client adminv3.ClientResourceStatus
			config statusv3.ConfigStatus
			shown  string
		}{
			"AttestationPolicy mesh": {adminv3.ClientResourceStatus_ACKED, statusv3.ConfigStatus_SYNCED, "xds.type.v3.TypedStruct"},
			"Cluster pay":            {adminv3.ClientResourceStatus_NACKED, statusv3.ConfigStatus_ERROR, "Cluster"},
			"Cluster gone":           {adminv3.ClientResourceStatus_DOES_NOT_EXIST, statusv3.ConfigStatus_NOT_SENT, ""},
			"Cluster wanted":         {adminv3.ClientResourceStatus_REQUESTED, statusv3.ConfigStatus_NOT_SENT, ""},
			"Secret tls":             {adminv3.ClientResourceStatus_ACKED, statusv3.ConfigStatus_SYNCED, "Secret"},
			"Secret late":            {adminv3.ClientResourceStatus_TIMEOUT, statusv3.ConfigStatus_NOT_SENT, ""},
			"Listener out":           {adminv3.ClientResourceStatus_ACKED, statusv3.ConfigStatus_SYNCED, "Listener"},
		}
		for _, x := range one.GetGenericXdsConfigs() {
			key := x.GetTypeUrl()[strings.LastIndexByte(x.GetTypeUrl(), '.')+1:] + " " + x.GetName()
			w, ok := want[key]
			if delete(want, key); !ok {
				continue
			}
			if x.GetClientStatus() != w.client || x.GetConfigStatus() != w.config || !strings.HasSuffix(x.GetXdsConfig().GetTypeUrl(), w.shown) || w.shown == "" && x.GetXdsConfig() != nil {
				t.Errorf("%s: %v", key, x)
			}
			if key == "Cluster pay" && (x.GetVersionInfo() != "3" || x.GetErrorState().GetVersionInfo() != "9" || !x.GetLastUpdated().AsTime().Equal(now) || !strings.HasPrefix(x.GetErrorState().GetDetails(), "J905")) {
				t.Errorf("%s: %v", key, x)
			}
			if x.GetXdsConfig() != nil {
				if _, err := x.GetXdsConfig().UnmarshalNew(); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		}
		if len(want) != 0 {
			t.Errorf("missing: %v", want)
		}
		if raw, err := proto.Marshal(got); err != nil || strings.Contains(string(raw), secret) {
			t.Errorf("a secret, or %v", err)
		}

		stream, err := c.StreamClientStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ask := range []struct {
			r    *statusv3.ClientStatusRequest
			want int
		}{
			{node(exact("pay.example/2")), 1},
			{node(exact("x")), 0},
			{node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "PAY"}, IgnoreCase: true}), 2},
			{node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: "/1"}}), 1},
			{node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: "example"}}), 2},
			{node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "pay.*"}}}), 2},
			{node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "pay"}}}), 0},
			{&statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{{NodeId: exact("x")}, {NodeId: exact("pay.example/1")}}}, 1},
			{&statusv3.ClientStatusRequest{Node: &corev3.Node{Id: "me"}, ExcludeResourceContents: true}, 2},
		} {
			if err := stream.Send(ask.r); err != nil {
				t.Fatal(err)
			}
			got, err := stream.Recv()
			if err != nil || len(got.GetConfig()) != ask.want {
				t.Errorf("%v: %d, %v", ask.r, len(got.GetConfig()), err)
			}
			if ask.r.GetExcludeResourceContents() {
				for _, x := range got.GetConfig()[0].GetGenericXdsConfigs() {
					if x.GetXdsConfig() != nil {
						t.Errorf("contents of %s", x.GetName())
					}
				}
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err == nil || status.Code(err) != codes.Unknown && err.Error() != "EOF" {
			t.Errorf("the end: %v", err)
		}
	})
}

// Who asks and does not read what is answered is cut off, and keeps nobody else waiting for long.
func TestCSDSStalls(t *testing.T) {
	asked := make(chan struct{}, 10)
	c := servedWith(t, func(wanted func(string) bool, _ bool) []inspect.Client {
		if !wanted("large") {
			return nil
		}
		asked <- struct{}{}
		return []inspect.Client{{Node: inspect.Node{ID: strings.Repeat("x", 1<<20)}}}
	}, attested.Options{Stall: 50 * time.Millisecond})
	stream, err := c.StreamClientStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := stream.Send(node(exact("large"))); err != nil {
			t.Fatal(err)
		}
	}
	<-asked // for the second time: the answer waits for the first one
	<-asked
	within, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.FetchClientStatus(within, node(exact("x"))); err != nil {
		t.Error(err)
	}
}

func TestCSDSRefuses(t *testing.T) {
	c := served(t, func(func(string) bool, bool) []inspect.Client {
		t.Error("an answer was made")
		return nil
	})
	var many statusv3.ClientStatusRequest
	for i := range 65 {
		many.NodeMatchers = append(many.NodeMatchers, &matcherv3.NodeMatcher{NodeId: exact(fmt.Sprint(i))})
	}
	var deep []*matcherv3.StructMatcher
	for range 200 {
		deep = append(deep, &matcherv3.StructMatcher{})
	}
	for name, r := range map[string]*statusv3.ClientStatusRequest{
		"metadata":           {NodeMatchers: []*matcherv3.NodeMatcher{{NodeMetadatas: []*matcherv3.StructMatcher{{}}, NodeId: exact("x")}}},
		"nothing":            {NodeMatchers: []*matcherv3.NodeMatcher{{}}},
		"no pattern":         node(&matcherv3.StringMatcher{}),
		"an odd expression":  node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}}),
		"a long expression":  node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: strings.Repeat("a", 2000)}}}),
		"too many":           &many,
		"too many messages":  {NodeMatchers: []*matcherv3.NodeMatcher{{NodeMetadatas: deep}}},
		"a large message":    {Node: &corev3.Node{Id: strings.Repeat("a", 100<<10)}},
		"a matcher of ours?": node(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Custom{}}),
	} {
		if _, err := c.FetchClientStatus(t.Context(), r); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", name, err)
		}
	}
}
