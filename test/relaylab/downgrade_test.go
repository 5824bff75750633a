package relaylab

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

// rewriting is a wire on which somebody changes the ClientHello in passing.
type rewriting struct {
	net.Conn
	edit func(extension uint16, value []byte) (uint16, []byte)
	more []byte // extensions to add
	then []byte // records to send behind it
	done bool
}

func (r *rewriting) Write(p []byte) (int, error) {
	if r.done {
		return r.Conn.Write(p)
	}
	r.done = true
	changed, err := r.rewrite(p)
	if err != nil {
		return 0, err
	}
	if _, err := r.Conn.Write(append(changed, r.then...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite is what a tls.Conn may look for.
func (r *rewriting) CloseWrite() error { return r.Conn.(*net.UnixConn).CloseWrite() }

func (r *rewriting) rewrite(record []byte) ([]byte, error) {
	s := cryptobyte.String(record)
	var kind, message uint8
	var version, legacy uint16
	var fragment, body, id, suites, compressions, extensions cryptobyte.String
	var random []byte
	if !s.ReadUint8(&kind) || !s.ReadUint16(&version) || !s.ReadUint16LengthPrefixed(&fragment) || !fragment.ReadUint8(&message) || !fragment.ReadUint24LengthPrefixed(&body) ||
		!body.ReadUint16(&legacy) || !body.ReadBytes(&random, 32) || !body.ReadUint8LengthPrefixed(&id) || !body.ReadUint16LengthPrefixed(&suites) ||
		!body.ReadUint8LengthPrefixed(&compressions) || !body.ReadUint16LengthPrefixed(&extensions) || kind != 22 || message != 1 {
		return nil, fmt.Errorf("%.20x is no ClientHello", record)
	}
	var b cryptobyte.Builder
	b.AddUint8(22)
	b.AddUint16(version)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(1)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(legacy)
			b.AddBytes(random)
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(id) })
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(suites) })
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(compressions) })
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for !extensions.Empty() {
					var number uint16
					var value cryptobyte.String
					if !extensions.ReadUint16(&number) || !extensions.ReadUint16LengthPrefixed(&value) {
						panic("no extension")
					}
					to, changed := number, []byte(value)
					if r.edit != nil {
						to, changed = r.edit(number, value)
					}
					b.AddUint16(to)
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(changed) })
				}
				b.AddBytes(r.more)
			})
		})
	})
	return b.Bytes()
}

const extensionALPN = 16

// A middlebox without any key changes what the client offers, so that the server falls back to the certificate tier. What was
// offered is part of what both ends sign: neither gets as far as to judge the other, not even under a policy that accepts keys.
func TestMiddlebox(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	for _, c := range []struct {
		what string
		edit func(uint16, []byte) (uint16, []byte)
	}{
		{"downgrade: a middlebox takes jurat/1 out of the offer", func(n uint16, v []byte) (uint16, []byte) {
			if n == extensionALPN {
				v = bytes.Replace(v, []byte(session.ALPN), []byte("jurat/0"), 1)
			}
			return n, v
		}},
		{"downgrade: a middlebox takes the offer out", func(n uint16, v []byte) (uint16, []byte) {
			if n == extensionALPN {
				n = 0x5a5a // of those that servers have to ignore
			}
			return n, v
		}},
		{"downgrade: a middlebox takes TLS 1.3 out of the offer", func(n uint16, v []byte) (uint16, []byte) {
			if n == 43 {
				v = []byte{2, 3, 3}
			}
			return n, v
		}},
		{"control: a middlebox that changes nothing", func(n uint16, v []byte) (uint16, []byte) { return n, v }},
	} {
		what, edit := c.what, c.edit
		for _, level := range []attest.Level{attest.LevelKey, attest.LevelSession} {
			client := ratls.NewConnector(l.party(demand(t, level)), "http/1.1")
			a, b := l.pair()
			var served atomic.Int64
			var atServer error
			l.work.Go(func() {
				defer b.Close()
				conn, err := ratls.NewAcceptor(g.id, "http/1.1").Handshake(context.Background(), b)
				if atServer = err; err != nil {
					return
				}
				defer conn.Close()
				n, _ := io.Copy(io.Discard, conn)
				served.Add(n)
				_, _ = io.WriteString(conn, secret)
			})
			err := visit(client, &rewriting{Conn: a, edit: edit})
			_ = a.Close()
			l.work.Wait()
			if strings.HasPrefix(what, "control") {
				must(t, what, string(level), err, accepted)
				continue
			}
			must(t, what, string(level), err, attest.CodeHandshake)
			if atServer == nil || served.Load() != 0 {
				t.Errorf("%s at level %s: the server has %v and %d bytes", what, level, atServer, served.Load())
			}
		}
	}
}

