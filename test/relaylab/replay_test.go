package relaylab

import (
	"context"
	"crypto"
	"crypto/x509"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

// stage is where a genuine client meets a server that is played by hand. Beside the leaked key of the server, the attacker gets
// what no attacker has: the hardware signs what the test needs signed. So each forgery is as good as it can be made, and lacks
// only the one thing that its test is about.
type stage struct {
	*seat
	g     *tee
	own   tls13Leaf
	asked []byte // the client's request for evidence
}

// tls13Leaf is a certificate with its key.
type tls13Leaf struct {
	chain [][]byte
	key   crypto.Signer
}

func (g *tee) stolen() tls13Leaf { return tls13Leaf{g.own(true).Certificate, g.leak()} }

// challenge is the client's.
func (s *stage) challenge() [32]byte { return challengeOf(s.asked) }

// due is the leaf that the client will compute.
func (s *stage) due() merkle.Hash { return s.leaf(ea.Server, s.own.chain[0], s.challenge()) }

// show answers the client's request with evidence, in an authenticator that is in order.
func (s *stage) show(attestation []byte) []byte {
	return frame(authenticator, s.sign(ea.Server, s.asked, s.own.chain, s.own.key, wish, attestation))
}

// onStage lets a play follow the client's hello and request. The client reads what comes after the exchange to its end.
func (l *lab) onStage(c *ratls.Connector, g *tee, own tls13Leaf, play func(*stage)) error {
	return l.between(func(raw net.Conn) error {
		conn, err := c.Handshake(context.Background(), raw, name)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.Copy(io.Discard, conn)
		return err
	}, func(raw net.Conn) {
		s := &stage{seat: terminate(raw, tlsOf(own), session.ALPN), g: g, own: own}
		s.take(hello)
		s.asked = s.take(request)
		play(s)
		s.drain()
	})
}

// recorded is what a genuine TEE answered on another connection.
type recorded struct{ authenticator, attestation []byte }

func (g *tee) record(challenge [32]byte) recorded {
	up := g.reach(session.ALPN)
	defer up.Close()
	up.say(helloOf(clientHello{}), frame(request, ask(ea.Client, challenge, wish)))
	up.take(hello)
	raw := up.take(authenticator)
	_, attestation := attestationOf(raw)
	return recorded{raw, attestation}
}

// A client meets a server with forged, old, or borrowed evidence. Only the first two may pass: they are what an honest server
// shows, and prove that the rest is refused for what is wrong with it.
func TestForgedServers(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	own := g.stolen()
	client := ratls.NewConnector(l.party(demand(t, attest.LevelSession)))
	old := g.record(random())
	stale := unpack(old.attestation)
	oldKey := own
	if err := g.id.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	own = g.stolen()
	stranger := ratlsIdentity(t, l, "other.example")

	// A tree of four, in which the client's leaf is the second: a, the leaf, c, d.
	a, c, d := merkle.Hash{1}, merkle.Hash{3}, merkle.Hash{4}
	tree := func(s *stage) (ev *attest.Evidence, proof []merkle.Hash) {
		m := merkle.New([]merkle.Hash{a, s.due(), c, d})
		return g.quote(4, m.Root()), m.Proof(1)
	}
	with := func(change func(s *stage, ev *attest.Evidence, proof []merkle.Hash) []byte) func(*stage) {
		return func(s *stage) {
			ev, proof := tree(s)
			s.say(helloOf(serverHello{}), s.show(change(s, ev, proof)))
		}
	}
	plain := func(attestation func(*stage) []byte) func(*stage) {
		return func(s *stage) { s.say(helloOf(serverHello{}), s.show(attestation(s))) }
	}
	beside := func(change func(s *stage, old *cmw.Session)) func(*stage) {
		return plain(func(s *stage) []byte {
			copied := *stale
			change(s, &copied)
			return repack(&copied)
		})
	}
	for _, c := range []struct {
		name  string
		level string
		play  func(*stage)
		want  attest.Code
	}{
		{"control: honest evidence", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), s.show(g.signed(s.due())))
			s.take(verdict)
			s.say(frame(end, nil))
		}, accepted},
		{"control: honest evidence in a tree of four", "batched", func(s *stage) {
			ev, proof := tree(s)
			s.say(helloOf(serverHello{}), s.show(carry(ev, 4, 1, proof...)))
			s.take(verdict)
			s.say(frame(end, nil))
		}, accepted},

		// Replay. An authenticator is over exporters of its connection; the evidence in it over another exporter of it.
		{"replay: an authenticator of another connection", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, old.authenticator))
		}, attest.CodeAuthenticator},
		{"replay: evidence of another connection, signed anew", "session", plain(func(*stage) []byte { return old.attestation }), attest.CodeReportData},
		{"replay: the client's challenge, used on another connection", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), s.show(g.record(s.challenge()).attestation))
		}, attest.CodeReportData},
		{"replay: the same authenticator twice", "session", func(s *stage) {
			shown := s.show(g.signed(s.due()))
			s.say(helloOf(serverHello{}), shown)
			s.take(verdict)
			s.say(shown)
		}, attest.CodeSessionExchange},
		{"replay: the answer to another challenge on this connection", "session", plain(func(s *stage) []byte {
			return g.signed(s.leaf(ea.Server, own.chain[0], random()))
		}), attest.CodeReportData},

		// Old evidence, and beside it what nobody signed, as fresh as could be.
		{"stale: an old quote with this connection's leaf as its sibling", "session", beside(func(s *stage, o *cmw.Session) {
			o.Size, o.Index, o.Proof = 2, 1, []merkle.Hash{s.due()}
		}), attest.CodeReportData},
		{"stale: an old quote with another configuration digest", "session", beside(func(_ *stage, o *cmw.Session) { o.Config[0] ^= 1 }), attest.CodeReportData},
		{"stale: an old quote with another size", "session", beside(func(_ *stage, o *cmw.Session) { o.Size = 2 }), attest.CodeSessionExchange},
		{"stale: an old quote with another index", "session", beside(func(_ *stage, o *cmw.Session) { o.Index = 1 }), attest.CodeSessionExchange},
		{"stale: an old quote of an empty tree", "session", beside(func(_ *stage, o *cmw.Session) { o.Size = 0 }), attest.CodeSessionExchange},
		{"stale: a quote for this connection with another configuration digest", "session", plain(func(s *stage) []byte {
			o := unpack(g.signed(s.due()))
			o.Config[31] ^= 0x80
			return repack(o)
		}), attest.CodeReportData},
		{"stale: certificate evidence in the place of session evidence", "session", plain(func(*stage) []byte {
			full, err := g.id.GetCertificate(nil)
			check(err)
			leaf, err := x509.ParseCertificate(full.Certificate[0])
			check(err)
			ev, _, err := cmw.Unmarshal(leaf.Extensions[slices.IndexFunc(leaf.Extensions, isEvidence)].Value)
			check(err)
			return carry(ev, 1, 0)
		}), attest.CodeReportData},

		// Proofs of a tree that is signed, and that even has the client's leaf: only the one place in it counts.
		{"swap: the place of another leaf", "batched", with(func(_ *stage, ev *attest.Evidence, p []merkle.Hash) []byte { return carry(ev, 4, 0, p...) }), attest.CodeReportData},
		{"swap: the proof of another leaf", "batched", with(func(s *stage, ev *attest.Evidence, _ []merkle.Hash) []byte {
			return carry(ev, 4, 2, merkle.New([]merkle.Hash{a, s.due(), c, d}).Proof(2)...)
		}), attest.CodeReportData},
		{"swap: an index outside of the tree", "batched", with(func(_ *stage, ev *attest.Evidence, p []merkle.Hash) []byte { return carry(ev, 4, 5, p...) }), attest.CodeSessionExchange},
		{"swap: a smaller tree with the same root", "batched", with(func(_ *stage, ev *attest.Evidence, p []merkle.Hash) []byte { return carry(ev, 3, 1, p...) }), attest.CodeReportData},
		{"swap: a larger tree, same proof", "batched", with(func(_ *stage, ev *attest.Evidence, p []merkle.Hash) []byte { return carry(ev, 5, 1, p...) }), attest.CodeSessionExchange},
		{"swap: a proof that stops a level early", "batched", with(func(_ *stage, ev *attest.Evidence, p []merkle.Hash) []byte { return carry(ev, 4, 1, p[:1]...) }), attest.CodeSessionExchange},
		{"swap: a proof that goes on a level too far", "batched", with(func(_ *stage, ev *attest.Evidence, p []merkle.Hash) []byte {
			return carry(ev, 4, 1, append(slices.Clone(p), d)...)
		}), attest.CodeSessionExchange},
		{"swap: a node passed off as a leaf", "batched", with(func(s *stage, _ *attest.Evidence, _ []merkle.Hash) []byte {
			// Signed is a tree of two, the first of whose leaves is in truth the node over the client's leaf and another.
			ev := g.quote(2, merkle.Node(merkle.Node(s.due(), a), c))
			return carry(ev, 3, 0, a, c)
		}), attest.CodeReportData},
		{"swap: a leaf passed off as a node", "batched", with(func(s *stage, _ *attest.Evidence, _ []merkle.Hash) []byte {
			// Signed is a tree of four; its right half is passed off as one leaf, beside which there are two.
			ev := g.quote(4, merkle.New([]merkle.Hash{s.due(), a, c, d}).Root())
			return carry(ev, 3, 0, a, merkle.Node(c, d))
		}), attest.CodeReportData},
		{"swap: the root itself as a lone leaf", "batched", with(func(_ *stage, ev *attest.Evidence, _ []merkle.Hash) []byte { return carry(ev, 1, 0) }), attest.CodeReportData},

		// Roles and keys.
		{"roles: a client's evidence for this connection, as the server's", "session", plain(func(s *stage) []byte {
			return g.signed(s.leaf(ea.Client, own.chain[0], s.challenge()))
		}), attest.CodeReportData},
		{"roles: a client's authenticator", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, s.sign(ea.Client, s.asked, own.chain, own.key, wish, g.signed(s.due()))))
		}, attest.CodeAuthenticator},
		{"rotation: evidence over the old leaf, with the new one", "session", plain(func(s *stage) []byte {
			return g.signed(s.leaf(ea.Server, oldKey.chain[0], s.challenge()))
		}), attest.CodeReportData},
		{"rotation: evidence over the new leaf, with the old one", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, s.sign(ea.Server, s.asked, oldKey.chain, oldKey.key, wish, g.signed(s.due()))))
		}, attest.CodeReportData},
		{"rotation: the new leaf, signed with the old key", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, s.sign(ea.Server, s.asked, own.chain, oldKey.key, wish, g.signed(s.due()))))
		}, attest.CodeAuthenticator},
		{"names: a TEE that is called otherwise", "session", func(s *stage) {
			s.own = stranger
			s.say(helloOf(serverHello{}), s.show(g.signed(s.due())))
		}, attest.CodeName},

		// Less than was asked for.
		{"strip: an authenticator without cmw_attestation", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, s.sign(ea.Server, s.asked, own.chain, own.key, 0, nil)))
		}, attest.CodeAuthenticator},
		{"strip: cmw_attestation that is empty", "session", plain(func(*stage) []byte { return nil }), attest.CodeAuthenticator},
		{"strip: cmw_attestation under another number", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, s.sign(ea.Server, s.asked, own.chain, own.key, wish+1, g.signed(s.due()))))
		}, attest.CodeAuthenticator},
		{"strip: a verdict and no evidence", "session", func(s *stage) { s.say(helloOf(serverHello{}), affirmation()) }, attest.CodeSessionExchange},
		{"strip: a proof of a session that never was, in a frame of its own", "session", func(s *stage) {
			s.say(helloOf(serverHello{}), proofOf(make([]byte, 16), random()))
		}, attest.CodeSessionExchange},
		{"strip: the same in an authenticator", "session", plain(func(*stage) []byte {
			return proofOf(make([]byte, 16), random())[4:]
		}), attest.CodeSessionExchange},
		{"strip: an earlier session that the client did not name", "reconnect", func(s *stage) {
			s.say(helloOf(serverHello{Earlier: true}), proofOf(make([]byte, 16), random()))
		}, attest.CodeSessionExchange},
	} {
		t.Run(c.name, func(t *testing.T) { must(t, c.name, c.level, l.onStage(client, g, own, c.play), c.want) })
	}
}

