package grpccreds_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/grpccreds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware is the smallest platform: its evidence is the report data itself.
type hardware struct{}

func (hardware) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	return &attest.Evidence{Format: "test", Raw: rd[:]}, nil
}

func (hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	return &attest.Claims{Vendor: "test", ReportData: attest.ReportData(ev.Raw)}, nil
}

// policy affirms at a minimum level, or refuses with a code.
type policy struct {
	min    attest.Level
	refuse attest.Code
}

func (p policy) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.refuse != "" {
		c.Status, c.Code = attest.StatusFail, p.refuse
	} else if !s.Level.AtLeast(p.min) {
		c.Status, c.Code = attest.StatusFail, attest.CodeBindingTooWeak
	}
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{c}}
}

func party(p policy) *ratls.RelyingParty {
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, hardware{}), p, time.Now)
}

var (
	session = policy{min: attest.LevelSession}
	debug   = policy{refuse: attest.CodeDebug}
)

func identity(t testing.TB, names ...string) *ratls.Identity {
	t.Helper()
	id, err := ratls.NewIdentity(t.Context(), hardware{}, names, [32]byte{7}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Close)
	return id
}

// health is a service that says how its caller was appraised.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	asked atomic.Int64
	last  atomic.Pointer[attest.Result]
}

func (h *health) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.asked.Add(1)
	p, _ := peer.FromContext(ctx)
	h.last.Store(grpccreds.Result(p.AuthInfo))
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (h *health) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc_health_v1.Health_WatchServer) error {
	for range 1000 {
		if err := s.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
	return nil
}

// serve runs a gRPC server, and answers where.
func serve(t testing.TB, creds credentials.TransportCredentials) (string, *health) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := new(health)
	s := grpc.NewServer(grpc.Creds(creds))
	grpc_health_v1.RegisterHealthServer(s, h)
	var work sync.WaitGroup
	work.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() { s.Stop(); work.Wait() })
	return ln.Addr().String(), h
}

// call asks the service at target, and answers how the server was appraised.
func call(t testing.TB, target string, creds credentials.TransportCredentials, opts ...grpc.DialOption) (*attest.Result, error) {
	t.Helper()
	cc, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var p peer.Peer
	_, err = grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&p))
	return grpccreds.Result(p.AuthInfo), err
}

func TestCredentials(t *testing.T) {
	id := identity(t, "127.0.0.1", "service.example")
	mutual := func(rp *ratls.RelyingParty) credentials.TransportCredentials {
		return grpccreds.NewMutualClient(identity(t), rp)
	}
	for name, c := range map[string]struct {
		server, client credentials.TransportCredentials
		authority      string
		want           string // in the error
		appraised      bool   // the client, by the server
	}{
		"session":              {grpccreds.NewServer(id), grpccreds.NewClient(party(session)), "", "", false},
		"mutual":               {grpccreds.NewMutualServer(id, party(session)), mutual(party(session)), "", "", true},
		"by another name":      {grpccreds.NewServer(id), grpccreds.NewClient(party(session)), "service.example", "", false},
		"a name and a port":    {grpccreds.NewServer(id), grpccreds.NewClient(party(session)), "service.example:8443", "", false},
		"a name that is not":   {grpccreds.NewServer(id), grpccreds.NewClient(party(session)), "other.example", "J403", false},
		"server refused":       {grpccreds.NewServer(id), grpccreds.NewClient(party(debug)), "", "J504", false},
		"client refused":       {grpccreds.NewMutualServer(id, party(debug)), mutual(party(session)), "", "J", false},
		"client shows nothing": {grpccreds.NewMutualServer(id, party(session)), grpccreds.NewClient(party(session)), "", "J", false},
		"certificate":          {credentials.NewTLS(ratls.ServerConfig(id)), grpccreds.NewClient(party(policy{min: attest.LevelKey})), "", "", false},
		"certificate too weak": {credentials.NewTLS(ratls.ServerConfig(id)), grpccreds.NewClient(party(session)), "", "J408", false},
		"plain server":         {insecure.NewCredentials(), grpccreds.NewClient(party(session)), "", "J102", false},
		"a server's":           {grpccreds.NewServer(id), grpccreds.NewServer(id), "", "credentials of a server", false},
		"a client's":           {grpccreds.NewClient(party(session)), grpccreds.NewClient(party(session)), "", "handshake failed", false},
	} {
		t.Run(name, func(t *testing.T) {
			addr, h := serve(t, c.server)
			var opts []grpc.DialOption
			if c.authority != "" {
				opts = append(opts, grpc.WithAuthority(c.authority))
			}
			found, err := call(t, addr, c.client, opts...)
			if c.want != "" {
				if err == nil || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				if h.asked.Load() != 0 {
					t.Error("a call reached the service")
				}
				return
			}
			if err != nil || !found.Affirmed() {
				t.Fatalf("%v, %v", err, found.Err())
			}
			if last := h.last.Load(); last.Affirmed() != c.appraised || (last != nil) != c.appraised {
				t.Errorf("the service knows %v of its caller", last)
			}
		})
	}
}