// A server that is the attacker's, with the leaked key and the leaf in which the evidence is, does not take up the session
// tier. It is met as a server of the certificate tier: a policy that demands the session refuses before a byte was sent.
func TestDowngradingServer(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	full := g.own(false)
	plain := *full.Leaf
	plain.ExtraExtensions, plain.Extensions = nil, nil
	fresh := key(t)
	reissue := func(change func(*x509.Certificate), signer any) tls.Certificate {
		template := *full.Leaf
		template.ExtraExtensions = slices.DeleteFunc(slices.Clone(full.Leaf.Extensions), func(e pkix.Extension) bool { return !isEvidence(e) })
		change(&template)
		return certify(t, &template, signer)
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		key    attest.Code // at level key
		strict attest.Code // at level session
	}{
		{"downgrade: the server picks http/1.1", &tls.Config{Certificates: []tls.Certificate{full}, NextProtos: []string{"http/1.1"}}, accepted, attest.CodeBindingTooWeak},
		{"downgrade: the server picks nothing", &tls.Config{Certificates: []tls.Certificate{full}}, accepted, attest.CodeBindingTooWeak},
		{"downgrade: the server knows TLS 1.2 only", &tls.Config{Certificates: []tls.Certificate{full}, MaxVersion: tls.VersionTLS12}, attest.CodeHandshake, attest.CodeHandshake},
		{"strip: a leaf without evidence", &tls.Config{Certificates: []tls.Certificate{g.own(true)}}, attest.CodeNoEvidence, attest.CodeNoEvidence},
		{"strip: an ordinary certificate", &tls.Config{Certificates: []tls.Certificate{certify(t, &plain, fresh)}}, attest.CodeNoEvidence, attest.CodeNoEvidence},
		{"stale: the evidence in a leaf of another key", &tls.Config{Certificates: []tls.Certificate{reissue(func(*x509.Certificate) {}, fresh)}}, attest.CodeReportData, attest.CodeReportData},
		{"stale: the evidence in a leaf that lives longer", &tls.Config{Certificates: []tls.Certificate{reissue(func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }, g.leak())}}, attest.CodeReportData, attest.CodeReportData},
		{"stale: the evidence in a leaf that is younger", &tls.Config{Certificates: []tls.Certificate{reissue(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Second) }, g.leak())}}, attest.CodeReportData, attest.CodeReportData},
		{"stale: the evidence in a leaf with one more name", &tls.Config{Certificates: []tls.Certificate{reissue(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "more.example") }, g.leak())}}, attest.CodeReportData, attest.CodeReportData},
	} {
		t.Run(c.name, func(t *testing.T) {
			for level, want := range map[attest.Level]attest.Code{attest.LevelKey: c.key, attest.LevelSession: c.strict} {
				client := ratls.NewConnector(l.party(demand(t, level)), "http/1.1")
				var told []byte
				err := l.between(func(raw net.Conn) error { return visit(client, raw) }, func(raw net.Conn) {
					conn := tls.Server(raw, c.config)
					told, _ = io.ReadAll(conn)
					_, _ = conn.Write(told)
					_ = conn.CloseWrite()
				})
				must(t, c.name, string(level), err, want)
				if (len(told) > 0) != (want == accepted) {
					t.Errorf("level %s: the attacker was told %q", level, told)
				}
			}
		})
	}
	const unoffered = "downgrade: the server picks what was not offered"
	t.Run(unoffered, func(t *testing.T) {
		client := ratls.NewConnector(l.party(demand(t, attest.LevelKey)))
		a, b := l.pair()
		// crypto/tls picks only what is offered, so the offer is changed on the way as well.
		l.work.Go(func() {
			defer b.Close()
			_ = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{full}, NextProtos: []string{"jurat/0"}}).Handshake()
		})
		must(t, unoffered, "key", visit(client, &rewriting{Conn: a, edit: func(n uint16, v []byte) (uint16, []byte) {
			return n, bytes.Replace(v, []byte(session.ALPN), []byte("jurat/0"), 1)
		}}), attest.CodeHandshake)
		_ = a.Close()
		l.work.Wait()
	})
}

