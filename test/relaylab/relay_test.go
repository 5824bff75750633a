package relaylab

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

const (
	verbatim     = "relay: frames forwarded as they are"
	certificate  = "relay: the leaf with its evidence, served under the leaked key"
	resigned     = "relay: the TEE asked with the client's challenge, signed anew"
	ownChallenge = "relay: the TEE asked with the attacker's challenge, signed anew"
	honestTwin   = "relay: evidence of an honest session in the same tree, signed anew"
	swappedProof = "relay: own evidence with the proof of another leaf, signed anew"
	foreignProof = "relay: proof by the secret of the attacker's own session"
	renamedProof = "relay: that proof, under the name of the client's session"
	staleProof   = "relay: the TEE's proof for a challenge of the attacker's"
)

// relayCertificate serves what the TEE serves, under the key that leaked, and passes everything on.
func (g *tee) relayCertificate(victim net.Conn) {
	up := g.reach()
	defer up.Close()
	down := terminate(victim, tls.Certificate{Certificate: up.chain(), PrivateKey: g.leak()})
	shuttle(down, up)
}

// Level key. The evidence is in the certificate, and the certificate is the TEE's own: whoever has its key serves it as the
// TEE does. The client sees nothing wrong, and what it says is read. A policy that demands the session refuses.
func TestRelayKey(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	client := ratls.NewConnector(l.party(demand(t, attest.LevelKey)))
	n := attempts(t)
	relays(t, "key", repeatedly(t, n, func(int) (string, attest.Code, error) {
		return certificate, accepted, l.between(func(raw net.Conn) error { return visit(client, raw) }, g.relayCertificate)
	}, "key"), n)
	for _, level := range []attest.Level{attest.LevelNonce, attest.LevelSession} {
		client := ratls.NewConnector(l.party(demand(t, level)))
		must(t, certificate, string(level), l.between(func(raw net.Conn) error { return visit(client, raw) }, g.relayCertificate), attest.CodeBindingTooWeak)
	}
}

// nonceData is what the hardware signs at level nonce, as this lab models it: the product has no such exchange yet.
func nonceData(spki, nonce [32]byte) attest.ReportData {
	return sha512.Sum512(slices.Concat([]byte("relay-lab-nonce"), spki[:], nonce[:]))
}

// serveNonce answers nonces with evidence.
func (g *tee) serveNonce(raw net.Conn) {
	defer raw.Close()
	own, err := g.id.GetCertificate(nil)
	if err != nil {
		return
	}
	conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{*own}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true})
	defer conn.Close()
	var nonce [32]byte
	if _, err := io.ReadFull(conn, nonce[:]); err != nil {
		return
	}
	ev, err := g.attester.Attest(context.Background(), nonceData(spki(own.Certificate[0]), nonce))
	if err != nil {
		return
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(ev.Raw))), ev.Raw...))
}

// askNonce is a client that demands evidence over the peer's key and a nonce of its own, through the product's appraisal.
func (l *lab) askNonce(p attest.Policy) func(raw net.Conn) error {
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, l.vendor)
	return func(raw net.Conn) error {
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: name, MinVersion: tls.VersionTLS13})
		defer conn.Close()
		nonce, asked := random(), time.Now()
		if _, err := conn.Write(nonce[:]); err != nil {
			return err
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return err
		}
		ev := &attest.Evidence{Format: "lab", Raw: make([]byte, binary.BigEndian.Uint16(size[:]))}
		if _, err := io.ReadFull(conn, ev.Raw); err != nil {
			return err
		}
		key := spki(conn.ConnectionState().PeerCertificates[0].Raw)
		return appraiser.Appraise(context.Background(), ev, attest.Expect(nonceData(key, nonce), attest.LevelNonce, asked), p, time.Now()).Err()
	}
}

