package attested

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// ClientOptions bound what a server can make a client hold. Zero values are the defaults.
type ClientOptions struct {
	Message int // bytes of one message that is received, default 64 MiB
}

// ClientStream is a stream that this end opened, on a connection of its own.
type ClientStream struct {
	stream
	conn   *grpc.ClientConn
	client grpc.ClientStream
	cancel context.CancelFunc
}

// Open connects and opens a stream of a method such as "/package.Service/Method". Nothing was sent before the peer was affirmed.
// The stream lives until ctx is done, or until Close. It is not connected again: when that is to be tried is for the caller to
// say.
func Open(ctx context.Context, dial Dial, method string, opts ClientOptions) (*ClientStream, error) {
	if err := methodOf(method); err != nil {
		return nil, err
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	p, err := newPeer(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	p.conn = conn
	if opts.Message <= 0 {
		opts.Message = 64 << 20
	}
	once := make(chan net.Conn, 1)
	once <- conn
	cc, err := grpc.NewClient("passthrough:///attested",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, net.ErrClosed // one connection, one appraisal
			}
		}),
		grpc.WithTransportCredentials(&clientCredentials{p}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(opts.Message)),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(), grpc.WithIdleTimeout(0),
	)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	living, cancel := context.WithCancel(ctx)
	client, err := cc.NewStream(living, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		cancel()
		_ = cc.Close()
		_ = conn.Close()
		return nil, ended(err)
	}
	return &ClientStream{stream: stream{wire: client, peer: p}, conn: cc, client: client, cancel: cancel}, nil
}

// CloseSend says that nothing more will be sent.
func (s *ClientStream) CloseSend() error { return s.client.CloseSend() }

// Close ends the stream and its connection.
func (s *ClientStream) Close() error {
	s.cancel()
	err := s.conn.Close()
	s.peer.Cut()
	return err
}

// clientCredentials hand over the connection whose peer was appraised.
type clientCredentials struct{ p *Peer }

func (c *clientCredentials) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, newAuthInfo(c.p), nil
}

func (*clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are a client's credentials")
}

func (*clientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "attested"}
}
func (c *clientCredentials) Clone() credentials.TransportCredentials { return c }
func (*clientCredentials) OverrideServerName(string) error           { return nil }