// ratlsIdentity is a leaf, with its key, of a genuine TEE that is called otherwise.
func ratlsIdentity(t *testing.T, l *lab, host string) tls13Leaf {
	t.Helper()
	id, err := ratls.NewIdentity(t.Context(), l.chip(t), []string{host}, config, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Close)
	c, err := id.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return tls13Leaf{c.Certificate, c.PrivateKey.(crypto.Signer)}
}

// A server that asks clients for evidence meets clients with none of their own.
func TestForgedClients(t *testing.T) {
	l := newLab(t)
	g, other := l.tee(l.chip(t), ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{})
	rp := l.party(demand(t, attest.LevelSession))
	acceptor := ratls.NewMutualAcceptor(g.id, rp)
	leaked, mine := g.stolen(), other.stolen()

	// meet plays up to the point where the client's evidence is due.
	type met struct {
		*seat
		asked []byte // the server's request
		shown []byte // the server's authenticator
		mine  []byte // the request that it answers
	}
	meet := func(s *seat, extra ...[]byte) *met {
		m := &met{seat: s, mine: ask(ea.Client, random(), wish)}
		s.say(append([][]byte{helloOf(clientHello{}), frame(request, m.mine)}, extra...)...)
		s.take(hello)
		m.asked = s.take(request)
		m.shown = s.take(authenticator)
		return m
	}
	show := func(m *met, own tls13Leaf, attestation []byte) {
		m.say(frame(authenticator, m.sign(ea.Client, m.asked, own.chain, own.key, wish, attestation)), affirmation())
	}
	honest := func(m *met) []byte { return other.honest(m.seat, mine.chain[0], m.asked) }
	// What a client showed to the server on an earlier connection.
	var old recorded
	if err := l.asClient(acceptor, func(s *seat) {
		m := meet(s)
		old.attestation = honest(m)
		old.authenticator = m.sign(ea.Client, m.asked, mine.chain, mine.key, wish, old.attestation)
		m.say(frame(authenticator, old.authenticator), affirmation())
		m.take(verdict)
		m.say(frame(data, []byte(secret)), frame(end, nil))
	}); err != nil {
		t.Fatalf("an honest client: %v", err)
	}

	for _, c := range []struct {
		name string
		play func(*seat)
		want attest.Code
	}{
		{"reflection: the server's authenticator back", func(s *seat) {
			m := meet(s)
			m.say(frame(authenticator, m.shown), affirmation())
		}, attest.CodeAuthenticator},
		{"reflection: the server's evidence, signed anew with its leaked key", func(s *seat) {
			m := meet(s)
			_, attestation := attestationOf(m.shown)
			show(m, leaked, attestation)
		}, attest.CodeReportData},
		{"reflection: the server's request in the place of an answer", func(s *seat) {
			m := meet(s)
			m.say(frame(request, m.asked))
		}, attest.CodeSessionExchange},
		{"reflection: a request of the kind that a server makes", func(s *seat) {
			s.say(helloOf(clientHello{}), frame(request, ask(ea.Server, random(), wish)))
		}, attest.CodeSessionExchange},
		{"roles: a server's evidence for this connection and challenge, as the client's", func(s *seat) {
			m := meet(s)
			show(m, leaked, g.signed(m.leaf(ea.Server, leaked.chain[0], challengeOf(m.asked))))
		}, attest.CodeReportData},
		{"replay: a client's authenticator of another connection", func(s *seat) {
			m := meet(s)
			m.say(frame(authenticator, old.authenticator), affirmation())
		}, attest.CodeAuthenticator},
		{"replay: a client's evidence of another connection, signed anew", func(s *seat) { show(meet(s), mine, old.attestation) }, attest.CodeReportData},
		{"rotation: a client's evidence with another leaf", func(s *seat) {
			m := meet(s)
			show(m, leaked, honest(m))
		}, attest.CodeReportData},
		{"strip: a client's request without the wish for evidence", func(s *seat) {
			s.say(helloOf(clientHello{}), frame(request, ask(ea.Client, random(), 0)))
		}, attest.CodeSessionExchange},
		{"strip: a client's authenticator without cmw_attestation", func(s *seat) {
			m := meet(s)
			m.say(frame(authenticator, m.sign(ea.Client, m.asked, mine.chain, mine.key, 0, nil)), affirmation())
		}, attest.CodeAuthenticator},
		{"strip: a client's verdict and no evidence", func(s *seat) { meet(s).say(affirmation()) }, attest.CodeSessionExchange},
		{"strip: a client that says it has none", func(s *seat) {
			meet(s).say(frame(verdict, cbor(verdictBody{Code: string(attest.CodeNoEvidence)})))
		}, attest.CodeNoEvidence},
		{"strip: a client's proof of a session that never was", func(s *seat) {
			meet(s).say(proofOf(make([]byte, 16), random()), affirmation())
		}, attest.CodeSessionExchange},
	} {
		t.Run(c.name, func(t *testing.T) { must(t, c.name, "session", l.asClient(acceptor, c.play), c.want) })
	}
}

