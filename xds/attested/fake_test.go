package attested_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/attested"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware is the smallest platform: its evidence is the report data itself.
type hardware struct{}

func (hardware) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	return &attest.Evidence{Format: "test", Raw: rd[:]}, nil
}

type verifier struct{}

func (verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	return &attest.Claims{Vendor: "test", ReportData: attest.ReportData(ev.Raw)}, nil
}

// policy affirms, or refuses with a code.
type policy struct{ refuse attest.Code }

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.refuse != "" {
		c.Status, c.Code = attest.StatusFail, p.refuse
	}
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{c}}
}

func party(p attest.Policy) *ratls.RelyingParty {
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, verifier{}), p, time.Now)
}

func identity(t testing.TB, names ...string) *ratls.Identity {
	t.Helper()
	id, err := ratls.NewIdentity(t.Context(), hardware{}, names, [32]byte{7}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Close)
	return id
}

func accept(a *ratls.Acceptor) attested.Handshake {
	return func(ctx context.Context, raw net.Conn) (attested.Conn, error) {
		conn, err := a.Handshake(ctx, raw)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

func dialer(c *ratls.Connector, addr string) attested.Dial {
	return func(ctx context.Context) (attested.Conn, error) {
		conn, err := c.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

// start serves on loopback until the test ends.
func start(t testing.TB, s *attested.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.Serve(ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.Stop()
		work.Wait()
	})
	return ln.Addr().String()
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