// certify makes a certificate of template, self-signed with a key that the attacker has.
func certify(t testing.TB, template *x509.Certificate, signer any) tls.Certificate {
	t.Helper()
	public := signer.(interface{ Public() crypto.PublicKey }).Public()
	template.SerialNumber, template.PublicKey = big.NewInt(7), nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signer}
}

// The same from the other side: a client that has no session tier, or no TLS 1.3, at a server that demands it.
func TestDowngradingClient(t *testing.T) {
	l := newLab(t)
	g, other := l.tee(l.chip(t), ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{})
	mine := other.own(false)
	for _, c := range []struct {
		name        string
		config      *tls.Config
		key, strict attest.Code
	}{
		{"downgrade: a client without jurat/1", &tls.Config{Certificates: []tls.Certificate{mine}}, accepted, attest.CodeBindingTooWeak},
		{"downgrade: a client with TLS 1.2 only", &tls.Config{Certificates: []tls.Certificate{mine}, MaxVersion: tls.VersionTLS12}, attest.CodeHandshake, attest.CodeHandshake},
		{"strip: a client without a certificate", &tls.Config{}, attest.CodeNoEvidence, attest.CodeNoEvidence},
		{"strip: a client's leaf without evidence", &tls.Config{Certificates: []tls.Certificate{other.own(true)}}, attest.CodeNoEvidence, attest.CodeNoEvidence},
	} {
		t.Run(c.name, func(t *testing.T) {
			for level, want := range map[attest.Level]attest.Code{attest.LevelKey: c.key, attest.LevelSession: c.strict} {
				acceptor := ratls.NewMutualAcceptor(g.id, l.party(demand(t, level)))
				config := c.config.Clone()
				config.InsecureSkipVerify, config.ServerName = true, name
				err := l.between(func(raw net.Conn) error {
					conn, err := acceptor.Handshake(context.Background(), raw)
					if err != nil {
						return err
					}
					return conn.Close()
				}, func(raw net.Conn) {
					conn := tls.Client(raw, config)
					if conn.Handshake() == nil {
						_, _ = io.WriteString(conn, secret)
						_, _ = io.Copy(io.Discard, conn)
					}
				})
				must(t, c.name, string(level), err, want)
			}
		})
	}
}

// tickets is a client's cache that remembers what it was given.
type tickets struct {
	tls.ClientSessionCache
	got atomic.Int64
}

func (b *tickets) Put(name string, s *tls.ClientSessionState) {
	if s != nil {
		b.got.Add(1)
	}
	b.ClientSessionCache.Put(name, s)
}

func newTickets() *tickets { return &tickets{ClientSessionCache: tls.NewLRUClientSessionCache(4)} }