// On an open connection the other end is asked again and again. The attacker answers with what he has: old answers, and
// those of the very end that asks, which he may ask with its own challenge. That last one is what the roles in leaf and
// exporter are for.
func TestReattestation(t *testing.T) {
	l := newLab(t)
	quick := ratls.IdentityOptions{Batch: batch.Options{Patience: time.Millisecond}}
	g := l.tee(l.chip(t), quick)
	victim := l.tee(l.chip(t), quick) // a machine of the same fleet, under the same name
	rp := l.party(demand(t, attest.LevelSession))
	again := session.Options{Reattest: time.Millisecond, Answer: patience}
	client := ratls.NewMutualConnector(victim.id, rp).WithSession(again)
	acceptor := ratls.NewMutualAcceptor(g.id, rp).WithSession(again)
	own, leaked := g.stolen(), victim.stolen()

	// opened answers the first request in honour, so that the connection opens, and waits for the second.
	type opened struct {
		*seat
		sender     ea.Role
		before     []byte // the first request
		shown      []byte // the answer to it
		asked      []byte // the second request
		chain, its tls13Leaf
	}
	answer := func(o *opened, asked []byte, by tls13Leaf, attestation []byte) []byte {
		return o.sign(o.sender, asked, by.chain, by.key, wish, attestation)
	}
	// reflected is the other end's own evidence, made for the challenge that it wants answered.
	reflected := func(o *opened) []byte {
		o.say(frame(request, ask(o.role, challengeOf(o.asked), wish)))
		for {
			switch kind, body := o.next(); kind {
			case authenticator:
				_, attestation := attestationOf(body)
				return attestation
			case verdict:
				panic(gone{errOdd})
			}
		}
	}
	plays := []struct {
		name string
		play func(*opened)
		want attest.Code
	}{
		{"control: an honest answer", func(o *opened) {
			o.say(frame(authenticator, answer(o, o.asked, o.chain, g.honest(o.seat, o.chain.chain[0], o.asked))))
			o.take(request) // which comes only once the answer was affirmed
			o.say(frame(end, nil))
		}, accepted},
		{"replay: the answer of before, again", func(o *opened) { o.say(frame(authenticator, o.shown)) }, attest.CodeAuthenticator},
		{"replay: the evidence of before, signed anew", func(o *opened) {
			_, attestation := attestationOf(o.shown)
			o.say(frame(authenticator, answer(o, o.asked, o.chain, attestation)))
		}, attest.CodeReportData},
		{"replay: one answer twice", func(o *opened) {
			once := frame(authenticator, answer(o, o.asked, o.chain, g.honest(o.seat, o.chain.chain[0], o.asked)))
			o.say(once)
			o.take(request)
			o.say(once)
		}, attest.CodeAuthenticator},
		{"stale: the quote of before with this leaf as its sibling", func(o *opened) {
			_, attestation := attestationOf(o.shown)
			copied := unpack(attestation)
			copied.Size, copied.Index, copied.Proof = 2, 1, []merkle.Hash{o.leaf(o.sender, o.chain.chain[0], challengeOf(o.asked))}
			o.say(frame(authenticator, answer(o, o.asked, o.chain, repack(copied))))
		}, attest.CodeReportData},
		{"reflection: evidence of the end that asks, for the challenge it asks with", func(o *opened) {
			attestation := reflected(o)
			o.say(frame(authenticator, answer(o, o.asked, o.its, attestation)))
		}, attest.CodeReportData},
		{"reflection: the request back", func(o *opened) { o.say(frame(request, o.asked)) }, attest.CodeSessionExchange},
		{"strip: an answer without cmw_attestation", func(o *opened) {
			o.say(frame(authenticator, o.sign(o.sender, o.asked, o.chain.chain, o.chain.key, 0, nil)))
		}, attest.CodeAuthenticator},
		{"strip: a verdict for an answer", func(o *opened) { o.say(affirmation()) }, attest.CodeSessionExchange},
		{"context reuse: one request twice", func(o *opened) {
			question := frame(request, ask(o.role, random(), wish))
			o.say(question)
			o.take(authenticator)
			o.say(question)
		}, attest.CodeSessionExchange},
	}
	for _, c := range plays {
		t.Run(c.name+", by a server", func(t *testing.T) {
			err := l.onStage(client, g, own, func(s *stage) {
				o := &opened{seat: s.seat, sender: ea.Server, before: s.asked, chain: own, its: leaked}
				o.shown = answer(o, s.asked, own, g.signed(s.due()))
				s.say(helloOf(serverHello{}), frame(authenticator, o.shown))
				s.take(verdict)
				o.asked = s.take(request)
				c.play(o)
			})
			must(t, c.name, "open", err, c.want)
		})
		t.Run(c.name+", by a client", func(t *testing.T) {
			err := l.asClient(acceptor, func(s *seat) {
				// The attacker's own machine is a genuine TEE, whose leaf is not the victim's.
				o := &opened{seat: s, sender: ea.Client, chain: leaked, its: own}
				s.say(helloOf(clientHello{}), frame(request, ask(ea.Client, random(), wish)))
				s.take(hello)
				o.before = s.take(request)
				s.take(authenticator)
				o.shown = answer(o, o.before, leaked, g.honest(s, leaked.chain[0], o.before))
				s.say(frame(authenticator, o.shown), affirmation())
				s.take(verdict)
				o.asked = s.take(request)
				c.play(o)
			})
			must(t, c.name, "open", err, c.want)
		})
	}
	// The challenge of the exchange itself is spent as well.
	t.Run("context reuse: the first request again", func(t *testing.T) {
		question := frame(request, ask(ea.Client, random(), wish))
		must(t, "context reuse: the first request again", "open", l.asClient(ratls.NewAcceptor(g.id), func(s *seat) {
			s.say(helloOf(clientHello{}), question)
			s.take(hello)
			s.take(authenticator)
			s.say(affirmation(), question)
			s.take(authenticator)
			s.say(frame(end, nil))
		}), attest.CodeSessionExchange)
	})
}

