package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// pair is two sidecars that attest to one another: an unmodified client connects to front, in plain, and reaches the
// unmodified server behind.
func (l *lab) pair(backend string, serve ...string) (front string, server *process) {
	l.Helper()
	policy := l.symmetricPolicy()
	server = l.start(append([]string{"serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", backend, "--require", policy}, serve...)...)
	client := l.start("forward", "--log", "json", "--tee", l.tee(), "-p", policy, "--listen", "127.0.0.1:0", server.address())
	return client.address(), server
}

// symmetricPolicy accepts the lab's platform, on either side.
func (l *lab) symmetricPolicy() string {
	l.Helper()
	probe := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1")
	policy := l.policyFor(probe.address())
	probe.stop()
	return policy
}

// echo answers what it is sent, with the trailers.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws" {
		echoWebSocket(w, r)
		return
	}
	w.Header().Set("Trailer", "Digest-Seen")
	w.Header().Set("Proto-Seen", r.Proto)
	w.Header().Set("Result-Seen", r.Header.Get("Jurat-Result"))
	w.Header().Set("Xfcc-Seen", r.Header.Get("X-Forwarded-Client-Cert"))
	h := sha256.New()
	_, _ = io.Copy(io.MultiWriter(w, h), r.Body)
	w.Header().Set("Digest-Seen", string(hexOf(h.Sum(nil))))
}

func hexOf(b []byte) []byte {
	const digits = "0123456789abcdef"
	var out []byte
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return out
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 24)
	for {
		kind, msg, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}

func random(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSidecarsHTTP(t *testing.T) {
	l := newLab(t)
	front, server := l.pair(l.page(http.HandlerFunc(echo)))
	body := random(t, 8<<20)
	digest := sha256.Sum256(body)
	for name, set := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2.0": func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			set(transport.Protocols)
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+front+"/echo", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Jurat-Result", `verdict=affirmed, tee="forged"`)
			req.Header.Set("X-Forwarded-Client-Cert", "Hash=forged")
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes came back of %d, %v", len(got), len(body), err)
			}
			if resp.Proto != name {
				t.Errorf("got %s, want %s", resp.Proto, name)
			}
			if seen := resp.Trailer.Get("Digest-Seen"); seen != string(hexOf(digest[:])) {
				t.Errorf("trailer: got %q", seen)
			}
			result := resp.Header.Get("Result-Seen")
			if !strings.Contains(result, "verdict=affirmed") || !strings.Contains(result, `vendor="sim"`) || strings.Contains(result, "forged") {
				t.Errorf("the service was told %q", result)
			}
			if xfcc := resp.Header.Get("Xfcc-Seen"); !strings.Contains(xfcc, "Hash=") || strings.Contains(xfcc, "forged") {
				t.Errorf("the service was told %q", xfcc)
			}
		})
	}
	if totals := server.stop(); totals.number("bytes_in") < int64(2*len(body)) {
		t.Errorf("the counter saw %v bytes of %d", totals["bytes_in"], 2*len(body))
	}
}

func TestSidecarsWebSocket(t *testing.T) {
	l := newLab(t)
	front, _ := l.pair(l.page(http.HandlerFunc(echo)))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+front+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 24)
	for _, n := range []int{0, 1, 125, 126, 70_000, 1 << 20} {
		msg := random(t, n)
		if err := conn.Write(ctx, websocket.MessageBinary, msg); err != nil {
			t.Fatal(err)
		}
		_, got, err := conn.Read(ctx)
		if err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Fatal(err)
	}
}

func TestSidecarsTCP(t *testing.T) {
	l := newLab(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				// The answer begins only when the request has ended: half-closing has to pass.
				defer conn.Close()
				all, _ := io.ReadAll(conn)
				_, _ = conn.Write(all)
			}()
		}
	}()
	front, _ := l.pair(ln.Addr().String(), "--tcp")
	conn, err := net.Dial("tcp", front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	sent := random(t, 32<<20)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back of %d, %v", len(got), len(sent), err)
	}
}

// raw carries bytes as they are: the gRPC machinery is real, and no generated code is needed.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func (raw) Name() string { return "raw" }

// grpcEcho serves /test.Echo/Stream: every message comes back; "fail" ends the call with a status; "wait" waits for the
// caller to give up.
func grpcEcho(l *lab, cancelled *atomic.Bool) string {
	l.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		in, _ := metadata.FromIncomingContext(stream.Context())
		stream.SetTrailer(metadata.Pairs("result-seen", strings.Join(in.Get("jurat-result"), "|"), "key-seen", strings.Join(in.Get("key"), "|")))
		for {
			var msg []byte
			if err := stream.RecvMsg(&msg); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			switch string(msg) {
			case "fail":
				return status.Error(codes.FailedPrecondition, "as asked: ünicode, 100%")
			case "wait":
				<-stream.Context().Done()
				cancelled.Store(true)
				return stream.Context().Err()
			}
			if err := stream.SendMsg(&msg); err != nil {
				return err
			}
		}
	}))
	go func() { _ = s.Serve(ln) }()
	l.Cleanup(s.Stop)
	return ln.Addr().String()
}