// Resumption skips the certificate, and so the evidence in it. A server that gives tickets out all the same is asked for
// evidence on every connection; a client that is made to keep one refuses the connection that it opens.
func TestResumption(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	own := g.stolen()
	// One configuration for all connections: it holds the key of the tickets.
	generous := &tls.Config{Certificates: []tls.Certificate{tlsOf(own)}, NextProtos: []string{session.ALPN}}
	client := ratls.NewConnector(l.party(demand(t, attest.LevelSession)))
	for i, c := range []struct {
		evidence func(*stage) []byte
		want     attest.Code
	}{
		{func(s *stage) []byte { return g.signed(s.due()) }, accepted},
		{func(*stage) []byte { return g.record(random()).attestation }, attest.CodeReportData},
	} {
		err := l.between(func(raw net.Conn) error {
			conn, err := client.Handshake(context.Background(), raw, name)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = io.Copy(io.Discard, conn)
			return err
		}, func(raw net.Conn) {
			conn := tls.Server(raw, generous)
			check(conn.Handshake())
			s := &stage{seat: &seat{conn, ea.Server}, g: g, own: own}
			if conn.ConnectionState().DidResume {
				t.Error("the client came with a ticket")
			}
			s.take(hello)
			s.asked = s.take(request)
			s.say(helloOf(serverHello{}), s.show(c.evidence(s)))
			s.take(verdict)
			s.say(frame(end, nil))
			s.drain()
		})
		must(t, []string{"resumption: a server that gives tickets, the first time", "resumption: the second time, without evidence of its own"}[i], "session", err, c.want)
	}

	full := &tls.Config{Certificates: []tls.Certificate{g.own(false)}}
	box := newTickets()
	forced := ratls.ClientConfig(l.party(demand(t, attest.LevelKey)), name)
	forced.SessionTicketsDisabled, forced.ClientSessionCache = false, box
	for i, want := range []attest.Code{accepted, attest.CodeResumed} {
		err := l.between(func(raw net.Conn) error {
			conn := tls.Client(raw, forced)
			defer conn.Close()
			if err := conn.Handshake(); err != nil {
				return err
			}
			_, _ = io.WriteString(conn, secret)
			_, err := io.ReadFull(conn, make([]byte, len(secret))) // takes the ticket in
			return err
		}, func(raw net.Conn) {
			conn := tls.Server(raw, full)
			_, _ = io.CopyN(conn, conn, int64(len(secret)))
			_, _ = io.Copy(io.Discard, conn)
		})
		must(t, []string{"resumption: a client that keeps a ticket, the first time", "resumption: the connection that the ticket opens"}[i], "key", err, want)
	}
	if box.got.Load() == 0 {
		t.Error("there never was a ticket")
	}

	// The genuine server gives none, in either tier, to whoever would keep it.
	for level, protos := range map[string][]string{"key": nil, "session": {session.ALPN}} {
		box := newTickets()
		for range 2 {
			conn := tls.Client(g.dial(), &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protos, ClientSessionCache: box})
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			if conn.ConnectionState().DidResume {
				t.Errorf("level %s: the TEE resumed", level)
			}
			s := &seat{conn, ea.Client}
			if protos == nil {
				_, _ = io.WriteString(s, secret)
				_ = s.CloseWrite()
				_, _ = io.Copy(io.Discard, s)
			} else {
				s.say(helloOf(clientHello{}), frame(request, ask(ea.Client, random(), wish)))
				s.take(hello)
				s.take(authenticator)
				s.say(affirmation(), frame(end, nil))
				s.drain()
			}
			_ = s.Close()
		}
		if n := box.got.Load(); n != 0 {
			t.Errorf("level %s: the TEE gave %d tickets", level, n)
		}
	}
}

