package session_test

import (
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

// meeting is two ends that know each other: each keeps what it learnt.
type meeting struct {
	*testing.T
	p, q         *prover // the server's, and the client's where the server asks
	v, w         *verifier
	kept, theirs *session.Store
}

func newMeeting(t *testing.T, mutual bool) *meeting {
	hw := newHardware(t)
	m := &meeting{T: t, p: newProver(t, hw), v: newVerifier(hw, accept), kept: session.NewStore(4, time.Now), theirs: session.NewStore(4, time.Now)}
	if mutual {
		m.q, m.w = newProver(t, hw), newVerifier(hw, accept)
	}
	return m
}

func (m *meeting) setup() setup {
	s := setup{serverProver: m.p, clientVerify: m.v}
	s.clientOpts.Store, s.serverOpts.Store = m.kept, m.theirs
	if m.q != nil {
		s.clientProver, s.serverVeri = m.q, m.w
	}
	s.client, s.server = pair(m, m.p)
	return s
}

// meet makes one connection and answers the quotes it took, and both ends' Results.
func (m *meeting) meet() (quotes int64, client, server *attest.Result) {
	m.Helper()
	before := m.quotes()
	c, s := m.setup().run(m)
	ok(m, c, s)
	stream(m, c.conn, s.conn)
	_ = c.conn.Close()
	_ = s.conn.Close()
	return m.quotes() - before, c.conn.Result(), s.conn.Result()
}

func (m *meeting) quotes() int64 {
	n := m.p.quotes.Load()
	if m.q != nil {
		n += m.q.quotes.Load()
	}
	return n
}

func TestReconnect(t *testing.T) {
	for name, mutual := range map[string]bool{"server": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			m := newMeeting(t, mutual)
			full := int64(1)
			if mutual {
				full = 2
			}
			n, first, _ := m.meet()
			if n != full || first.Reconnected() {
				t.Fatalf("%d quotes for the first connection", n)
			}
			for range 3 {
				n, again, at := m.meet()
				if n != 0 || !again.Affirmed() || !again.Reconnected() || again.EvidenceDigest() != first.EvidenceDigest() || !again.EvidenceTime().Equal(first.EvidenceTime()) {
					t.Fatalf("%d quotes, %v", n, again.Checks())
				}
				if mutual != at.Reconnected() {
					t.Fatal("the server's Result")
				}
			}
			for name, void := range map[string]func(){
				"the client forgot":   m.kept.Clear,
				"the server forgot":   m.theirs.Clear,
				"the server's key":    func() { m.p.rotate(t) },
				"the client's policy": func() { m.v.set(other) },
				"the client's key": func() {
					if m.q != nil {
						m.q.rotate(t)
					} else {
						m.kept.Clear()
					}
				},
				"the server's policy": func() {
					if m.w != nil {
						m.w.set(other)
					} else {
						m.theirs.Clear()
					}
				},
			} {
				m.v.set(accept)
				if m.w != nil {
					m.w.set(accept)
				}
				m.kept.Clear()
				if n, _, _ := m.meet(); n != full {
					t.Fatalf("%s: %d quotes to begin with", name, n)
				}
				void()
				if n, r, _ := m.meet(); n != full || r.Reconnected() {
					t.Errorf("%s: reconnected with %d quotes", name, n)
				}
				if n, _, _ := m.meet(); n != 0 {
					t.Errorf("%s: %d quotes after a new beginning", name, n)
				}
			}
		})
	}
}

// other affirms under another policy.
func other(s attest.Situation) attest.Judgement {
	j := accept(s)
	j.ID = "another"
	return j
}

// A policy can refuse what only reconnects; both ends then take evidence.
func TestReconnectForbidden(t *testing.T) {
	m := newMeeting(t, true)
	forbid := func(s attest.Situation) attest.Judgement {
		if s.Reconnect {
			return refuse(s)
		}
		return accept(s)
	}
	for _, set := range []func(){func() { m.v.set(forbid) }, func() { m.v.set(accept); m.w.set(forbid) }} {
		set()
		for range 2 {
			if n, r, _ := m.meet(); n != 2 || r.Reconnected() {
				t.Fatalf("reconnected with %d quotes", n)
			}
		}
	}
}

func TestReconnectExpires(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	m := newMeeting(t, false)
	m.kept, m.theirs = session.NewStore(4, clock), session.NewStore(4, clock)
	m.meet()
	if n, _, _ := m.meet(); n != 0 {
		t.Fatalf("%d quotes", n)
	}
	now = now.Add(time.Hour + time.Minute)
	if n, _, _ := m.meet(); n != 1 {
		t.Fatalf("%d quotes after more than an hour", n)
	}
}