// Level nonce. The evidence is fresh, and signs the client's own nonce: the attacker passed it on. Both connections have the
// same key, and nothing in the evidence says which of them it is for.
func TestRelayNonce(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	dial := func() *seat {
		a, b := l.pair()
		l.work.Go(func() { g.serveNonce(b) })
		return join(a)
	}
	relay := func(victim net.Conn) {
		up := dial()
		defer up.Close()
		shuttle(terminate(victim, tls.Certificate{Certificate: up.chain(), PrivateKey: g.leak()}), up)
	}
	client := l.askNonce(demand(t, attest.LevelNonce))
	n := attempts(t)
	relays(t, "nonce", repeatedly(t, n, func(int) (string, attest.Code, error) {
		return verbatim, accepted, l.between(client, relay)
	}, "nonce"), n)

	// What the nonce does help against: evidence of yesterday.
	var nonce [32]byte
	old, err := g.attester.Attest(t.Context(), nonceData(spki(g.own(false).Certificate[0]), nonce))
	if err != nil {
		t.Fatal(err)
	}
	replay := func(victim net.Conn) {
		s := terminate(victim, g.own(false))
		_, err := io.ReadFull(s, nonce[:])
		check(err)
		s.say(binary.BigEndian.AppendUint16(nil, uint16(len(old.Raw))), old.Raw)
	}
	must(t, "replay: evidence of an earlier connection, signed anew", "nonce", l.between(client, replay), attest.CodeReportData)
	strict := l.askNonce(demand(t, attest.LevelSession))
	if err := l.between(strict, relay); attest.CodeOf(err) != attest.CodeBindingTooWeak {
		t.Errorf("a policy that demands the session: %v", err)
	}
}

// relaySession stands between client and TEE with a TLS session on either side, under the same key. What the TEE says is for
// the attacker's session; the attacker makes of it what he can.
func (g *tee) relaySession(variant string) func(victim net.Conn) {
	return func(victim net.Conn) {
		up := g.reach(session.ALPN)
		defer up.Close()
		down := terminate(victim, tls.Certificate{Certificate: up.chain(), PrivateKey: g.leak()}, session.ALPN)
		if variant == verbatim {
			shuttle(down, up)
			return
		}
		greeting, asked := down.take(hello), down.take(request)
		question := asked
		if variant == ownChallenge {
			question = ask(ea.Client, random(), wish)
		}
		up.say(frame(hello, greeting), frame(request, question))
		answer := up.take(hello)
		chain, attestation := attestationOf(up.take(authenticator))
		down.say(frame(hello, answer), frame(authenticator, down.sign(ea.Server, asked, chain, g.leak(), wish, attestation)))
		down.drain()
	}
}

var sessionVariants = []struct {
	name string
	want attest.Code
}{{verbatim, attest.CodeAuthenticator}, {resigned, attest.CodeReportData}, {ownChallenge, attest.CodeReportData}}

// Level session. An authenticator that is passed on proves the key on the wrong connection. One that the attacker signs
// himself is right, and the evidence in it is not: the hardware signed the exporter of another connection.
func TestRelaySession(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	client := ratls.NewConnector(l.party(demand(t, attest.LevelSession)))
	if err := visit(client, g.dial()); err != nil {
		t.Fatalf("without an attacker: %v", err)
	}
	n := attempts(t)
	relays(t, "session", repeatedly(t, n, func(i int) (string, attest.Code, error) {
		v := sessionVariants[i%len(sessionVariants)]
		return v.name, v.want, l.between(func(raw net.Conn) error { return visit(client, raw) }, g.relaySession(v.name))
	}, "session"), n)
}

// crowd is a TEE whose sessions come in trees of a fixed size: the product's batcher, told that everybody may wait for company.
type crowd struct {
	*tee
	batcher *batch.Batcher
	own     *session.Own
}

func (c *crowd) Leaf() (*session.Own, error) { return c.own, nil }

// Quote is not asked for: the crowd shares its quotes.
func (c *crowd) Quote(context.Context, attest.ReportData) (*attest.Evidence, error) {
	return nil, errors.New("no quote for one alone")
}

func (c *crowd) Attest(ctx context.Context, peer string, leaf merkle.Hash, _ bool) (*cmw.Session, error) {
	t, err := c.batcher.Attest(ctx, peer, leaf, batch.Patient)
	if err != nil {
		return nil, err
	}
	return &cmw.Session{Evidence: t.Evidence, Config: config, Size: t.Size, Index: t.Index, Proof: t.Proof}, nil
}