// An impostor with a certificate of an authority, or with evidence that is for another's key, gets no byte of gRPC.
func TestImpostor(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	relayed := *template // a leaf with the evidence of another leaf
	for _, e := range identity(t, "127.0.0.1").Leaf().Certificate.Extensions {
		if !strings.HasPrefix(e.Id.String(), "2.5.29.") {
			relayed.ExtraExtensions = append(relayed.ExtraExtensions, e)
		}
	}
	if len(relayed.ExtraExtensions) == 0 {
		t.Fatal("there is no evidence to relay")
	}
	relayedDER, err := x509.CreateCertificate(rand.Reader, &relayed, &relayed, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der  []byte
		want string
	}{
		"a certificate":               {der, "J105"},
		"a certificate, and evidence": {relayedDER, "J401"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{c.der}, PrivateKey: key}}, NextProtos: []string{"h2"}})
			if err != nil {
				t.Fatal(err)
			}
			var taken atomic.Int64
			var work sync.WaitGroup
			work.Go(func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					work.Go(func() {
						defer conn.Close()
						n, _ := io.Copy(io.Discard, conn)
						taken.Add(n)
					})
				}
			})
			t.Cleanup(func() { _ = ln.Close(); work.Wait() })
			found, err := call(t, ln.Addr().String(), grpccreds.NewClient(party(policy{min: attest.LevelKey})))
			if err == nil || !strings.Contains(err.Error(), c.want) || found.Affirmed() {
				t.Errorf("got %v", err)
			}
			if n := taken.Load(); n != 0 {
				t.Errorf("%d bytes for the impostor", n)
			}
		})
	}
}

// A long stream carries on across a new leaf, and its peer can be asked about at any time.
func TestStream(t *testing.T) {
	id := identity(t, "127.0.0.1")
	addr, _ := serve(t, grpccreds.NewMutualServer(id, party(session)))
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(grpccreds.NewMutualClient(identity(t), party(session))))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	stream, err := grpc_health_v1.NewHealthClient(cc).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		if n == 10 {
			if err := id.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	p, _ := peer.FromContext(stream.Context())
	if n != 1000 || !grpccreds.Result(p.AuthInfo).Affirmed() || p.AuthInfo.AuthType() != "attested" {
		t.Errorf("%d messages, from %v", n, p)
	}
}

func TestNobody(t *testing.T) {
	if grpccreds.Result(nil).Affirmed() || grpccreds.Result(grpccreds.AuthInfo{}).Affirmed() || grpccreds.Result(credentials.TLSInfo{}).Affirmed() {
		t.Error("nobody is affirmed")
	}
	c := grpccreds.NewClient(party(session))
	if err := c.(interface{ OverrideServerName(string) error }).OverrideServerName("other.example"); err == nil {
		t.Error("another name was taken")
	}
	if c.Clone() != c || c.Info().SecurityProtocol != "attested" {
		t.Error("not itself")
	}
}

func Example() {
	var rp *ratls.RelyingParty // ratls.NewRelyingParty(appraiser, policy, time.Now)
	cc, err := grpc.NewClient("ledger.example:8443", grpc.WithTransportCredentials(grpccreds.NewClient(rp)))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
}