func TestSidecarsGRPC(t *testing.T) {
	l := newLab(t)
	var cancelled atomic.Bool
	front, _ := l.pair(grpcEcho(l, &cancelled))
	conn, err := grpc.NewClient("passthrough:"+front, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	desc := &grpc.StreamDesc{StreamName: "Stream", ClientStreams: true, ServerStreams: true}
	open := func(ctx context.Context) grpc.ClientStream {
		t.Helper()
		stream, err := conn.NewStream(metadata.AppendToOutgoingContext(ctx, "key", "value", "jurat-result", "forged"), desc, "/test.Echo/Stream")
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	say := func(stream grpc.ClientStream, msg []byte) []byte {
		t.Helper()
		if err := stream.SendMsg(&msg); err != nil {
			t.Fatal(err)
		}
		var got []byte
		if err := stream.RecvMsg(&got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// Both ways in turn: an answer arrives while the request is still open.
	stream := open(ctx)
	for _, n := range []int{0, 1, 100, 1 << 20} {
		msg := random(t, n)
		if got := say(stream, msg); !bytes.Equal(got, msg) {
			t.Fatalf("%d bytes: got %d", n, len(got))
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var rest []byte
	if err := stream.RecvMsg(&rest); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
	seen := strings.Join(stream.Trailer().Get("result-seen"), "|")
	if !strings.Contains(seen, "verdict=affirmed") || strings.Contains(seen, "forged") || strings.Join(stream.Trailer().Get("key-seen"), "") != "value" {
		t.Errorf("trailers: %v", stream.Trailer())
	}

	stream = open(ctx)
	fail := []byte("fail")
	if err := stream.SendMsg(&fail); err != nil {
		t.Fatal(err)
	}
	err = stream.RecvMsg(&rest)
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "as asked: ünicode, 100%" {
		t.Errorf("status: %v", err)
	}

	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	stream = open(short)
	wait := []byte("wait")
	if err := stream.SendMsg(&wait); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&rest); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	for deadline := time.Now().Add(patience); !cancelled.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server never learnt that the caller gave up")
		}
	}
}

// A peer without evidence is refused on both sides, and no byte of the request or of the service passes.
func TestSidecarsRefuse(t *testing.T) {
	need(t, "curl", "openssl")
	l := newLab(t)
	var requests atomic.Int32
	backend := l.page(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	_, server := l.pair(backend)
	policy := l.path("policy.yaml")
	addr := server.addr

	t.Run("client without evidence", func(t *testing.T) {
		bare := l.start("forward", "--log", "json", "-p", policy, "--listen", "127.0.0.1:0", addr)
		o := l.run("curl", "-sS", "-i", "--max-time", "20", "http://"+bare.address()+"/")
		if strings.Contains(o.stdout, "200 OK") {
			t.Errorf("served: %s", o.stdout)
		}
		if e := server.wait("handshake refused"); e.text("code") != "J105" {
			t.Errorf("the server says %v", e)
		}
		if !strings.Contains(o.stdout, "502 ") || !strings.Contains(strings.ToLower(o.stdout), "jurat-error: j103") {
			t.Errorf("got %s%s", o.stdout, o.stderr)
		}
		if e := bare.wait("handshake refused"); e.text("code") != "J103" {
			t.Errorf("the client's side says %v", e)
		}
		o = l.run("curl", "-sS", "-k", "--max-time", "20", "https://"+addr+"/")
		if o.code == 0 {
			t.Errorf("curl without a certificate was served: %s", o.stdout)
		}
		if e := server.wait("handshake refused"); e.text("code") != "J105" {
			t.Errorf("the server says %v", e)
		}
	})
	t.Run("server without evidence", func(t *testing.T) {
		bad := newImpostor(l, "no evidence", "J105", newAuthority(l).cert, l.dir)
		front := l.start("forward", "--log", "json", "-p", policy, "--tee", l.tee(), "--listen", "127.0.0.1:0", bad.addrs[web])
		o := l.run("curl", "-sS", "-i", "--max-time", "20", "http://"+front.address()+"/")
		if !strings.Contains(o.stdout, "502 ") || !strings.Contains(strings.ToLower(o.stdout), "jurat-error: j105") {
			t.Errorf("got %s%s", o.stdout, o.stderr)
		}
		if n := bad.taken(); n != 0 {
			t.Errorf("%d bytes reached a server without evidence", n)
		}
	})
	t.Run("client with the debug bit", func(t *testing.T) {
		front := l.start("forward", "--log", "json", "-p", policy, "--tee", l.tee("debug=on"), "--listen", "127.0.0.1:0", addr)
		o := l.run("curl", "-sS", "-i", "--max-time", "20", "http://"+front.address()+"/")
		if strings.Contains(o.stdout, "200 OK") {
			t.Errorf("served: %s", o.stdout)
		}
		if e := server.wait("handshake refused"); e.text("code") != "J504" {
			t.Errorf("the server says %v", e)
		}
	})
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests reached the service", n)
	}
	if totals := server.stop(); totals.number("bytes_in") != 0 {
		t.Errorf("the server read %v application bytes", totals["bytes_in"])
	}
}
