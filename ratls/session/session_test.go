package session_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/tlspair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware signs report data, as a TEE does.
type hardware struct{ key *ecdsa.PrivateKey }

func newHardware(t testing.TB) *hardware { return &hardware{tlspair.Key(t)} }

func (h *hardware) Attest(_ context.Context, data attest.ReportData) (*attest.Evidence, error) {
	sum := sha256.Sum256(data[:])
	sig, err := ecdsa.SignASN1(rand.Reader, h.key, sum[:])
	if err != nil {
		return nil, err
	}
	raw, err := asn1.Marshal(struct{ Data, Sig []byte }{data[:], sig})
	return &attest.Evidence{Format: "test", Raw: raw}, err
}

func (h *hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	var q struct{ Data, Sig []byte }
	if _, err := asn1.Unmarshal(ev.Raw, &q); err != nil || len(q.Data) != 64 {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: "evidence"}
	}
	sum := sha256.Sum256(q.Data)
	if !ecdsa.VerifyASN1(&h.key.PublicKey, sum[:], q.Sig) {
		return nil, &attest.Error{Code: attest.CodeSignature, Check: "authenticity.signature"}
	}
	return &attest.Claims{TEE: "test", ReportData: attest.ReportData(q.Data)}, nil
}

// prover is a TEE with a leaf.
type prover struct {
	hw     attest.Attester
	own    atomic.Pointer[session.Own]
	config [32]byte
	quotes atomic.Int64
	tls    tls.Certificate
}

func newProver(t testing.TB, hw attest.Attester) *prover {
	p := &prover{hw: hw, config: [32]byte{7}}
	p.rotate(t)
	return p
}

func (p *prover) rotate(t testing.TB) {
	p.tls = tlspair.Leaf(t, tlspair.Key(t))
	leaf, err := x509.ParseCertificate(p.tls.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	p.own.Store(&session.Own{Chain: p.tls.Certificate, Key: p.tls.PrivateKey.(crypto.Signer), SPKI: sha256.Sum256(leaf.RawSubjectPublicKeyInfo), DER: leaf.RawSubjectPublicKeyInfo})
}

func (p *prover) Leaf() (*session.Own, error) { return p.own.Load(), nil }

func (p *prover) Attest(ctx context.Context, _ string, leaf merkle.Hash, _ bool) (*cmw.Session, error) {
	p.quotes.Add(1)
	ev, err := p.hw.Attest(ctx, session.ReportData(1, leaf, p.config))
	return &cmw.Session{Evidence: ev, Config: p.config, Size: 1}, err
}

func (p *prover) Quote(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	p.quotes.Add(1)
	return p.hw.Attest(ctx, data)
}

// judgeFunc is a policy.
type judgeFunc func(attest.Situation) attest.Judgement

func (f judgeFunc) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement { return f(s) }

func accept(attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "policy", Status: attest.StatusPass}}}
}

func refuse(attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "policy", Status: attest.StatusFail, Code: attest.CodeDebug}}}
}

// verifier appraises by a policy that can be changed.
type verifier struct {
	appraiser *attest.Appraiser
	now       func() time.Time
	mu        sync.Mutex
	policy    judgeFunc
	seen      int
}

func newVerifier(hw *hardware, policy judgeFunc) *verifier {
	return &verifier{appraiser: attest.NewAppraiser(attest.NoEndorser{}, hw), now: time.Now, policy: policy}
}

func (v *verifier) set(p judgeFunc) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.policy = p
}

func (v *verifier) Appraise(ctx context.Context, p *session.Presented) *attest.Result {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen++
	if err := ctx.Err(); err != nil {
		return attest.RefusedResult(err, v.now())
	}
	leaf, err := x509.ParseCertificate(p.Chain[0])
	if err != nil {
		return attest.RefusedResult(err, v.now())
	}
	ev, want, err := p.Expect(leaf)
	if err != nil {
		return attest.RefusedResult(err, v.now())
	}
	return v.appraiser.Appraise(ctx, ev, want, v.policy, v.now())
}

func (v *verifier) Reconnect(earlier *attest.Result, _ *session.Presented) *attest.Result {
	v.mu.Lock()
	defer v.mu.Unlock()
	return earlier.Reconnect(v.policy, v.now())
}

// pair is two ends whose handshake is done.
func pair(t testing.TB, server *prover) (c, s *tls.Conn) {
	t.Helper()
	return tlspair.WithALPN(t, server.tls, session.ALPN)
}

