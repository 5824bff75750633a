package session_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/wiretap"
)

var soaked = flag.Int("soak", 300, "connections of TestSoak; make soak makes 20000")

// Ways in which a connection of the soak goes wrong.
const (
	honest = iota
	onWire // on the path: bytes of the transport
	inTLS  // with the traffic keys: frames inside TLS, between two ends that share one connection
	midway // with the leaf's key: an end of TLS of its own towards each end
	atEnds // at the ends: policy, attester, context
	allWays
)

var wayNames = [...]string{"honest", "transport", "frames, traffic keys known", "in the middle, leaf key known", "ends"}

// Faults.
const (
	none = iota
	cut
	corrupt
	stall
	drop // this and the rest: of frames alone
	double
	swap
	half
	insert
	faults
)

var faultNames = [...]string{"none", "cut", "corrupt", "stall", "drop", "double", "swap", "half", "insert"}

const (
	enough = 60 * time.Second       // for what goes well
	cutOff = 250 * time.Millisecond // for an exchange that a fault may keep from ending
)

// soak is what all connections share.
type soak struct {
	hw             *hardware
	appraiser      *attest.Appraiser
	server, client *prover
	stores         [2][2]*session.Store // by whether it is mutual; the client's and the server's

	mu    sync.Mutex
	count map[string]int
}

func (s *soak) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[what]++
}

// Whatever goes wrong at whatever step: nothing hangs or is left behind, and nobody accepts what was not sent.
func TestSoak(t *testing.T) {
	hw := newHardware(t)
	s := &soak{hw: hw, appraiser: attest.NewAppraiser(attest.NoEndorser{}, hw), server: newProver(t, hw), client: newProver(t, hw), count: map[string]int{}}
	for i := range s.stores {
		s.stores[i] = [2]*session.Store{session.NewStore(64, time.Now), session.NewStore(64, time.Now)}
	}
	goroutines, files := runtime.NumGoroutine(), descriptors()
	seed := rand.Uint64()
	begin := time.Now()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			for i := next.Add(1); i <= int64(*soaked) && !t.Failed(); i = next.Add(1) {
				m := &mishap{soak: s, T: t, l: l, r: rand.New(rand.NewPCG(seed, uint64(i))), id: fmt.Sprintf("connection %d of seed %d", i, seed)}
				hang := time.AfterFunc(2*enough, func() { panic(m.id + " hangs") })
				m.run()
				hang.Stop()
			}
		})
	}
	workers.Wait()
	for _, what := range slices.Sorted(maps.Keys(s.count)) {
		t.Logf("%6d %s", s.count[what], what)
	}
	t.Logf("%d connections in %s, %d quotes", *soaked, time.Since(begin).Round(time.Second), s.server.quotes.Load()+s.client.quotes.Load())
	for range 500 { // what was closed last may take a moment to go
		if runtime.NumGoroutine() <= goroutines && descriptors() <= files {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines and %d files left of %d and %d", runtime.NumGoroutine(), descriptors(), goroutines, files)
}

// descriptors are the open files of this process, where that can be known.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

// mishap is one connection.
type mishap struct {
	*soak
	*testing.T
	l  net.Listener
	r  *rand.Rand
	id string

	way             int
	fault           int
	towards         ea.Role // whom the fault meets
	at              int     // the frame, or the byte
	mutual, kept    bool
	clientVerify    *verifier
	serverVerify    *verifier
	clientProver    *noting
	serverProver    *noting
	clientC, servC  context.Context
	toClient, toSrv wiretap.Stream
	stop            chan struct{} // closed when nothing need be held back any more
}

// noting is a prover that notes what it made, and may go wrong.
type noting struct {
	*prover
	way  int
	made [][]byte
}

// Ways of an attester to go wrong.
const (
	failing   = 1
	hanging   = 2
	panicking = 3
)

var attesterNames = [...]string{failing: "failing", hanging: "hanging", panicking: "panicking"}

func (n *noting) Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error) {
	switch n.way {
	case failing:
		return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: "test"}
	case hanging:
		<-ctx.Done()
		return nil, ctx.Err()
	case panicking:
		panic("the attester")
	}
	s, err := n.prover.Attest(ctx, peer, leaf, patient)
	if err == nil {
		var raw []byte
		raw, err = cmw.MarshalSession(s)
		n.made = append(n.made, raw)
	}
	return s, err
}

// link is a connection over loopback.
func (m *mishap) link() (a, b net.Conn) {
	a, err := net.Dial("tcp", m.l.Addr().String())
	if err != nil {
		m.Error(err)
		runtime.Goexit()
	}
	if b, err = m.l.Accept(); err != nil {
		m.Error(err)
		runtime.Goexit()
	}
	return a, b
}

