package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// callee is an unmodified gRPC service.
type callee struct {
	pb.UnimplementedTestServiceServer
	cancelled chan struct{}
}

func (c callee) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if _, ok := ctx.Deadline(); ok {
		<-ctx.Done()
		c.cancelled <- struct{}{}
		return nil, ctx.Err()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-head", "h"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail-bin", "\x00\xff", "jurat-error", "forged"))
	if s := in.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.GetCode()), s.GetMessage())
	}
	return &pb.SimpleResponse{Payload: in.GetPayload(), Hostname: fmt.Sprint(md["jurat-result"])}, nil
}

// FullDuplexCall answers each message before it reads the next.
func (callee) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	s.SetTrailer(metadata.Pairs("x-tail", "t"))
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

func (callee) StreamingInputCall(s grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	var total int32
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: total})
		}
		if err != nil {
			return err
		}
		total += int32(len(in.GetPayload().GetBody()))
	}
}

func TestGRPC(t *testing.T) {
	ln := listen(t)
	srv := grpc.NewServer()
	service := callee{cancelled: make(chan struct{}, 1)}
	pb.RegisterTestServiceServer(srv, service)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	for _, scheme := range []string{"", "h2c://"} {
		in := inboundHTTP(t, shake(affirmed(), "h2", "http/1.1"), scheme+ln.Addr().String(), proxy.Limits{}, nil)
		for _, w := range ways(t, in) {
			t.Run(w.name+" "+scheme, func(t *testing.T) {
				cc, err := grpc.NewClient("passthrough:///shop.example",
					grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.dial("h2")(ctx) }))
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				calls(t, pb.NewTestServiceClient(cc), service.cancelled)
			})
		}
	}
}

func calls(t *testing.T, c pb.TestServiceClient, cancelled <-chan struct{}) {
	payload := &pb.Payload{Body: make([]byte, 300<<10)}

	var head, tail metadata.MD
	out, err := c.UnaryCall(t.Context(), &pb.SimpleRequest{Payload: payload}, grpc.Header(&head), grpc.Trailer(&tail))
	if err != nil || len(out.GetPayload().GetBody()) != len(payload.Body) {
		t.Fatalf("got %v", err)
	}
	if fmt.Sprint(head["x-head"], tail["x-tail-bin"], tail["jurat-error"]) != "[h] [\x00\xff] []" {
		t.Fatalf("got header %v and trailer %v", head, tail)
	}
	if out.GetHostname() != "["+resultHeader+"]" {
		t.Fatalf("the service was told %s", out.GetHostname())
	}

	_, err = c.UnaryCall(t.Context(), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(codes.DataLoss), Message: "wie schade ☹"}})
	if s := status.Convert(err); s.Code() != codes.DataLoss || s.Message() != "wie schade ☹" {
		t.Fatalf("got %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.UnaryCall(ctx, &pb.SimpleRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("got %v", err)
	}
	<-cancelled

	up, err := c.StreamingInputCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := up.Send(&pb.StreamingInputCallRequest{Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := up.CloseAndRecv(); err != nil || int(sum.GetAggregatedPayloadSize()) != 20*len(payload.Body) {
		t.Fatalf("got %v, %v", sum, err)
	}

	duplex, err := c.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := duplex.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte{byte(i)}}}); err != nil {
			t.Fatal(err)
		}
		if in, err := duplex.Recv(); err != nil || in.GetPayload().GetBody()[0] != byte(i) {
			t.Fatalf("got %v, %v", in, err)
		}
	}
	if err := duplex.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := duplex.Recv(); !errors.Is(err, io.EOF) || fmt.Sprint(duplex.Trailer()["x-tail"]) != "[t]" {
		t.Fatalf("got %v with trailer %v", err, duplex.Trailer())
	}
}

// TestGRPCDeadline: a server whose clock runs out resets the stream, before or after its answer has begun.
func TestGRPCDeadline(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.Header().Set("Content-Type", "application/grpc")
			_ = http.NewResponseController(w).Flush()
		}
		if d, err := time.ParseDuration(r.Header.Get("X-Wait")); err == nil {
			<-time.After(d)
		}
		panic(http.ErrAbortHandler)
	}))
	in := start(t, inboundHTTP(t, shake(nil, "h2"), addr, proxy.Limits{}, nil))
	c := client(t, direct(in), "h2")
	for _, tt := range []struct {
		path, timeout string
		status        int
		grpc          string
		broken        bool
	}{
		{"/", "50m", 200, "4", false},
		{"/", "50000u", 200, "4", false},
		{"/begun", "50m", 200, "4", false},
		{"/", "1H", 502, "", false},
		{"/", "99999999H", 502, "", false},
		{"/", "x", 502, "", false},
		{"/", "-1S", 502, "", false},
		{"/", "", 502, "", false},
		{"/begun", "1H", 200, "", true},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+tt.path, io.NopCloser(strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc+proto")
		req.Header.Set("Grpc-Timeout", tt.timeout)
		req.Header.Set("X-Wait", "60ms")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if said := res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status"); res.StatusCode != tt.status || said != tt.grpc || (err != nil) != tt.broken {
			t.Errorf("%s with %q: got %s, %q, %v", tt.path, tt.timeout, res.Status, said, err)
		}
	}
}

// TestGRPCMost: a route's most counts for calls whose client has more time or says none, from the beginning of the call to its end, and
// for nothing else.
func TestGRPCMost(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.Header().Set("Content-Type", "application/grpc")
			_ = http.NewResponseController(w).Flush()
		}
		if r.Header.Get("Content-Type") == "application/grpc" && r.URL.Path != "/soon" {
			<-r.Context().Done()
			return
		}
		<-time.After(100 * time.Millisecond)
	}))
	most := route.RouteAction{Cluster: "a", Timeout: -1, MaxGRPCTimeout: 50 * time.Millisecond}
	long := route.RouteAction{Cluster: "a", Timeout: -1, MaxGRPCTimeout: time.Hour}
	r := routing(t, map[string]*proxy.Cluster{"a": cluster(t, upstream.Config{Name: "a"}, addr)},
		route.Route{Match: route.RouteMatch{Path: "/long"}, Route: &long}, route.Route{Match: route.RouteMatch{Path: "/soon"}, Route: &long},
		route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: &most})
	_, in := routed(t, r, new(journal))
	c := client(t, direct(in), "h2")
	for _, tt := range []struct{ kind, path, timeout, grpc string }{
		{"application/grpc", "/", "1H", "4"},
		{"application/grpc", "/", "", "4"},
		{"application/grpc", "/begun", "1H", "4"},
		{"application/grpc", "/begun", "", "4"},
		{"application/grpc", "/long", "50m", "4"},
		{"application/grpc", "/soon", "", ""},
		{"text/plain", "/", "", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+tt.path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", tt.kind)
		if tt.timeout != "" {
			req.Header.Set("Grpc-Timeout", tt.timeout)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if said := res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status"); res.StatusCode != 200 || said != tt.grpc || err != nil {
			t.Errorf("%s %s with %q: got %s, %q, %v", tt.kind, tt.path, tt.timeout, res.Status, said, err)
		}
	}
}