// Early data would be read before anything is proven. A client sends it uninvited; the server ends the handshake.
func TestEarlyData(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	early := append([]byte{23, 3, 3, 0, byte(len(secret))}, secret...)
	for level, protos := range map[string][]string{"key": nil, "session": {session.ALPN}} {
		err := l.between(func(raw net.Conn) error {
			conn, err := ratls.NewAcceptor(g.id).Handshake(context.Background(), raw)
			if err != nil {
				return err
			}
			defer conn.Close()
			got, err := io.ReadAll(conn)
			t.Errorf("level %s: the server read %q, %v", level, got, err)
			return nil
		}, func(raw net.Conn) {
			wire := &rewriting{Conn: raw, more: []byte{0, 42, 0, 0}, then: early}
			_ = tls.Client(wire, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protos}).Handshake()
		})
		must(t, "early data: sent behind the ClientHello", level, err, attest.CodeHandshake)
		if err != nil && !strings.Contains(err.Error(), "early data") {
			t.Errorf("level %s: %v", level, err)
		}
	}
}

// A leaf is renewed while its key is known to have leaked. The old leaf can be served on, at level key, until it expires; at
// level session that is of no use, and a secret that was kept for it is void.
func TestRotation(t *testing.T) {
	l := newLab(t)
	g := l.tee(l.chip(t), ratls.IdentityOptions{})
	theirs := session.NewStore(16, time.Now)
	g.serves(ratls.NewAcceptor(g.id).WithSession(session.Options{Store: theirs}))
	client := ratls.NewConnector(l.party(demand(t, attest.LevelSession))).WithSession(session.Options{Store: session.NewStore(4, time.Now)})
	if err := visit(client, g.dial()); err != nil {
		t.Fatal(err)
	}
	old, oldBare := g.own(false), g.stolen()
	if err := g.id.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}

	serve := func(raw net.Conn) { shuttleEcho(raw, old) }
	loose := func(now func() time.Time) *ratls.Connector {
		return ratls.NewConnector(ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, l.vendor), demand(t, attest.LevelKey), now))
	}
	must(t, "rotation: the old leaf, served on", "key", l.between(func(raw net.Conn) error { return visit(loose(time.Now), raw) }, serve), accepted)
	later := func() time.Time { return time.Now().Add(ratls.DefaultLifetime + time.Minute) }
	must(t, "rotation: the old leaf, once it has expired", "key", l.between(func(raw net.Conn) error { return visit(loose(later), raw) }, serve), attest.CodeLeafExpired)
	strict := ratls.NewConnector(l.party(demand(t, attest.LevelSession)))
	must(t, "rotation: the old leaf, served on", "session", l.between(func(raw net.Conn) error { return visit(strict, raw) }, serve), attest.CodeBindingTooWeak)

	// The client still offers its secret to the old key. The TEE, which has a new one, does not go along.
	before := g.id.Quotes().Quotes
	var offered, went bool
	must(t, "rotation: the old key, and the secret that was kept for it", "reconnect", l.between(func(raw net.Conn) error { return visit(client, raw) }, func(raw net.Conn) {
		down := terminate(raw, tlsOf(oldBare), session.ALPN)
		up := g.reach(session.ALPN)
		defer up.Close()
		var greeting clientHello
		down.takeHello(&greeting)
		offered = len(greeting.Earlier) > 0
		asked := down.take(request)
		up.say(helloOf(greeting), frame(request, asked))
		var answer serverHello
		up.takeHello(&answer)
		went = answer.Earlier
		_, attestation := attestationOf(up.take(authenticator))
		down.say(helloOf(serverHello{}), frame(authenticator, down.sign(ea.Server, asked, oldBare.chain, oldBare.key, wish, attestation)))
		down.drain()
	}), attest.CodeReportData)
	if !offered || went || g.id.Quotes().Quotes != before+1 {
		t.Errorf("offered %v, the TEE went along %v, %d quotes", offered, went, g.id.Quotes().Quotes-before)
	}
	// With the TEE itself the client starts anew, with evidence.
	before = g.id.Quotes().Quotes
	if err := visit(client, g.dial()); err != nil || g.id.Quotes().Quotes != before+1 {
		t.Errorf("%v, %d quotes", err, g.id.Quotes().Quotes-before)
	}
}

// shuttleEcho is a server of the certificate tier under a key that the attacker has.
func shuttleEcho(raw net.Conn, own tls.Certificate) {
	conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{own}})
	_, _ = io.Copy(conn, conn)
	_ = conn.CloseWrite()
}

