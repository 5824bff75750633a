package attested

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/jurat-tls/jurat/attest"
)

// Handler serves one stream. The stream ends when it returns: well for nil, or with the *Status that it answers; of any other
// error the peer learns no more than that there was one.
type Handler func(Stream) error

// Options bound what strangers can make a Server hold. Zero values are the defaults.
type Options struct {
	Handshakes  int           // under way at once, default 64
	Queue       int           // connections that wait for their handshake, default 8192; one more is closed at once
	Wait        time.Duration // how long they wait, default 20 s, as clients of gRPC do: for who has given up a handshake would be in vain
	Handshake   time.Duration // for one handshake, default 10 s
	Connections int           // open at once, default 16384
	Streams     int           // open at once on one connection, default 16
	Message     int           // bytes of one message that is received, default 4 MiB
	Stall       time.Duration // until a peer that does not take what is sent is cut, default 30 s

	// OnHandshake is told how each handshake ended, from the goroutine of the connection; may be nil.
	OnHandshake func(remote net.Addr, conn Conn, err error)
}

func (o Options) withDefaults() Options {
	for _, n := range []struct {
		v *int
		d int
	}{{&o.Handshakes, 64}, {&o.Queue, 8192}, {&o.Connections, 16384}, {&o.Streams, 16}, {&o.Message, 4 << 20}} {
		if *n.v <= 0 {
			*n.v = n.d
		}
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&o.Wait, 20 * time.Second}, {&o.Handshake, 10 * time.Second}, {&o.Stall, 30 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	return o
}

// Stats count what became of connections.
type Stats struct {
	Open    int    `json:"open"`    // connections now
	Waiting int    `json:"waiting"` // for their handshake, now
	Shed    uint64 `json:"shed"`    // closed before their handshake, because too many were there or it came too late
	Refused uint64 `json:"refused"` // handshakes that failed, with all whose peer was not affirmed
	Served  uint64 `json:"served"`  // handshakes that ended well
}

// Server is a gRPC server for affirmed peers.
type Server struct {
	handshake Handshake
	handlers  map[string]Handler
	opts      Options
	slots     chan struct{}
	living    context.Context // until Stop: handshakes that strangers draw out end with it
	stop      context.CancelFunc

	open, waiting         atomic.Int64
	shed, refused, served atomic.Uint64

	mu      sync.Mutex
	servers []*grpc.Server
	stopped bool
}

// NewServer makes a server of methods such as "/package.Service/Method".
func NewServer(handshake Handshake, handlers map[string]Handler, opts Options) *Server {
	s := &Server{handshake: handshake, handlers: handlers, opts: opts.withDefaults()}
	s.slots = make(chan struct{}, s.opts.Handshakes)
	s.living, s.stop = context.WithCancel(context.Background())
	return s
}

// Stats answers what was counted so far.
func (s *Server) Stats() Stats {
	return Stats{
		Open: int(s.open.Load()), Waiting: int(s.waiting.Load()), Shed: s.shed.Load(), Refused: s.refused.Load(), Served: s.served.Load(),
	}
}

// Serve serves the connections of ln, until Stop, which closes it. The error is nil after Stop.
func (s *Server) Serve(ln net.Listener) error { return s.serve(ln, &serverCredentials{s}) }

// ServeLocal serves connections that need no appraisal, such as those of a unix socket that only this machine's owner can open.
// name is what their peers are known by: Peer.Local.
func (s *Server) ServeLocal(ln net.Listener, name string) error {
	if name == "" {
		_ = ln.Close()
		return &attest.Error{Code: attest.CodeConfigMissing, Check: "xds.local", Subject: ln.Addr().String(), Want: "a name for those who connect there"}
	}
	return s.serve(ln, &localCredentials{s, name})
}

// LocalHTTP serves requests that an HTTP/2 server passes on, as ServeLocal does: who may come, and for how long, is for that server to decide.
func (s *Server) LocalHTTP(name string) http.Handler {
	p := &Peer{local: name}
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(func(_ any, gs grpc.ServerStream) error { return s.serveStream(gs, p) }),
		grpc.MaxRecvMsgSize(s.opts.Message),
		grpc.MaxHeaderListSize(16<<10),
	)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		g.Stop()
	}
	s.servers = append(s.servers, g)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.ServeHTTP(&patient{w, http.NewResponseController(w), s.opts.Stall}, r)
	})
}

// patient is an answer that is cut off where nobody takes a part of it in time: gRPC takes the next message before the last one is on
// its way, so that whoever sends does not see it.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration
}

// within does what may have to wait for the client.
func (p *patient) within(write func() error) error {
	if err := p.control.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return p.control.SetWriteDeadline(time.Time{})
}

func (p *patient) Write(b []byte) (n int, err error) {
	err = p.within(func() error {
		n, err = p.ResponseWriter.Write(b)
		return err
	})
	return n, err
}

// Flush implements http.Flusher, without which gRPC takes no answer.
func (p *patient) Flush() { _ = p.within(p.control.Flush) }