// run makes the connection, and judges what came of it.
func (m *mishap) run() {
	m.way, m.mutual, m.kept = m.r.IntN(allWays), m.r.IntN(2) == 0, m.r.IntN(2) == 0
	m.towards = ea.Client + ea.Role(m.r.IntN(2))
	m.stop = make(chan struct{})
	m.clientVerify = &verifier{appraiser: m.appraiser, now: time.Now, policy: accept}
	m.serverVerify = &verifier{appraiser: m.appraiser, now: time.Now, policy: accept}
	m.clientProver, m.serverProver = &noting{prover: m.client}, &noting{prover: m.server}
	span := enough
	switch m.way {
	case onWire:
		m.fault, m.at = cut+m.r.IntN(stall), m.r.IntN(4500)
	case inTLS, midway:
		m.fault, m.at = m.r.IntN(faults), m.r.IntN(m.frames(m.towards))
	}
	if m.fault != none {
		span = cutOff
	}
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	m.clientC, m.servC = ctx, ctx
	trouble := ""
	if m.way == atEnds {
		trouble = m.troubleAtEnds(ctx)
	}
	c, s := m.exchange()
	name := wayNames[m.way]
	if m.fault != none {
		name += ", " + faultNames[m.fault]
	}
	if trouble != "" {
		name += ", " + trouble
	}
	accepted := map[bool]string{true: "accepts", false: "refuses"}
	what := fmt.Sprintf("%s: client %s, server %s", name, accepted[c.err == nil], accepted[s.err == nil])
	m.note(what)
	m.judge(trouble, c, s)
	if m.Failed() {
		m.Logf("%s: %s; mutual %v, kept %v, towards %s at %d: %v, %v", m.id, what, m.mutual, m.kept, m.towards, m.at, c.err, s.err)
	}
}

// troubleAtEnds chooses one.
func (m *mishap) troubleAtEnds(ctx context.Context) string {
	p, v, c := m.serverProver, m.clientVerify, &m.servC
	if m.towards == ea.Client {
		p, v, c = m.clientProver, m.serverVerify, &m.clientC
	}
	kind := m.r.IntN(5)
	switch kind {
	case failing, hanging, panicking:
		p.way = kind
		if kind == hanging {
			short, cancel := context.WithTimeout(ctx, cutOff)
			context.AfterFunc(ctx, cancel)
			*c = short
		}
		return fmt.Sprintf("attester of the %s %s", m.towards, attesterNames[kind])
	case 4:
		short, cancel := context.WithTimeout(ctx, time.Duration(m.r.IntN(5000))*time.Microsecond)
		context.AfterFunc(ctx, cancel)
		*c = short
		return "context of the " + m.towards.String()
	default:
		v.policy = refuse
		return "policy about the " + m.towards.String()
	}
}

// frames that an end takes in an exchange.
func (m *mishap) frames(receiver ea.Role) int {
	switch {
	case m.mutual:
		return 4
	case receiver == ea.Client:
		return 2
	}
	return 3
}