// Diversion. The connection is led to another genuine machine, with the same software and the same name, which somebody else
// owns. All of its evidence is true, at any level. Only a policy that names the machines tells them apart.
func TestDiversion(t *testing.T) {
	l := newLab(t)
	ours, theirs := l.chip(t), l.chip(t)
	honest, elsewhere := l.tee(ours, ratls.IdentityOptions{}), l.tee(theirs, ratls.IdentityOptions{})
	for _, level := range []attest.Level{attest.LevelKey, attest.LevelSession} {
		anywhere := ratls.NewConnector(l.party(demand(t, level)))
		named := ratls.NewConnector(l.party(demand(t, level, ours)))
		if level == attest.LevelKey {
			anywhere, named = anywhere.CertificateOnly(), named.CertificateOnly()
		}
		if err := visit(named, honest.dial()); err != nil {
			t.Fatalf("the machine that is named: %v", err)
		}
		must(t, "diversion: to another genuine machine", string(level), visit(anywhere, elsewhere.dial()), accepted)
		must(t, "diversion: the same, and the policy names chips", string(level), visit(named, elsewhere.dial()), attest.CodePlatformNotAllowed)
	}

	// A secret that was kept for one machine is unknown to the other: it has to show evidence.
	kept := session.NewStore(4, time.Now)
	store := func(g *tee) {
		g.serves(ratls.NewAcceptor(g.id).WithSession(session.Options{Store: session.NewStore(4, time.Now)}))
	}
	store(honest)
	store(elsewhere)
	client := ratls.NewConnector(l.party(demand(t, attest.LevelSession, ours))).WithSession(session.Options{Store: kept})
	if err := visit(client, honest.dial()); err != nil {
		t.Fatal(err)
	}
	must(t, "diversion: the same, and the policy names chips", "reconnect", visit(client, elsewhere.dial()), attest.CodePlatformNotAllowed)
}

// The same with SEV-SNP, whose chip ids the policy names. Two simulated machines are under roots of their own, so the policy
// admits both roots, as it would AMD's one.
func TestDiversionSNP(t *testing.T) {
	l := newLab(t)
	var machines [2]*sim.Platform
	var chips [2]string
	roots := []string{}
	for i, make := range []func() (*sim.Platform, error){snpMachine, newSNPMachine} {
		p, err := make()
		if err != nil {
			t.Fatal(err)
		}
		machines[i] = p
		roots = append(roots, p.Root())
		ev, err := p.Attest(t.Context(), attest.ReportData{1})
		if err != nil {
			t.Fatal(err)
		}
		claims, err := sim.NewVerifier([]string{p.Root()}).Verify(t.Context(), ev, attest.NoEndorser{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		chips[i] = claims.ChipID.String()
	}
	if chips[0] == chips[1] {
		t.Fatal("two machines with one chip")
	}
	client := func(which string) *ratls.Connector {
		text := "policy: snp\nplatforms:\n  allow:\n"
		for _, root := range roots {
			text += fmt.Sprintf("    - {vendor: sim, root: %q%s}\n", root, which)
		}
		p := parse(t, text+"workload: {measurement: any, debug: off}\nbinding: session\n")
		return ratls.NewConnector(ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, sim.NewVerifier(roots)), p, time.Now))
	}
	ours, theirs := l.tee(machines[0], ratls.IdentityOptions{}), l.tee(machines[1], ratls.IdentityOptions{})
	named := client(", chip_ids: [" + chips[0] + "]")
	if err := visit(named, ours.dial()); err != nil {
		t.Fatalf("the machine that is named: %v", err)
	}
	must(t, "SEV-SNP diversion: to another genuine machine", "session", visit(client(""), theirs.dial()), accepted)
	must(t, "SEV-SNP diversion: the same, and the policy names chips", "session", visit(named, theirs.dial()), attest.CodeSimulated)
}