func (c *crowd) handshake(raw net.Conn) {
	defer raw.Close()
	conn := tls.Server(raw, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: c.own.Chain, PrivateKey: c.own.Key}}, NextProtos: []string{session.ALPN},
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	})
	defer conn.Close()
	if conn.Handshake() != nil {
		return
	}
	s, err := session.Server(context.Background(), conn, "peer", nil, c, time.Now, session.Options{})
	if err != nil {
		return
	}
	_, _ = io.Copy(s, s)
	_ = s.Close()
}

// reachCrowd is a connection of the attacker's.
func (c *crowd) reach() net.Conn {
	a, b := c.pair()
	c.work.Go(func() { c.handshake(b) })
	return a
}

// Level session, many sessions in one tree. The attacker gets a true proof that his own leaf is in a tree which the hardware
// signed, and here even all the others' proofs, that of an honest session of the same client among them. None of the leaves
// is that of the client's connection to him.
func TestRelayBatched(t *testing.T) {
	const group = 20 // relays in one tree, beside one honest session
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	bare := g.own(true)
	c := &crowd{tee: g, own: &session.Own{Chain: bare.Certificate, Key: g.leak(), SPKI: spki(bare.Certificate[0])}}
	c.batcher = batch.New(g.attester, func(size uint64, root merkle.Hash) attest.ReportData {
		return session.ReportData(size, root, config)
	}, batch.Options{MaxBatch: group + 1, Patience: time.Hour})
	defer c.batcher.Close()
	client := ratls.NewConnector(l.party(demand(t, attest.LevelSession)))
	variants := []struct {
		name string
		want attest.Code
	}{{verbatim, attest.CodeAuthenticator}, {resigned, attest.CodeReportData}, {honestTwin, attest.CodeReportData}, {swappedProof, attest.CodeReportData}}

	hits, groups := 0, (attempts(t)+group-1)/group
	for range groups {
		var ready sync.WaitGroup
		ready.Add(group + 1)
		loot := make([][]byte, group+1)
		var honest error
		var done sync.WaitGroup
		done.Go(func() {
			conn, err := client.Handshake(context.Background(), c.reach(), name)
			if honest = err; err == nil {
				loot[group] = conn.Presented().Session.Attestation
				_ = conn.Close()
			}
			ready.Done()
		})
		outcomes := make([]error, group)
		for i := range group {
			variant := variants[i%len(variants)].name
			done.Go(func() {
				var once sync.Once
				defer once.Do(ready.Done)
				outcomes[i] = l.between(func(raw net.Conn) error { return visit(client, raw) }, func(victim net.Conn) {
					defer once.Do(ready.Done)
					up := join(c.reach(), session.ALPN)
					defer up.Close()
					down := terminate(victim, bare, session.ALPN)
					greeting, asked := down.take(hello), down.take(request)
					up.say(frame(hello, greeting), frame(request, asked))
					answer, given := up.take(hello), up.take(authenticator)
					chain, attestation := attestationOf(given)
					loot[i] = attestation
					once.Do(ready.Done)
					ready.Wait()
					own := unpack(attestation)
					if own.Size != group+1 {
						panic(gone{errOdd})
					}
					switch variant {
					case verbatim:
						down.say(frame(hello, answer), frame(authenticator, given))
						down.drain()
						return
					case honestTwin:
						attestation = loot[group]
					case swappedProof:
						other := unpack(loot[(i+1)%group])
						own.Index, own.Proof = other.Index, other.Proof
						attestation = repack(own)
					}
					down.say(frame(hello, answer), frame(authenticator, down.sign(ea.Server, asked, chain, g.leak(), wish, attestation)))
					down.drain()
				})
			})
		}
		done.Wait()
		if honest != nil {
			t.Fatalf("the honest session: %v", honest)
		}
		for i, err := range outcomes {
			v := variants[i%len(variants)]
			must(t, v.name, "batched", err, v.want)
			if err == nil {
				hits++
			}
		}
		if t.Failed() {
			break
		}
	}
	if s := c.batcher.Stats(); !t.Failed() && (s.Quotes != uint64(groups) || s.Largest != group+1) {
		t.Errorf("%d quotes, at most %d sessions in one", s.Quotes, s.Largest)
	}
	relays(t, "session, batched", hits, groups*group)
}

// past is what the attacker kept of a session of his own with the TEE, run by hand.
type past struct{ id, secret []byte }