// Two ends that have met keep one secret, and each proves it in turn. What one of them shows is no proof of the other.
func TestReflectedProof(t *testing.T) {
	l := newLab(t)
	g, victim := l.tee(l.chip(t), ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{})
	rp := l.party(demand(t, attest.LevelSession))
	theirs, kept := session.NewStore(16, time.Now), session.NewStore(16, time.Now)
	acceptor := ratls.NewMutualAcceptor(g.id, rp).WithSession(session.Options{Store: theirs})
	client := ratls.NewMutualConnector(victim.id, rp).WithSession(session.Options{Store: kept})
	g.serves(acceptor)
	if err := visit(client, g.dial()); err != nil {
		t.Fatal(err)
	}
	// The client names the session to whoever holds the server's leaf key.
	var id []byte
	refusal := l.between(func(raw net.Conn) error { return visit(client, raw) }, func(raw net.Conn) {
		down := terminate(raw, g.own(true), session.ALPN)
		var greeting clientHello
		down.takeHello(&greeting)
		id = greeting.Earlier
		asked := down.take(request)
		// The attacker has nothing to show; the client's proof, which comes after his, he does not see.
		down.say(helloOf(serverHello{Earlier: true, Asks: true}), frame(request, ask(ea.Server, challengeOf(asked), wish)), proofOf(id, random()))
		for {
			if kind, _ := down.next(); kind == proof {
				t.Error("the client proved the secret to a server that had not")
			}
		}
	})
	must(t, "reflection: a client is to prove first", "reconnect", refusal, attest.CodeReconnectProof)
	if kept.Len() != 0 {
		t.Error("a secret that was attacked is kept")
	}
	// The server proves first. Its proof, sent back, is over the server's role.
	must(t, "reflection: the server's proof back", "reconnect", l.asClient(acceptor, func(s *seat) {
		s.say(helloOf(clientHello{Earlier: id}), frame(request, ask(ea.Client, random(), wish)))
		s.take(hello)
		s.take(request)
		s.say(frame(proof, s.take(proof)), affirmation())
	}), attest.CodeReconnectProof)
	if theirs.Len() != 0 {
		t.Error("a secret that was attacked is kept at the server")
	}
}
