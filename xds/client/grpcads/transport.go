package grpcads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Config is what may be different of a Transport. Zero stands for the defaults.
type Config struct {
	// Only is a type whose own discovery service is used instead of the aggregated one, such as resource.Secret for a server
	// of secrets. Listener, Route, Cluster, Endpoints and Secret have one.
	Only string
	// MaxMessage is how many bytes a response may have: 64 MiB. MaxItems is how many resources, and how many names of removed
	// ones: 200,000.
	MaxMessage, MaxItems int
	// KeepAlive is the silence after which the server is asked whether it is there, and KeepAliveTimeout how long the answer may
	// take: 5 minutes, which is what servers of gRPC allow unless they are told otherwise, and 20 s.
	KeepAlive, KeepAliveTimeout time.Duration
	// Connect is how long the dialer may take: 1 minute.
	Connect time.Duration
	// Authority is what the server is asked for (:authority); by default the address, if it is a host and a port.
	Authority string
	// Header gives what is sent with a stream, such as an authorization; it is asked for every stream.
	Header func(context.Context) (map[string]string, error)
}

// Transport opens streams to one control plane. It keeps the connection while that is in order.
type Transport struct {
	config  Config
	address string
	dial    func(ctx context.Context, address string) (net.Conn, error)
	methods map[protocol.Kind]string

	mu      sync.Mutex
	conn    *grpc.ClientConn
	dialErr error // of the last attempt
	closed  bool
}

// New makes a transport to address over connections of dial, which has to return them encrypted and with an appraised peer:
// nothing else protects what is said. See the package.
func New(address string, dial func(ctx context.Context, address string) (net.Conn, error), config Config) (*Transport, error) {
	if address == "" || dial == nil {
		return nil, errors.New("a transport needs an address and a dialer")
	}
	name, ok := map[string][3]string{
		"":                 {"discovery.v3.Aggregated", "AggregatedResources", "AggregatedResources"},
		resource.Listener:  {"listener.v3.Listener", "Listeners", "Listeners"},
		resource.Route:     {"route.v3.Route", "Routes", "Routes"},
		resource.Cluster:   {"cluster.v3.Cluster", "Clusters", "Clusters"},
		resource.Endpoints: {"endpoint.v3.Endpoint", "Endpoints", "Endpoints"},
		resource.Secret:    {"secret.v3.Secret", "Secrets", "Secrets"},
	}[config.Only]
	if !ok {
		return nil, fmt.Errorf("there is no discovery service for %q alone", config.Only)
	}
	service := "/envoy.service." + name[0] + "DiscoveryService/"
	def := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	def(&config.KeepAlive, 5*time.Minute)
	def(&config.KeepAliveTimeout, 20*time.Second)
	def(&config.Connect, time.Minute)
	if config.MaxMessage <= 0 {
		config.MaxMessage = 64 << 20
	}
	if config.MaxItems <= 0 {
		config.MaxItems = 200_000
	}
	if config.Authority == "" {
		config.Authority = "localhost"
		if host, port, err := net.SplitHostPort(address); err == nil && host != "" && port != "" {
			config.Authority = address
		}
	}
	return &Transport{
		config: config, address: address, dial: dial,
		methods: map[protocol.Kind]string{protocol.StateOfTheWorld: service + "Stream" + name[1], protocol.Delta: service + "Delta" + name[2]},
	}, nil
}

// Close closes the connection. Streams that are open end.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.drop()
}

// Drop closes the connection that there is. Its streams end, and the next one is opened over another connection.
func (t *Transport) Drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.drop()
}

func (t *Transport) drop() error {
	conn := t.conn
	if t.conn = nil; conn == nil {
		return nil
	}
	return conn.Close()
}

// connection gives the one that is in order, or a new one. gRPC's own attempts to connect again are no use here: whoever opens
// streams knows when to.
func (t *Transport) connection() (*grpc.ClientConn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	if t.conn != nil && t.conn.GetState() == connectivity.Ready {
		return t.conn, nil
	}
	_ = t.drop()
	t.dialErr = nil
	conn, err := grpc.NewClient("passthrough:///control-plane",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the connection is protected already: see the package
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := t.dial(ctx, t.address)
			if err != nil {
				t.mu.Lock()
				t.dialErr = err
				t.mu.Unlock()
			}
			return c, err
		}),
		grpc.WithAuthority(t.config.Authority),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(64<<10),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Hour, Multiplier: 1, MaxDelay: time.Hour}, MinConnectTimeout: t.config.Connect}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: t.config.KeepAlive, Timeout: t.config.KeepAliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(t.config.MaxMessage), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	)
	t.conn = conn
	return conn, err
}

// Open opens a stream. It implements client.Transport.
func (t *Transport) Open(ctx context.Context, kind client.Kind) (client.Stream, error) {
	method, ok := t.methods[kind]
	if !ok {
		return nil, errors.New("neither state of the world nor delta")
	}
	if t.config.Header != nil {
		header, err := t.config.Header(ctx)
		if err != nil {
			return nil, err
		}
		ctx = metadata.NewOutgoingContext(ctx, metadata.New(header))
	}
	conn, err := t.connection()
	if err != nil {
		return nil, err
	}
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := conn.NewStream(ctx, desc, method, grpc.ForceCodecV2(codec{kind, t.config.MaxItems}))
	if err != nil {
		t.mu.Lock()
		cause := t.dialErr
		if t.conn == conn {
			_ = t.drop() // the next attempt is to be made when it is asked for, and not when gRPC thinks
		}
		t.mu.Unlock()
		if cause == nil {
			cause = readable(err)
		}
		return nil, &attest.Error{Code: attest.CodeUnreachable, Subject: t.address, Err: cause}
	}
	return &stream{s, t.address}, nil
}

type stream struct {
	grpc    grpc.ClientStream
	address string
}

func (s *stream) Send(r *client.Request) error {
	err := s.grpc.SendMsg(r)
	if err == nil || err == io.EOF {
		return err
	}
	return s.ended(err)
}

func (s *stream) Recv() (*client.Response, error) {
	r := new(client.Response)
	if err := s.grpc.RecvMsg(r); err != nil {
		return nil, s.ended(err)
	}
	return r, nil
}

func (s *stream) ended(err error) error {
	return &attest.Error{Code: attest.CodeUnreachable, Subject: s.address, Err: readable(err)}
}

// readable makes what a server says fit for a log.
func readable(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := st.Message()
	if len(text) > 500 {
		text = text[:500] + "..."
	}
	return fmt.Errorf("%s: %s", st.Code(), strconv.Quote(text))
}

// codec carries requests and responses of one kind of the protocol.
type codec struct {
	kind protocol.Kind
	most int
}

func (codec) Name() string { return "proto" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*protocol.Request)
	if !ok {
		return nil, fmt.Errorf("a %T is not a request", v)
	}
	b, err := marshal(c.kind, r)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	into, ok := v.(*protocol.Response)
	if !ok {
		return fmt.Errorf("a %T is not a response", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	r, err := unmarshal(c.kind, b.ReadOnlyData(), c.most)
	if err != nil {
		return err
	}
	*into = *r
	return nil
}