func (g *tee) acquaintance() past {
	up := g.reach(session.ALPN)
	defer up.Close()
	up.say(helloOf(clientHello{}), frame(request, ask(ea.Client, random(), wish)))
	up.take(hello)
	up.take(authenticator)
	up.say(affirmation(), frame(end, nil))
	up.drain()
	raw := up.export("EXPORTER-jurat-reconnect", nil, 48)
	return past{id: raw[32:], secret: raw[:32]}
}

func (p past) mac(leaf merkle.Hash, asked []byte) (out [32]byte) {
	m := hmac.New(sha256.New, p.secret)
	m.Write([]byte("jurat-reconnect-1"))
	m.Write(leaf[:])
	m.Write(asked)
	return [32]byte(m.Sum(nil))
}

func proofOf(id []byte, mac [32]byte) []byte {
	raw, err := cmw.MarshalReconnect(&cmw.Reconnect{ID: [16]byte(id), MAC: mac})
	check(err)
	return frame(proof, raw)
}

// Level session, reconnecting. Client and TEE have met, and keep a secret that came out of the session. The client names that
// session to the attacker, who can name it to the TEE in turn and gets its proof: for the attacker's connection. With the
// secret of a session of his own the attacker can make a proof for the right connection: under the wrong secret.
func TestRelayReconnect(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	kept := session.NewStore(session.DefaultEntries, time.Now)
	g.serves(ratls.NewAcceptor(g.id).WithSession(session.Options{Store: kept}))
	rp := l.party(demand(t, attest.LevelSession))
	mine := g.acquaintance()
	variants := []string{verbatim, staleProof, foreignProof, renamedProof}
	relay := func(variant string) func(victim net.Conn) {
		return func(victim net.Conn) {
			up := g.reach(session.ALPN)
			defer up.Close()
			down := terminate(victim, tls.Certificate{Certificate: up.chain(), PrivateKey: g.leak()}, session.ALPN)
			if variant == verbatim {
				shuttle(down, up)
				return
			}
			var greeting clientHello
			down.takeHello(&greeting)
			asked := down.take(request)
			if len(greeting.Earlier) != 16 {
				panic(gone{errOdd}) // the honest session left nothing: the client's refusal will have another code
			}
			leaf := down.leaf(ea.Server, up.chain()[0], challengeOf(asked))
			var shown []byte
			switch variant {
			case staleProof:
				up.say(helloOf(greeting), frame(request, ask(ea.Client, random(), wish)))
				up.take(hello)
				shown = frame(proof, up.take(proof))
			case foreignProof:
				shown = proofOf(mine.id, mine.mac(leaf, asked))
			case renamedProof:
				shown = proofOf(greeting.Earlier, mine.mac(leaf, asked))
			}
			down.say(helloOf(serverHello{Earlier: true}), shown)
			down.drain()
		}
	}
	n := attempts(t)
	relays(t, "reconnect", repeatedly(t, n, func(i int) (string, attest.Code, error) {
		variant := variants[i%len(variants)]
		client := ratls.NewConnector(rp).WithSession(session.Options{Store: session.NewStore(1, time.Now)})
		if err := visit(client, g.dial()); err != nil {
			return "the honest session", attest.CodeReconnectProof, err
		}
		return variant, attest.CodeReconnectProof, l.between(func(raw net.Conn) error { return visit(client, raw) }, relay(variant))
	}, "reconnect"), n)

	// Without an attacker the same two ends do reconnect, and no quote is made.
	client := ratls.NewConnector(rp).WithSession(session.Options{Store: session.NewStore(1, time.Now)})
	for again := range 3 {
		before := g.id.Quotes().Quotes
		if err := visit(client, g.dial()); err != nil {
			t.Fatal(err)
		}
		if made := g.id.Quotes().Quotes - before; made != uint64(max(1-again, 0)) {
			t.Errorf("connection %d took %d quotes", again, made)
		}
	}
}

func newSNPMachine() (*sim.Platform, error) { return sim.New(sim.Config{}) }

// snpMachine is one machine for all tests that need no more: the keys of its vendor are slow to make.
var snpMachine = sync.OnceValues(newSNPMachine)