type outcome struct {
	conn *session.Conn
	err  error
}

type setup struct {
	client, server           *tls.Conn
	clientProver             session.Prover
	serverProver             session.Prover
	clientVerify, serverVeri session.Verifier
	clientOpts, serverOpts   session.Options
}

// run runs both parts.
func (s setup) run(t testing.TB) (client, server outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan outcome, 1)
	go func() {
		conn, err := session.Server(ctx, s.server, "peer", s.serverVeri, s.serverProver, time.Now, s.serverOpts)
		if err != nil {
			_ = s.server.Close()
		}
		done <- outcome{conn, err}
	}()
	conn, err := session.Client(ctx, s.client, "a.example", s.clientVerify, s.clientProver, time.Now, s.clientOpts)
	if err != nil {
		_ = s.client.Close()
	}
	return outcome{conn, err}, <-done
}

func ok(t testing.TB, outcomes ...outcome) {
	t.Helper()
	for _, o := range outcomes {
		if o.err != nil {
			t.Fatal(o.err)
		}
	}
}

func code(t testing.TB, err error, want attest.Code) {
	t.Helper()
	if got := attest.CodeOf(err); got != want {
		t.Fatalf("got %s (%v), want %s", got, err, want)
	}
}

func TestExchange(t *testing.T) {
	hw := newHardware(t)
	for name, mutual := range map[string]bool{"server": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			p, v := newProver(t, hw), newVerifier(hw, accept)
			s := setup{serverProver: p, clientVerify: v}
			if mutual {
				s.clientProver, s.serverVeri = newProver(t, hw), newVerifier(hw, accept)
			}
			s.clientOpts.Protocols, s.serverOpts.Protocols = []string{"http/1.1", "h2"}, []string{"h2", "http/1.1"}
			s.client, s.server = pair(t, p)
			client, server := s.run(t)
			ok(t, client, server)
			for _, c := range []*session.Conn{client.conn, server.conn} {
				if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
					t.Errorf("protocol %q", got)
				}
			}
			if r := client.conn.Result(); !r.Affirmed() || r.Level() != attest.LevelSession {
				t.Errorf("client found %v", r.Checks())
			}
			if r := server.conn.Result(); r.Affirmed() != mutual {
				t.Errorf("server found %v", r)
			}
			exported(t, s.client, client.conn.Presented(), "EXPORTER-jurat-attestation-server")
			if mutual {
				exported(t, s.server, server.conn.Presented(), "EXPORTER-jurat-attestation-client")
			}
			stream(t, client.conn, server.conn)
			stream(t, server.conn, client.conn)
		})
	}
}

// exported checks that evidence was for the exporter of the sender's role.
func exported(t *testing.T, conn *tls.Conn, p *session.Presented, label string) {
	t.Helper()
	state := conn.ConnectionState()
	want, err := state.ExportKeyingMaterial(label, p.Challenge[:], 32)
	if err != nil || string(want) != string(p.Exporter[:]) {
		t.Errorf("exporter %x, want %x of %s (%v)", p.Exporter, want, label, err)
	}
}

// What was presented knows its leaf, as long as that is the one in its chain.
func TestPresentedLeaf(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	s := setup{serverProver: p, clientVerify: newVerifier(hw, accept)}
	s.client, s.server = pair(t, p)
	p.rotate(t) // the leaf of the session need not be that of the handshake
	client, server := s.run(t)
	ok(t, client, server)
	shown := client.conn.Presented()
	if leaf := shown.Leaf(); leaf == nil || !bytes.Equal(leaf.Raw, p.tls.Certificate[0]) {
		t.Error("another leaf")
	}
	for _, chain := range [][][]byte{nil, {nil}, tlspair.Leaf(t, tlspair.Key(t)).Certificate} {
		other := *shown
		other.Chain = chain
		if other.Leaf() != nil {
			t.Errorf("a leaf for %x", chain)
		}
	}
	if (&session.Presented{Chain: shown.Chain}).Leaf() != nil || new(session.Presented).Leaf() != nil {
		t.Error("a leaf of nothing")
	}
	_ = client.conn.Close()
	_ = server.conn.Close()
}