// The store is bounded: the oldest goes first.
func TestStoreIsBounded(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	kept := session.NewStore(2, time.Now)
	for range 5 {
		s := setup{serverProver: p, clientVerify: newVerifier(hw, accept)}
		s.serverOpts.Store = kept
		s.client, s.server = pair(t, p)
		c, srv := s.run(t)
		ok(t, c, srv)
	}
	if n := kept.Len(); n != 2 {
		t.Errorf("%d kept", n)
	}
}

// thief is at the server's end of a client's connection, with the server's leaf key and everything that was ever said, but
// without the secret.
func TestReconnectProofs(t *testing.T) {
	for name, forge := range map[string]func(t *testing.T, m *meeting, conn *tls.Conn, id, old []byte) []byte{
		"a MAC of nothing": func(t *testing.T, _ *meeting, _ *tls.Conn, id, _ []byte) []byte {
			return cmwProof(t, id, make([]byte, 32))
		},
		"an earlier proof": func(_ *testing.T, _ *meeting, _ *tls.Conn, _, old []byte) []byte { return old },
		"of another session": func(t *testing.T, _ *meeting, _ *tls.Conn, _, old []byte) []byte {
			return cmwProof(t, make([]byte, 16), old[len(old)-32:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMeeting(t, false)
			m.meet()
			// The proof of an honest reconnect, as somebody with the leaf key saw it: it is inside TLS.
			s := m.setup()
			id, old := eavesdrop(t, m, s)
			s = m.setup()
			done := make(chan error, 1)
			go func() {
				_, err := session.Client(t.Context(), s.client, "a.example", m.v, nil, time.Now, s.clientOpts)
				_ = s.client.Close()
				done <- err
			}()
			read(t, s.server, hello)
			read(t, s.server, request)
			body := forge(t, m, s.server, id, old)
			if _, err := s.server.Write(append(frame(hello, cbor(t, serverHello{Earlier: true})), frame(proof, body)...)); err != nil {
				t.Fatal(err)
			}
			code(t, <-done, attest.CodeReconnectProof)
			_, _ = io.Copy(io.Discard, s.server)
			if n, _, _ := m.meet(); n != 1 {
				t.Errorf("%d quotes: a secret that was attacked is kept", n)
			}
		})
	}
}

// read takes one frame.
func read(t testing.TB, conn io.Reader, want int) []byte {
	t.Helper()
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil || int(head[0]) != want {
		t.Fatalf("frame %x, %v; want kind %d", head, err, want)
	}
	body := make([]byte, int(head[1])<<16|int(head[2])<<8|int(head[3]))
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	return body
}

// eavesdrop plays the client's part by hand up to the server's proof.
func eavesdrop(t *testing.T, m *meeting, s setup) (id, body []byte) {
	t.Helper()
	// The client's own part tells which session it offers.
	helloOf := func() []byte {
		probe := m.setup()
		go func() {
			_, _ = session.Client(t.Context(), probe.client, "a.example", m.v, nil, time.Now, probe.clientOpts)
			_ = probe.client.Close()
		}()
		raw := read(t, probe.server, hello)
		_ = probe.server.Close()
		return raw
	}()
	go func() {
		conn, err := session.Server(t.Context(), s.server, "peer", nil, m.p, time.Now, s.serverOpts)
		if err == nil {
			_ = conn.Close()
		}
	}()
	if _, err := s.client.Write(append(frame(hello, helloOf), frame(request, ask(t, s.client, ea.Client, 9))...)); err != nil {
		t.Fatal(err)
	}
	read(t, s.client, hello)
	body = read(t, s.client, proof)
	if _, err := s.client.Write(frame(verdict, cbor(t, verdictBody{Affirmed: true}))); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, s.client)
	return helloOf[len(helloOf)-16:], body
}

type reconnectPayload struct {
	ID  []byte `cbor:"1,keyasint"`
	MAC []byte `cbor:"2,keyasint"`
}

type cmwRecord struct {
	_     struct{} `cbor:",toarray"`
	Type  string
	Value []byte
	Ind   uint64
}

func cmwProof(t testing.TB, id, mac []byte) []byte {
	return cbor(t, cmwRecord{Type: "application/vnd.jurat.reconnect+cbor", Value: cbor(t, reconnectPayload{id, mac}), Ind: 4})
}