// exchange runs both ends with whatever is between them.
func (m *mishap) exchange() (client, server outcome) {
	keys := new(wiretap.Keys)
	clientTLS := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{session.ALPN}, KeyLogWriter: keys}
	serverTLS := &tls.Config{Certificates: []tls.Certificate{m.server.tls}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{session.ALPN}, KeyLogWriter: keys}
	a, b := m.link()
	open := []net.Conn{a, b}
	var between sync.WaitGroup
	if m.way == onWire || m.way == inTLS || m.way == midway {
		near, far := b, net.Conn(nil)
		far, b = m.link()
		open = append(open, far, b)
		between.Go(func() { m.between(near, far, keys, clientTLS, serverTLS) })
	}
	var ends sync.WaitGroup
	var c, s *tls.Conn
	ends.Go(func() {
		c = tls.Client(a, clientTLS)
		if client.err = c.HandshakeContext(m.tlsContext(m.clientC)); client.err == nil {
			opts := session.Options{Protocols: []string{"h2", "http/1.1"}}
			if m.kept {
				opts.Store = m.stores[index(m.mutual)][0]
			}
			client.conn, client.err = session.Client(m.clientC, c, "a.example", m.clientVerify, m.clientProver, time.Now, opts)
		}
		if client.err != nil {
			_ = c.Close()
		}
	})
	ends.Go(func() {
		s = tls.Server(b, serverTLS)
		if server.err = s.HandshakeContext(m.tlsContext(m.servC)); server.err == nil {
			opts := session.Options{Protocols: []string{"h2", "http/1.1"}}
			if m.kept {
				opts.Store = m.stores[index(m.mutual)][1]
			}
			var v session.Verifier
			if m.mutual {
				v = m.serverVerify
			}
			server.conn, server.err = session.Server(m.servC, s, "peer", v, m.serverProver, time.Now, opts)
		}
		if server.err != nil {
			_ = s.Close()
		}
	})
	ends.Wait()
	close(m.stop)
	if m.way == honest && client.err == nil && server.err == nil {
		m.talk(client.conn, server.conn)
	}
	for _, o := range []outcome{client, server} {
		if o.err == nil {
			_ = o.conn.Close()
		}
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	between.Wait()
	return client, server
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tlsContext leaves the handshake all the time where faults come later.
func (m *mishap) tlsContext(ctx context.Context) context.Context {
	if m.way == onWire {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

func (m *mishap) talk(client, server *session.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		_, err := client.Write([]byte("ping"))
		if err == nil {
			err = client.CloseWrite()
		}
		if err != nil {
			m.Error(m.id, err)
		}
	})
	got, err := io.ReadAll(server)
	if err != nil || string(got) != "ping" {
		m.Errorf("%s: %q, %v", m.id, got, err)
	}
	both.Wait()
}

// between is whoever sits on the path.
func (m *mishap) between(near, far net.Conn, keys *wiretap.Keys, clientTLS, serverTLS *tls.Config) {
	cutOff := func() {
		_ = near.Close()
		_ = far.Close()
	}
	defer cutOff()
	m.toSrv.Change, m.toClient.Change = m.changes(ea.Server, cutOff), m.changes(ea.Client, cutOff)
	var pumps sync.WaitGroup
	defer pumps.Wait()
	switch m.way {
	case onWire:
		pumps.Go(func() { m.wire(near, far, ea.Server, cutOff) })
		m.wire(far, near, ea.Client, cutOff)
	case inTLS:
		pumps.Go(func() { m.toSrv.Records(near, far, keys, wiretap.FromClient) })
		m.toClient.Records(far, near, keys, wiretap.FromServer)
	case midway:
		clientTLS, serverTLS = clientTLS.Clone(), serverTLS.Clone()
		clientTLS.KeyLogWriter, serverTLS.KeyLogWriter = nil, nil
		toClient, toServer := tls.Server(near, serverTLS), tls.Client(far, clientTLS)
		if toClient.Handshake() != nil || toServer.Handshake() != nil {
			return
		}
		if m.r.IntN(2) == 0 {
			m.forge(toClient, toServer)
		}
		pumps.Go(func() { m.toSrv.Frames(toClient, toServer) })
		m.toClient.Frames(toServer, toClient)
	}
}

// wire passes bytes on to receiver, up to the fault.
func (m *mishap) wire(from, to net.Conn, receiver ea.Role, cutOff func()) {
	passed := 0
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		part := buf[:n]
		if i := m.at - passed; receiver == m.towards && i >= 0 && i < n {
			switch m.fault {
			case cut:
				_, _ = to.Write(part[:i])
				cutOff()
				return
			case corrupt:
				part[i] ^= 1 << m.r.IntN(8)
			case stall:
				_, _ = to.Write(part[:i])
				<-m.stop
				part = part[i:]
			}
		}
		passed += n
		if _, failed := to.Write(part); err != nil || failed != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// changes makes the fault among the frames to receiver.
func (m *mishap) changes(receiver ea.Role, cutOff func()) func(int, []byte) [][]byte {
	var held []byte
	return func(i int, f []byte) [][]byte {
		out := [][]byte{f}
		if held != nil {
			out, held = append(out, held), nil
		}
		if m.fault == none || receiver != m.towards || i != m.at {
			return out
		}
		switch m.fault {
		case cut:
			cutOff()
			return nil
		case corrupt:
			bad := bytes.Clone(f)
			bad[m.r.IntN(len(bad))] ^= 1 << m.r.IntN(8)
			return [][]byte{bad}
		case stall:
			<-m.stop
		case drop:
			return nil
		case double:
			return [][]byte{f, f}
		case swap:
			held = f
			return nil
		case half:
			return [][]byte{f[:len(f)/2]}
		case insert:
			return [][]byte{frame(m.r.IntN(8), make([]byte, m.r.IntN(40))), f}
		}
		return out
	}
}

// forge makes authenticators anew, with the key of the server's leaf, for the connection in which they are shown, and tells
// the server what it likes to hear. All that is lacking is evidence for that connection.
func (m *mishap) forge(toClient, toServer *tls.Conn) {
	here, err1 := ea.New(toClient.ConnectionState(), ea.DefaultExtension)
	there, err2 := ea.New(toServer.ConnectionState(), ea.DefaultExtension)
	if err1 != nil || err2 != nil {
		m.Error(err1, err2)
		return
	}
	var asked atomic.Pointer[[]byte]
	up, down := m.toSrv.Change, m.toClient.Change
	m.toSrv.Change = func(i int, f []byte) [][]byte {
		if f[0] == request {
			body := bytes.Clone(f[4:])
			asked.Store(&body)
		}
		if f[0] == verdict {
			f = frame(verdict, cbor(m.T, verdictBody{Affirmed: true}))
		}
		return up(i, f)
	}
	m.toClient.Change = func(i int, f []byte) [][]byte {
		if q := asked.Load(); f[0] == authenticator && q != nil {
			if shown, err := there.Validate(ea.Server, *q, f[4:]); err == nil {
				if raw, err := here.Authenticate(ea.Server, *q, shown.Chain, m.server.tls.PrivateKey.(crypto.Signer), shown.Attestation); err == nil {
					m.note("in the middle: an authenticator made anew")
					f = frame(authenticator, raw)
				}
			}
		}
		return down(i, f)
	}
}

// judge checks that nobody accepted what he must not.
func (m *mishap) judge(trouble string, c, s outcome) {
	affirmed := func(o outcome) bool { return o.err == nil && o.conn.Result().Affirmed() }
	if c.err == nil && !affirmed(c) || s.err == nil && m.mutual && !affirmed(s) {
		m.Errorf("%s: a connection without an affirmation", m.id)
	}
	for _, o := range []outcome{c, s} {
		var coded *attest.Error
		if o.err != nil && m.way != onWire && !errors.As(o.err, &coded) {
			m.Errorf("%s: an error without a code: %v", m.id, o.err)
		}
	}
	for _, e := range []struct {
		outcome
		other *noting
	}{{c, m.serverProver}, {s, m.clientProver}} {
		if !affirmed(e.outcome) || e.conn.Result().Reconnected() {
			continue
		}
		if !slices.ContainsFunc(e.other.made, func(raw []byte) bool { return bytes.Equal(raw, e.conn.Presented().Attestation) }) {
			m.Errorf("%s: accepted what the other end did not make", m.id)
		}
	}
	switch m.way {
	case honest:
		if c.err != nil || s.err != nil {
			m.Errorf("%s: %v, %v", m.id, c.err, s.err)
		}
		if affirmed(c) && c.conn.Result().Reconnected() {
			m.note("honest: without a quote")
		}
	case inTLS:
		if m.fault == none && (c.err != nil || s.err != nil) {
			m.Errorf("%s: %v, %v", m.id, c.err, s.err)
		}
		if c.err == nil {
			m.whole(&m.toClient, ea.Client)
		}
		if s.err == nil {
			m.whole(&m.toSrv, ea.Server)
		}
	case midway:
		if affirmed(c) || affirmed(s) {
			m.Errorf("%s: accepted with somebody in the middle", m.id)
		}
		if attest.CodeOf(c.err) == attest.CodeReportData {
			m.note("in the middle: refused for the connection that the hardware signed")
		}
	case atEnds:
		m.judgeEnds(trouble, c, s)
	}
}

func (m *mishap) judgeEnds(trouble string, c, s outcome) {
	switch {
	case trouble == "policy about the server" && c.err == nil, trouble == "policy about the client" && m.mutual && s.err == nil:
		m.Errorf("%s: accepted against the policy", m.id)
	case strings.HasPrefix(trouble, "attester") && m.towards == ea.Server && c.err == nil && !c.conn.Result().Reconnected(),
		strings.HasPrefix(trouble, "attester") && m.towards == ea.Client && m.mutual && s.err == nil && !s.conn.Result().Reconnected():
		m.Errorf("%s: accepted without evidence", m.id)
	}
}

// whole checks that receiver, which accepted, got the frames of its exchange as they were sent. A hello may have changed
// where the keys of TLS are known: it says nothing that is attested.
func (m *mishap) whole(stream *wiretap.Stream, receiver ea.Role) {
	n := m.frames(receiver)
	if len(stream.Sent) < n {
		m.Errorf("%s: accepted after %d frames of %d", m.id, len(stream.Sent), n)
		return
	}
	sent, got := slices.Concat(stream.Sent[:n]...), slices.Concat(stream.Passed...)
	if m.fault == corrupt && m.at == 0 && receiver == m.towards {
		m.note("frames, traffic keys known: accepted with another hello")
		skip := len(stream.Sent[0])
		sent, got = sent[skip:], got[skip:]
	}
	if !bytes.HasPrefix(got, sent) {
		m.Errorf("%s: accepted other frames than were sent", m.id)
	}
}