// The binder of the draft serves as well, at any codepoint, and the two profiles don't mix.
func TestExpat(t *testing.T) {
	hw := newHardware(t)
	for name, c := range map[string]struct {
		client, server session.Options
		code           attest.Code
	}{
		"both":             {session.Options{Profile: session.ProfileExpat}, session.Options{Profile: session.ProfileExpat}, ""},
		"both, elsewhere":  {session.Options{Profile: session.ProfileExpat, Extension: 0xff42}, session.Options{Profile: session.ProfileExpat, Extension: 0xff42}, ""},
		"client alone":     {session.Options{Profile: session.ProfileExpat}, session.Options{}, attest.CodeUnknownFormat},
		"server alone":     {session.Options{}, session.Options{Profile: session.ProfileExpat}, attest.CodeUnknownFormat},
		"other codepoints": {session.Options{Extension: 0xff42}, session.Options{}, attest.CodePeerRefused},
		"no such profile":  {session.Options{Profile: "expat"}, session.Options{}, attest.CodeSessionExchange},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, hw)
			s := setup{serverProver: p, clientVerify: newVerifier(hw, accept), clientOpts: c.client, serverOpts: c.server}
			s.client, s.server = pair(t, p)
			client, server := s.run(t)
			code(t, client.err, c.code)
			if c.code != "" {
				var coded *attest.Error
				if told := errors.As(client.err, &coded) && strings.Contains(coded.Hint, "profile"); told != (c.code == attest.CodeUnknownFormat) {
					t.Errorf("hint %q for %s", coded.Hint, c.code)
				}
				if n := p.quotes.Load(); n != 0 && c.code != attest.CodeUnknownFormat {
					t.Errorf("%d quotes", n)
				}
				return
			}
			ok(t, server)
			leaf := client.conn.ConnectionState().PeerCertificates[0]
			got := client.conn.Presented()
			h := crypto.SHA256.New()
			if got.Suite == tls.TLS_AES_256_GCM_SHA384 {
				h = crypto.SHA384.New()
			}
			state := s.client.ConnectionState()
			exporter, err := state.ExportKeyingMaterial("Attestation", got.Challenge[:], 32)
			if err != nil {
				t.Fatal(err)
			}
			h.Write(leaf.RawSubjectPublicKeyInfo)
			h.Write(exporter)
			want := attest.ReportData{}
			copy(want[:], h.Sum(nil))
			if r := client.conn.Result(); r.Claims().ReportData != want || r.Level() != attest.LevelSession {
				t.Errorf("signed %x, want %x", r.Claims().ReportData, want)
			}
			_ = client.conn.Close()
			_ = server.conn.Close()
		})
	}
}

// stream sends a lot, ends the direction, and checks what arrives.
func stream(t testing.TB, from, to *session.Conn) {
	t.Helper()
	data := make([]byte, 300<<10)
	_, _ = rand.Read(data)
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)/3)
			if _, err := from.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
		if err := from.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	got, err := io.ReadAll(to)
	if err != nil || string(got) != string(data) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
	}
}

func TestRefusals(t *testing.T) {
	hw, other := newHardware(t), newHardware(t)
	for name, c := range map[string]struct {
		client, server judgeFunc // nil: does not ask
		clientProver   bool
		stranger       bool // the client verifies other hardware
		atClient       attest.Code
		atServer       attest.Code
	}{
		"by the client":     {client: refuse, atClient: attest.CodeDebug, atServer: attest.CodePeerRefused},
		"by the server":     {client: accept, server: refuse, clientProver: true, atClient: attest.CodePeerRefused, atServer: attest.CodeDebug},
		"nothing to show":   {client: accept, server: accept, atClient: attest.CodePeerRefused, atServer: attest.CodeNoEvidence},
		"of other hardware": {client: accept, stranger: true, atClient: attest.CodeSignature, atServer: attest.CodePeerRefused},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, hw)
			s := setup{serverProver: p, clientVerify: newVerifier(hw, c.client)}
			if c.stranger {
				s.clientVerify = newVerifier(other, c.client)
			}
			if c.server != nil {
				s.serverVeri = newVerifier(hw, c.server)
			}
			if c.clientProver {
				s.clientProver = newProver(t, hw)
			}
			s.client, s.server = pair(t, p)
			client, server := s.run(t)
			code(t, client.err, c.atClient)
			code(t, server.err, c.atServer)
			var refused *session.Refused
			if c.atClient == attest.CodeDebug && !errors.As(client.err, &refused) {
				t.Errorf("%v holds no Result", client.err)
			}
		})
	}
}