func (s *Server) serve(ln net.Listener, creds credentials.TransportCredentials) error {
	g := grpc.NewServer(
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(s.handle),
		grpc.MaxRecvMsgSize(s.opts.Message),
		grpc.MaxConcurrentStreams(uint32(s.opts.Streams)),
		grpc.MaxHeaderListSize(16<<10),
		grpc.ConnectionTimeout(s.opts.Wait+s.opts.Handshake),
		// Thousands of connections do little most of the time: their buffers are small, and those to write shared.
		grpc.ReadBufferSize(4<<10),
		grpc.WriteBufferSize(16<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 15 * time.Second, MaxConnectionIdle: 5 * time.Minute}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	s.mu.Lock()
	stopped := s.stopped
	if !stopped {
		s.servers = append(s.servers, g)
	}
	s.mu.Unlock()
	if stopped {
		return ln.Close()
	}
	if err := g.Serve(&admission{ln, s}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Stop closes all listeners and connections, and waits for the handlers.
func (s *Server) Stop() {
	s.stop()
	s.mu.Lock()
	s.stopped = true
	servers := s.servers
	s.mu.Unlock()
	for _, g := range servers {
		g.Stop()
	}
}

// handle serves a stream of a peer that is affirmed, or local.
func (s *Server) handle(_ any, gs grpc.ServerStream) error {
	from, _ := peer.FromContext(gs.Context())
	if from == nil {
		return status.Error(codes.PermissionDenied, "nobody was appraised")
	}
	info, ok := from.AuthInfo.(authInfo)
	// The peer may have attested anew since the handshake, and failed.
	if !ok || info.peer.Local() == "" && !info.peer.Affirmed() {
		return status.Error(codes.PermissionDenied, "the peer is not affirmed")
	}
	return s.serveStream(gs, info.peer)
}

// serveStream finds the handler of a stream.
func (s *Server) serveStream(gs grpc.ServerStream, p *Peer) (err error) {
	defer func() {
		if p := recover(); p != nil { // the other streams have done nothing
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	method, _ := grpc.MethodFromServerStream(gs)
	h := s.handlers[method]
	if h == nil {
		return status.Errorf(codes.Unimplemented, "%.100q is not served here", method)
	}
	return grpcError(h(&stream{wire: gs, peer: p, stall: s.opts.Stall}))
}

// admission closes connections that there is no room for, before they cost anything.
type admission struct {
	net.Listener
	s *Server
}

func (a *admission) Accept() (net.Conn, error) {
	for {
		raw, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := a.s
		if s.open.Load() >= int64(s.opts.Connections) || s.waiting.Load() >= int64(s.opts.Queue+s.opts.Handshakes) {
			s.shed.Add(1)
			_ = raw.Close()
			continue
		}
		s.open.Add(1)
		s.waiting.Add(1)
		return &counted{Conn: raw, s: s}, nil
	}
}

// counted is a connection that counts as long as it is open.
type counted struct {
	net.Conn
	s    *Server
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.s.open.Add(-1) })
	return c.Conn.Close()
}

// authInfo is what gRPC keeps of a handshake.
type authInfo struct {
	credentials.CommonAuthInfo
	peer *Peer
}

func (authInfo) AuthType() string { return "attested" }

func newAuthInfo(p *Peer) authInfo {
	return authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, p}
}

// serverCredentials make the handshakes of a Server.
type serverCredentials struct{ s *Server }

func (c *serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, err := c.s.shake(raw)
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	p, err := newPeer(conn)
	if c.s.opts.OnHandshake != nil {
		c.s.opts.OnHandshake(raw.RemoteAddr(), conn, err)
	}
	if err != nil {
		c.s.refused.Add(1)
		_ = conn.Close()
		_ = raw.Close()
		return nil, nil, err
	}
	c.s.served.Add(1)
	p.conn = both{conn, raw}
	return p.conn, newAuthInfo(p), nil
}

// shake waits for its turn and makes the handshake.
func (s *Server) shake(raw net.Conn) (conn Conn, err error) {
	waiting := time.NewTimer(s.opts.Wait)
	defer waiting.Stop()
	select {
	case s.slots <- struct{}{}:
		s.waiting.Add(-1)
	case <-waiting.C:
		s.waiting.Add(-1)
		s.shed.Add(1)
		return nil, errors.New("too many connections wait for their handshake")
	case <-s.living.Done():
		s.waiting.Add(-1)
		return nil, net.ErrClosed
	}
	defer func() { <-s.slots }()
	defer func() {
		if p := recover(); p != nil {
			conn, err = nil, fmt.Errorf("panic in a handshake: %v", p)
		}
		if err != nil {
			s.refused.Add(1)
			if s.opts.OnHandshake != nil {
				s.opts.OnHandshake(raw.RemoteAddr(), nil, err)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(s.living, s.opts.Handshake)
	defer cancel()
	conn, err = s.handshake(ctx, raw)
	if err == nil && conn == nil {
		err = errors.New("a handshake without a connection")
	}
	return conn, err
}

// both closes the transport as well, whatever the connection above it does.
type both struct {
	Conn
	raw net.Conn
}

func (b both) Close() error { return errors.Join(b.Conn.Close(), ignoreClosed(b.raw.Close())) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are a server's credentials")
}

func (*serverCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "attested"}
}
func (c *serverCredentials) Clone() credentials.TransportCredentials { return c }
func (*serverCredentials) OverrideServerName(string) error           { return nil }

// localCredentials take connections as they are, under a name.
type localCredentials struct {
	s    *Server
	name string
}

func (c *localCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c.s.waiting.Add(-1)
	c.s.served.Add(1)
	return raw, newAuthInfo(&Peer{conn: raw, local: c.name}), nil
}

func (c *localCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are a server's credentials")
}

func (*localCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}
func (c *localCredentials) Clone() credentials.TransportCredentials { return c }
func (*localCredentials) OverrideServerName(string) error           { return nil }

// methodOf checks what a client is to call.
func methodOf(method string) error {
	if !strings.HasPrefix(method, "/") || strings.Count(method, "/") != 2 {
		return fmt.Errorf("%.100q is no /package.Service/Method", method)
	}
	return nil
}