// The same relays with SEV-SNP: reports, certificates and lists as AMD writes them, verified by the code that verifies AMD's.
func TestRelaySNP(t *testing.T) {
	platform, err := snpMachine()
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	g := l.tee(platform, ratls.IdentityOptions{})
	party := func(level attest.Level) *ratls.RelyingParty {
		p := parse(t, fmt.Sprintf("policy: snp\nplatforms: {allow: [{vendor: sim, root: %q}]}\nworkload: {measurement: any, debug: off}\nbinding: %s\n", platform.Root(), level))
		return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, sim.NewVerifier([]string{platform.Root()})), p, time.Now)
	}
	strict, loose := ratls.NewConnector(party(attest.LevelSession)), ratls.NewConnector(party(attest.LevelKey))
	if err := visit(strict, g.dial()); err != nil {
		t.Fatalf("without an attacker: %v", err)
	}
	must(t, "SEV-SNP "+certificate, "key", l.between(func(raw net.Conn) error { return visit(loose, raw) }, g.relayCertificate), accepted)
	for range 3 {
		for _, v := range sessionVariants {
			must(t, "SEV-SNP "+v.name, "session", l.between(func(raw net.Conn) error { return visit(strict, raw) }, g.relaySession(v.name)), v.want)
		}
	}
}

// A client's evidence, relayed to a server that asks for it. The attacker has the client's leaked key, and a TEE of his own
// that the client affirms, or else the client would show him nothing. What the client then shows is for that connection.
func TestRelayOfClient(t *testing.T) {
	l := newLab(t)
	server, lure := l.tee(l.chip(t), ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{})
	victim := l.tee(l.chip(t), ratls.IdentityOptions{})
	rp := l.party(demand(t, attest.LevelSession))
	acceptor := ratls.NewMutualAcceptor(server.id, rp)
	client := ratls.NewMutualConnector(victim.id, rp)
	own := lure.own(true)
	for _, variant := range []struct {
		name string
		want attest.Code
	}{{verbatim, attest.CodeAuthenticator}, {resigned, attest.CodeReportData}} {
		refusal := l.asClient(acceptor, func(up *seat) {
			up.say(helloOf(clientHello{}), frame(request, ask(ea.Client, random(), wish)))
			up.take(hello)
			asked := up.take(request)
			up.take(authenticator)
			// The client is lured with the challenge of the server.
			err := l.between(func(raw net.Conn) error { return visit(client, raw) }, func(raw net.Conn) {
				down := terminate(raw, own, session.ALPN)
				down.take(hello)
				question := down.take(request)
				down.say(helloOf(serverHello{Asks: true}), frame(request, asked),
					frame(authenticator, down.sign(ea.Server, question, own.Certificate, lure.leak(), wish, lure.honest(down, own.Certificate[0], question))))
				given := down.take(authenticator)
				if variant.name == verbatim {
					up.say(frame(authenticator, given), affirmation())
				} else {
					chain, attestation := attestationOf(given)
					up.say(frame(authenticator, up.sign(ea.Client, asked, chain, victim.leak(), wish, attestation)), affirmation())
				}
				up.drain()
			})
			if err == nil {
				t.Error("the client was never told")
			}
		})
		must(t, "relay of a client's evidence: "+variant.name[len("relay: "):], "session", refusal, variant.want)
	}
}

// honest is evidence that the TEE makes for a connection of its own, in answer to a request there.
func (g *tee) honest(s *seat, der, request []byte) []byte {
	return g.signed(s.leaf(s.role, der, challengeOf(request)))
}

// signed is evidence over a leaf, alone in its tree.
func (g *tee) signed(leaf merkle.Hash) []byte { return carry(g.quote(1, leaf), 1, 0) }

func (g *tee) quote(size uint64, root merkle.Hash) *attest.Evidence {
	ev, err := g.attester.Attest(context.Background(), session.ReportData(size, root, config))
	check(err)
	return ev
}

// asClient plays a client's part by hand against a genuine server, and answers what the server made of it.
func (l *lab) asClient(a *ratls.Acceptor, play func(*seat)) error {
	return l.between(func(raw net.Conn) error {
		conn, err := a.Handshake(context.Background(), raw)
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err := io.ReadAll(conn)
		if err == nil && !bytes.Equal(got, []byte(secret)) && len(got) > 0 {
			err = fmt.Errorf("the server read %q", got)
		}
		return err
	}, func(raw net.Conn) {
		s := join(raw, session.ALPN)
		play(s)
		s.drain()
	})
}
