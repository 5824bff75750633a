package ratls_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware is the smallest platform: its evidence is the report data itself. What ratls does with evidence does not
// depend on who made it; the real formats have their own tests.
type hardware struct {
	mu   sync.Mutex
	fail error
	pad  int
	made int
}

func (h *hardware) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return nil, h.fail
	}
	h.made++
	return &attest.Evidence{Format: "test", Raw: append(rd[:], make([]byte, h.pad)...)}, nil
}

func (h *hardware) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

func (h *hardware) quotes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.made
}

type verifier struct{}

func (verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if ev.Format != "test" {
		return nil, attest.ErrNotMine
	}
	if len(ev.Raw) < 64 {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: "evidence"}
	}
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

func relyingParty(p attest.Policy, now func() time.Time) *ratls.RelyingParty {
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, verifier{}), p, now)
}

func accepting() *ratls.RelyingParty { return relyingParty(policy{min: attest.LevelKey}, time.Now) }

func refusing() *ratls.RelyingParty { return relyingParty(policy{refuse: attest.CodeDebug}, time.Now) }

func identity(t testing.TB, names ...string) *ratls.Identity {
	t.Helper()
	id, err := ratls.NewIdentity(t.Context(), &hardware{}, names, [32]byte{7}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func code(t testing.TB, err error, want attest.Code) {
	t.Helper()
	if got := attest.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

// listener accepts connections on loopback and hands each to serve, until the test ends.
func listener(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}
