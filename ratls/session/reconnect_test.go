package session_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/cmw"
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
		for range 3 {
			if n, r, _ := m.meet(); n != 2 || r.Reconnected() {
				t.Fatalf("reconnected with %d quotes", n)
			}
		}
	}
	if n := m.theirs.Len(); n != 3 { // of those that the client did not offer two are left, and the last
		t.Errorf("%d kept by the server", n)
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

// The proof on the wire is what the documentation says, for either role, and nothing that resembles it.
func TestReconnectOnTheWire(t *testing.T) {
	hw := newHardware(t)
	for name, c := range map[string]struct {
		change func(id, mac []byte) // of the client's proof
		say    func(t *testing.T, id, mac []byte) []byte
		code   attest.Code
	}{
		"as it is":          {code: ""},
		"another MAC":       {change: func(_, mac []byte) { mac[0] ^= 1 }, code: attest.CodeReconnectProof},
		"another id":        {change: func(id, _ []byte) { id[0] ^= 1 }, code: attest.CodeReconnectProof},
		"not to be read":    {say: func(*testing.T, []byte, []byte) []byte { return frame(proof, []byte("x")) }, code: attest.CodeSessionExchange},
		"evidence instead":  {say: func(t *testing.T, _, _ []byte) []byte { return frame(proof, cmwEvidence(t)) }, code: attest.CodeSessionExchange},
		"another kind":      {say: func(t *testing.T, id, mac []byte) []byte { return frame(authenticator, cmwProof(t, id, mac)) }, code: attest.CodeSessionExchange},
		"nothing, affirmed": {say: func(t *testing.T, _, _ []byte) []byte { return nil }, code: attest.CodeSessionExchange},
	} {
		t.Run(name, func(t *testing.T) {
			p, q := newProver(t, hw), newProver(t, hw)
			theirs := session.NewStore(4, time.Now)
			s := setup{serverProver: p, clientProver: q, clientVerify: newVerifier(hw, accept), serverVeri: newVerifier(hw, accept)}
			s.serverOpts.Store = theirs
			s.client, s.server = pair(t, p)
			client, server := s.run(t)
			ok(t, client, server)
			state := s.client.ConnectionState()
			kept, err := state.ExportKeyingMaterial("EXPORTER-jurat-reconnect", nil, 48)
			if err != nil {
				t.Fatal(err)
			}
			_ = client.conn.Close()
			_ = server.conn.Close()

			c2, s2 := pair(t, p)
			done := make(chan error, 1)
			go func() {
				_, err := session.Server(t.Context(), s2, "peer", newVerifier(hw, accept), p, time.Now, session.Options{Store: theirs})
				_ = s2.Close()
				done <- err
			}()
			mac := func(role ea.Role, challenge, request []byte, of *prover) []byte {
				state := c2.ConnectionState()
				exporter, err := state.ExportKeyingMaterial("EXPORTER-jurat-attestation-"+role.String(), challenge, 32)
				if err != nil {
					t.Fatal(err)
				}
				own, _ := of.Leaf()
				leaf := session.Leaf(role, own.SPKI, [32]byte(challenge), [32]byte(exporter))
				h := hmac.New(sha256.New, kept[:32])
				h.Write([]byte("jurat-reconnect-1"))
				h.Write(leaf[:])
				h.Write(request)
				return h.Sum(nil)
			}
			ours := ask(t, c2, ea.Client, 5)
			_, _ = c2.Write(append(frame(hello, cbor(t, clientHello{Earlier: kept[32:]})), frame(request, ours)...))
			if got, want := read(t, c2, hello), cbor(t, serverHello{Earlier: true, Asks: true}); string(got) != string(want) {
				t.Fatalf("the server says %x", got)
			}
			e, err := ea.New(c2.ConnectionState(), ea.DefaultExtension)
			if err != nil {
				t.Fatal(err)
			}
			theirsRaw := read(t, c2, request)
			challenge, err := e.Challenge(ea.Server, theirsRaw)
			if err != nil {
				t.Fatal(err)
			}
			asked := [32]byte{5}
			if got, want := read(t, c2, proof), cmwProof(t, kept[32:], mac(ea.Server, asked[:], ours, p)); string(got) != string(want) {
				t.Errorf("the server proves %x, want %x", got, want)
			}
			id, own := slices.Clone(kept[32:]), mac(ea.Client, challenge[:], theirsRaw, q)
			if c.change != nil {
				c.change(id, own)
			}
			out := frame(proof, cmwProof(t, id, own))
			if c.say != nil {
				out = c.say(t, id, own)
			}
			_, _ = c2.Write(append(out, frame(verdict, cbor(t, verdictBody{Affirmed: true}))...))
			_ = c2.CloseWrite()
			code(t, <-done, c.code)
		})
	}
}

func cmwEvidence(t testing.TB) []byte {
	raw, err := cmw.MarshalSession(&cmw.Session{Evidence: &attest.Evidence{Format: "test", Raw: []byte("quote")}, Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// fickle affirms so many reconnects, and no more.
type fickle struct {
	*verifier
	times *int
}

func (f fickle) Reconnect(earlier *attest.Result, p *session.Presented) *attest.Result {
	if *f.times--; *f.times < 0 {
		return attest.RefusedResult(&attest.Error{Code: attest.CodeReconnectRefused, Check: "test"}, time.Now())
	}
	return f.verifier.Reconnect(earlier, p)
}

// A policy that changes while the proof is under way is the one that counts.
func TestPolicyChangesDuringReconnect(t *testing.T) {
	m := newMeeting(t, false)
	m.meet()
	s := m.setup()
	once := 1
	s.clientVerify = fickle{m.v, &once}
	client, server := s.run(t)
	code(t, client.err, attest.CodeReconnectRefused)
	code(t, server.err, attest.CodePeerRefused)
	if n, _, _ := m.meet(); n != 1 {
		t.Errorf("%d quotes", n)
	}
}

// Who was not asked before proves nothing now, and who asks no more takes no proof of it.
func TestReconnectOtherwise(t *testing.T) {
	asks := newMeeting(t, true)
	once := func(ask bool) (int64, bool) {
		before := asks.quotes()
		s := asks.setup()
		s.serverVeri = nil
		if ask {
			s.serverVeri = asks.w
		}
		s.clientVerify = asks.v
		client, server := s.run(t)
		ok(t, client, server)
		_ = client.conn.Close()
		_ = server.conn.Close()
		return asks.quotes() - before, client.conn.Result().Reconnected()
	}
	for _, c := range []struct {
		ask    bool
		quotes int64
	}{{false, 1}, {false, 0}, {true, 2}, {true, 0}, {false, 1}, {false, 0}} {
		if n, again := once(c.ask); n != c.quotes || again != (n == 0) {
			t.Fatalf("server asks %v: %d quotes, want %d", c.ask, n, c.quotes)
		}
	}
}

// A server without a leaf to show says so; it has nothing to prove either.
func TestReconnectWithoutLeaf(t *testing.T) {
	m := newMeeting(t, false)
	m.meet()
	s := m.setup()
	s.serverProver = odd{prover: m.p, leaf: &attest.Error{Code: attest.CodeLeafExpired, Check: "identity"}}
	client, server := s.run(t)
	code(t, server.err, attest.CodeLeafExpired)
	code(t, client.err, attest.CodePeerRefused)
}

// A server may still give up where its proof is due.
func TestServerGivesUpOnReconnect(t *testing.T) {
	m := newMeeting(t, false)
	m.meet()
	s := m.setup()
	done := make(chan error, 1)
	go func() {
		_, err := session.Client(t.Context(), s.client, "a.example", m.v, nil, time.Now, s.clientOpts)
		_ = s.client.Close()
		done <- err
	}()
	read(t, s.server, hello)
	read(t, s.server, request)
	_, _ = s.server.Write(append(frame(hello, cbor(t, serverHello{Earlier: true})), frame(verdict, cbor(t, verdictBody{Code: "J404"}))...))
	code(t, <-done, attest.CodePeerRefused)
}

// A client names an earlier session only to the key that it was with, and a server takes the name only with the key it had.
func TestReconnectNamesNobodyElse(t *testing.T) {
	m := newMeeting(t, false)
	m.meet()
	offered := func(s setup) []byte {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = session.Client(t.Context(), s.client, "a.example", m.v, nil, time.Now, s.clientOpts)
			_ = s.client.Close()
		}()
		raw := read(t, s.server, hello)
		_ = s.server.Close()
		<-done
		return raw
	}
	named := offered(m.setup())
	m.p.rotate(t)
	if got := offered(m.setup()); string(got) == string(named) {
		t.Error("the id was told to another key")
	}
	if n := m.kept.Len(); n != 0 {
		t.Errorf("%d kept of a key that has gone", n)
	}
	s := m.setup()
	go func() {
		_, _ = session.Server(t.Context(), s.server, "peer", nil, m.p, time.Now, s.serverOpts)
		_ = s.server.Close()
	}()
	_, _ = s.client.Write(append(frame(hello, named), frame(request, ask(t, s.client, ea.Client, 1))...))
	if got, want := read(t, s.client, hello), cbor(t, serverHello{}); string(got) != string(want) {
		t.Errorf("the server goes along with %x under a new key", got)
	}
	_ = s.client.Close()
	if n := m.theirs.Len(); n != 0 {
		t.Errorf("%d kept by the server", n)
	}
}

// A server that lets a client prove a session in which that client was not asked is not to be followed.
func TestReconnectAskedAfterwards(t *testing.T) {
	m := newMeeting(t, false)
	m.meet()
	s := m.setup()
	s.clientProver = newProver(t, newHardware(t))
	done := make(chan error, 1)
	go func() {
		_, err := session.Client(t.Context(), s.client, "a.example", m.v, s.clientProver, time.Now, s.clientOpts)
		_ = s.client.Close()
		done <- err
	}()
	read(t, s.server, hello)
	read(t, s.server, request)
	_, _ = s.server.Write(append(frame(hello, cbor(t, serverHello{Earlier: true, Asks: true})), frame(request, ask(t, s.server, ea.Server, 3))...))
	err := <-done
	code(t, err, attest.CodeSessionExchange)
	if !strings.Contains(err.Error(), "in which we were not asked") {
		t.Error(err)
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

// A reconnect makes evidence no younger: the other end is asked again when that evidence is as old as Reattest, and where it
// is so already, it is no earlier session.
func TestReconnectAgesOn(t *testing.T) {
	for name, mutual := range map[string]bool{"server": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			m := newMeeting(t, mutual)
			m.meet()
			later := func(d time.Duration) {
				clock := func() time.Time { return time.Now().Add(d) }
				m.v.now = clock
				if mutual {
					m.w.now = clock
				}
			}
			full, seen := int64(1), make(chan *attest.Result, 4)
			s := m.setup()
			s.clientOpts.Reattest, s.clientOpts.OnReattest = 10*time.Minute, func(r *attest.Result) { seen <- r }
			if mutual {
				full = 2
				s.serverOpts.Reattest, s.serverOpts.OnReattest = s.clientOpts.Reattest, s.clientOpts.OnReattest
			}
			later(10*time.Minute - time.Second)
			before := m.quotes()
			c, srv := s.run(t)
			ok(t, c, srv)
			ends := []<-chan error{drain(c.conn), drain(srv.conn)}
			if !c.conn.Result().Reconnected() || m.quotes() != before {
				t.Fatal("not reconnected")
			}
			for range full {
				select {
				case r := <-seen:
					if !r.Affirmed() || r.Reconnected() {
						t.Error(r.Err())
					}
				case <-time.After(10 * time.Second):
					t.Fatal("evidence of ten minutes ago, and nobody asks")
				}
			}
			_, _ = c.conn.Close(), srv.conn.Close()
			_, _ = <-ends[0], <-ends[1]
			later(10 * time.Minute)
			before = m.quotes()
			s.client, s.server = pair(t, m.p)
			c, srv = s.run(t)
			ok(t, c, srv)
			if c.conn.Result().Reconnected() || m.quotes() != before+full {
				t.Error("reconnected with evidence that is due")
			}
			_, _ = c.conn.Close(), srv.conn.Close()
		})
	}
}
