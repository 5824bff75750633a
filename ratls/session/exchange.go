package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
)

// Options of an end that have a sensible absence.
type Options struct {
	Protocols []string      // of the application, best first; none leaves it open
	Profile   Profile       // what the hardware signs; both ends have to have the same
	Extension uint16        // codepoint of cmw_attestation; 0 means ea.DefaultExtension
	Store     *Store        // for reconnects without a quote; nil for none
	Reattest  time.Duration // how often the other end has to attest anew while the connection is open; 0 for never
	Answer    time.Duration // how long it may take for that; 0 means as long as Reattest, and at least 10 s
	// Pace is Reattest where that may change while connections are open; nil for Reattest. It is asked whenever a time is set,
	// and when Conn.Settle is called.
	Pace func() time.Duration
	// Epoch grows with what this end demands of peers: what the Store has of an earlier one is void. nil where it never does.
	Epoch func() uint64
	// OnReattest is called after each of those, with an affirmed Result or with the one that closes the connection.
	OnReattest func(*attest.Result)
}

// pace is how often the other end has to attest anew; 0 for never.
func (o *Options) pace() time.Duration {
	if o.Pace != nil {
		return o.Pace()
	}
	return o.Reattest
}

func (o *Options) epoch() uint64 {
	if o.Epoch != nil {
		return o.Epoch()
	}
	return 0
}

// Refused is the error of an exchange in which the other end was appraised and not affirmed.
type Refused struct {
	Result    *attest.Result
	Presented *Presented
}

func (r *Refused) Error() string { return r.Result.Err().Error() }

// Unwrap gives the *attest.Error of the first failing check.
func (r *Refused) Unwrap() error { return r.Result.Err() }

// end is one end of an exchange under way.
type end struct {
	*Conn
	epoch uint64        // at the beginning: before anything was judged
	told  bool          // the other end has said why it gave up: it need not be told
	next  chan struct{} // closed when the header of the next frame is there; nil when nobody waits for it
}

// Client runs the client's part on a connection whose handshake agreed on ALPN, and answers once the server was affirmed by
// verifier, and this end by the server where it asks. prover may be nil: a server that asks then refuses. name is that of
// the server. now is the clock of this end. The caller closes conn on an error, which is an *attest.Error or a *Refused.
func Client(ctx context.Context, conn *tls.Conn, name string, verifier Verifier, prover Prover, now func() time.Time, opts Options) (*Conn, error) {
	e, err := begin(ea.Client, conn, verifier, prover, now, opts)
	if err != nil {
		return nil, err
	}
	return e.run(ctx, name, e.client)
}

// Server runs the server's part. verifier may be nil: the client is then not asked for evidence. peer names the client for
// fairness among those that wait for quotes.
func Server(ctx context.Context, conn *tls.Conn, peer string, verifier Verifier, prover Prover, now func() time.Time, opts Options) (*Conn, error) {
	e, err := begin(ea.Server, conn, verifier, prover, now, opts)
	if err != nil {
		return nil, err
	}
	return e.run(ctx, peer, e.server)
}

func begin(role ea.Role, conn *tls.Conn, verifier Verifier, prover Prover, now func() time.Time, opts Options) (*end, error) {
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != ALPN {
		return nil, malformed(fmt.Sprintf("ALPN protocol %.40q", state.NegotiatedProtocol), nil)
	}
	if opts.Extension == 0 {
		opts.Extension = ea.DefaultExtension
	}
	if opts.Answer <= 0 {
		opts.Answer = max(opts.pace(), 10*time.Second)
	}
	auth, err := ea.New(state, opts.Extension)
	if err != nil {
		return nil, malformed("a connection without authenticators", err)
	}
	if !opts.Profile.Valid() {
		return nil, malformed(fmt.Sprintf("profile %.40q", opts.Profile), nil)
	}
	if role == ea.Client && (verifier == nil || len(state.PeerCertificates) == 0) || role == ea.Server && prover == nil {
		return nil, &attest.Error{Code: attest.CodeNoExpectation, Check: "binding.session"}
	}
	life, cancel := context.WithCancel(context.Background())
	return &end{epoch: opts.epoch(), Conn: &Conn{
		tls: conn, state: state, role: role, auth: auth, verifier: verifier, prover: prover, now: now, opts: opts,
		in: reader{src: conn}, failing: make(chan struct{}), life: life, cancel: cancel,
	}}, nil
}

// run bounds an exchange by ctx.
func (e *end) run(ctx context.Context, name string, part func(context.Context) error) (*Conn, error) {
	e.peer = name
	stop := context.AfterFunc(ctx, func() { _ = e.tls.SetDeadline(time.Unix(1, 0)) })
	err := part(ctx)
	if !stop() && err == nil {
		err = ctx.Err() // the deadline stays on the connection
	}
	if err != nil {
		e.cancel()
		err = explain(ctx, err)
		if !e.told && ctx.Err() == nil {
			_ = e.tls.SetWriteDeadline(time.Now().Add(farewell))
			e.send(frame(nil, kindVerdict, encode(verdict{Code: string(attest.CodeOf(err))})))
		}
		return nil, err
	}
	e.arm()
	return e.Conn, nil
}

// farewell is the time for telling the other end why.
const farewell = time.Second

// explain gives what went wrong on the transport below an exchange its code.
func explain(ctx context.Context, err error) error {
	var coded *attest.Error
	switch {
	case errors.As(err, &coded):
		return err
	case ctx.Err() != nil:
		return malformed("the exchange was not over in time", ctx.Err())
	case errors.Is(err, io.EOF):
		return malformed("the peer closed the connection", nil)
	default:
		return malformed("the connection broke", err)
	}
}

// question is the one open request of this end.
type question struct {
	raw                 []byte
	challenge, exporter [ChallengeSize]byte
	asked               time.Time
}

func (c *Conn) ask() (*question, error) {
	q := &question{asked: c.now()}
	_, _ = rand.Read(q.challenge[:]) // never fails
	var failed, unbound error
	q.raw, failed = c.auth.Request(c.role, q.challenge)
	q.exporter, unbound = c.exporter(c.role.Other(), q.challenge)
	if err := errors.Join(failed, unbound); err != nil {
		return nil, malformed("no request", err)
	}
	return q, nil
}

// exporter is the connection's value for what sender proves.
func (c *Conn) exporter(sender ea.Role, challenge [ChallengeSize]byte) (out [ChallengeSize]byte, err error) {
	raw, err := c.auth.Export(c.opts.Profile.label(sender), challenge[:], ChallengeSize)
	copy(out[:], raw)
	return out, err
}

// client is the client's part.
func (e *end) client(ctx context.Context) error {
	past := e.offer()
	q, err := e.ask()
	if err != nil {
		return err
	}
	hello := clientHello{Protocols: e.opts.Protocols}
	if past != nil {
		hello.Earlier = past.id[:]
	}
	e.send(frame(frame(nil, kindHello, encode(hello)), kindRequest, q.raw))
	var answer serverHello
	if err := e.receive(kindHello, &answer); err != nil {
		return err
	}
	if answer.Protocol == "" != (len(e.opts.Protocols) == 0) || answer.Protocol != "" && !slices.Contains(e.opts.Protocols, answer.Protocol) {
		return malformed(fmt.Sprintf("protocol %.40q, which was not on offer", answer.Protocol), nil)
	}
	if answer.Earlier && past == nil {
		return malformed("an earlier session that was not on offer", nil)
	}
	if !answer.Earlier {
		past = nil
	}
	e.protocol = answer.Protocol
	var own *due
	if answer.Asks {
		asked, err := e.request()
		if err != nil {
			return err
		}
		if e.prover == nil {
			e.told = true
			e.send(frame(nil, kindVerdict, encode(verdict{Code: string(attest.CodeNoEvidence)})))
			return &attest.Error{Code: attest.CodePeerRefused, Check: "binding.session", Got: "a server that asks for evidence, and we have none"}
		}
		if past != nil && past.client == [32]byte{} {
			return malformed("an earlier session in which we were not asked", nil)
		}
		// Our own quote is made while the server's is. It is shown only to a server that was affirmed.
		own = e.prepare(ctx, asked, past)
		defer own.drop()
	}
	if err := e.judge(ctx, ea.Server, q, past); err != nil {
		return err
	}
	var out []byte
	if own != nil {
		k, body, err := own.wait()
		if err != nil {
			return err
		}
		out = frame(out, k, body)
	}
	e.send(frame(out, kindVerdict, encode(verdict{Affirmed: true})))
	if own != nil {
		if err := e.accepted(); err != nil {
			return err
		}
	}
	return e.keep(past)
}

// server is the server's part.
func (e *end) server(ctx context.Context) error {
	var hello clientHello
	if err := e.receive(kindHello, &hello); err != nil {
		return err
	}
	var q *question
	if e.verifier != nil {
		var err error
		if q, err = e.ask(); err != nil {
			return err
		}
	}
	asked, err := e.request()
	if err != nil {
		return err
	}
	protocol, err := choose(hello.Protocols, e.opts.Protocols)
	if err != nil {
		return err
	}
	past := e.resume(hello.Earlier)
	e.protocol = protocol
	answer := frame(nil, kindHello, encode(serverHello{Protocol: protocol, Earlier: past != nil, Asks: e.verifier != nil}))
	if q != nil {
		answer = frame(answer, kindRequest, q.raw)
	}
	// A client that has gone must not cost a quote, so its next frame is waited for while ours is made. One that is to show
	// evidence as well is told at once, so that its quote is made meanwhile; any other gets all in one flight.
	quoting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	own := e.prepare(quoting, asked, past)
	defer own.drop()
	if past == nil {
		if e.verifier != nil { // the client can make its quote meanwhile
			e.send(answer)
			answer = nil
		}
		e.ahead(cancel)
	}
	k, body, err := own.wait()
	if err != nil && ctx.Err() == nil && quoting.Err() != nil {
		return e.reason(context.Cause(quoting))
	}
	if err != nil {
		return err
	}
	e.send(frame(answer, k, body))
	if e.verifier != nil {
		if err := e.judge(ctx, ea.Client, q, past); err != nil {
			return err
		}
	}
	if err := e.accepted(); err != nil {
		return err
	}
	if e.verifier != nil {
		e.send(frame(nil, kindVerdict, encode(verdict{Affirmed: true})))
	}
	return e.keep(past)
}

// choose picks the server's favourite among what the client offers.
func choose(offered, ours []string) (string, error) {
	if len(offered) == 0 {
		return "", nil
	}
	for _, p := range offered {
		if p == "" {
			return "", malformed("a protocol without a name", nil)
		}
	}
	if len(ours) == 0 {
		return offered[0], nil
	}
	for _, p := range ours {
		if slices.Contains(offered, p) {
			return p, nil
		}
	}
	return "", &attest.Error{Code: attest.CodeHandshake, Check: "binding.session", Got: fmt.Sprintf("protocols %.100q", offered), Want: strings.Join(ours, " or ")}
}

// due is what this end will show, in the making.
type due struct {
	done   chan struct{}
	cancel context.CancelFunc
	kind   kind
	body   []byte
	err    error
}

// prepare begins to answer a request, with evidence or with a proof of an earlier session.
func (e *end) prepare(ctx context.Context, asked *demand, past *earlier) *due {
	ctx, cancel := context.WithCancel(ctx)
	d := &due{done: make(chan struct{}), cancel: cancel}
	if past != nil {
		d.kind = kindProof
		d.body, d.err = e.prove(asked, past)
		close(d.done)
		return d
	}
	go func() {
		defer close(d.done)
		defer func() {
			if p := recover(); p != nil {
				d.err = &attest.Error{Code: attest.CodeInternal, Check: "binding.session", Err: fmt.Errorf("panic: %v", p)}
			}
		}()
		d.kind = kindAuthenticator
		d.body, d.err = e.authenticate(ctx, asked, false)
	}()
	return d
}

func (d *due) wait() (kind, []byte, error) {
	<-d.done
	return d.kind, d.body, d.err
}

// drop ends what is not wanted any more, and waits: nothing goes on behind the back of an exchange that is over.
func (d *due) drop() {
	d.cancel()
	<-d.done
}

// authenticate answers a request with evidence for this connection.
func (c *Conn) authenticate(ctx context.Context, asked *demand, patient bool) ([]byte, error) {
	own, err := c.prover.Leaf()
	if err != nil {
		return nil, err
	}
	raw, err := c.evidence(ctx, own, asked, patient)
	if err != nil {
		return nil, err
	}
	authenticator, err := c.auth.Authenticate(c.role, asked.raw, own.Chain, own.Key, raw)
	if err != nil {
		return nil, malformed("no authenticator", err)
	}
	c.own.Store(own)
	return authenticator, nil
}

// evidence obtains what the hardware signs for this connection, as a CMW record.
func (c *Conn) evidence(ctx context.Context, own *Own, asked *demand, patient bool) ([]byte, error) {
	if c.opts.Profile == ProfileExpat {
		ev, err := c.prover.Quote(ctx, Binder(c.state.CipherSuite, own.DER, asked.exporter))
		if err != nil {
			return nil, err
		}
		return cmw.MarshalRecord(ev, [32]byte{})
	}
	s, err := c.prover.Attest(ctx, c.peer, Leaf(c.role, own.SPKI, asked.challenge, asked.exporter), patient)
	if err != nil {
		return nil, err
	}
	return cmw.MarshalSession(s)
}

// prove answers a request with a proof of an earlier session.
func (c *Conn) prove(asked *demand, past *earlier) ([]byte, error) {
	leaf := past.leaf(c.role, asked.challenge, asked.exporter)
	return cmw.MarshalReconnect(&cmw.Reconnect{ID: past.id, MAC: past.proof(leaf, asked.raw)})
}

// judge reads what sender shows in answer to q and judges it.
func (e *end) judge(ctx context.Context, sender ea.Role, q *question, past *earlier) error {
	if past != nil {
		return e.judgeProof(sender, q, past)
	}
	raw, err := e.take(kindAuthenticator)
	if err != nil {
		return err
	}
	return e.appraise(ctx, sender, q, raw)
}

// appraise judges an authenticator that answers q, and keeps the Result if it affirms.
func (c *Conn) appraise(ctx context.Context, sender ea.Role, q *question, raw []byte) error {
	p, err := c.validate(sender, q, raw)
	if err != nil {
		return err
	}
	result := c.verifier.Appraise(ctx, p)
	if !result.Affirmed() {
		return &Refused{Result: result, Presented: p}
	}
	c.found.Store(&finding{result, p})
	return nil
}

// validate checks an authenticator of this connection: that sender holds the key of the leaf it shows, here, in answer to
// q. What the evidence says is another matter.
func (c *Conn) validate(sender ea.Role, q *question, raw []byte) (*Presented, error) {
	shown, err := c.auth.Validate(sender, q.raw, raw)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeAuthenticator, Check: "binding.authenticator", Err: err}
	}
	return &Presented{Profile: c.opts.Profile, Suite: c.state.CipherSuite, Sender: sender, Chain: shown.Chain, Attestation: shown.Attestation, Challenge: q.challenge, Exporter: q.exporter, Asked: q.asked, leaf: shown.Leaf}, nil
}

func (e *end) judgeProof(sender ea.Role, q *question, past *earlier) error {
	raw, err := e.take(kindProof)
	if err != nil {
		return err
	}
	_, proof, err := cmw.UnmarshalSession(raw)
	if proof == nil {
		return malformed("no proof of an earlier session", err)
	}
	leaf := past.leaf(sender, q.challenge, q.exporter)
	if proof.ID != past.id || !past.proves(leaf, q.raw, proof.MAC) {
		e.opts.Store.drop(past)
		return &attest.Error{Code: attest.CodeReconnectProof, Check: "binding.reconnect"}
	}
	result := e.verifier.Reconnect(past.found.result, past.found.presented)
	if past.epoch != e.opts.epoch() {
		// What this end demands has changed since the exchange began: with a revoked key, the policy is the same as before.
		result = attest.RefusedResult(&attest.Error{Code: attest.CodeReconnectRefused, Check: "binding.reconnect", Got: "a session from before a change of policy or endorsements", Want: "evidence"}, e.now())
	}
	if !result.Affirmed() {
		e.opts.Store.drop(past)
		return &Refused{Result: result, Presented: past.found.presented}
	}
	e.found.Store(&finding{result, past.found.presented})
	return nil
}

// accepted reads the other end's verdict on this one.
func (e *end) accepted() error {
	raw, err := e.take(kindVerdict)
	if err != nil {
		return err
	}
	var v verdict
	if err := decode(raw, &v); err != nil {
		return err
	}
	if v.Affirmed && v.Code == "" {
		return nil
	}
	e.told = true
	return v.refusal()
}

func (v verdict) refusal() error {
	if v.Affirmed {
		return malformed("an affirmation that nobody waits for", nil)
	}
	if v.Code == string(attest.CodeNoEvidence) {
		return &attest.Error{Code: attest.CodeNoEvidence, Check: "binding.session", Got: "a client that has none"}
	}
	return &attest.Error{Code: attest.CodePeerRefused, Check: "binding.session", Got: gaveUp(v.Code), Hint: "its log for the same moment says more"}
}

func gaveUp(code string) string { return "the peer gave up: " + codeText(code) }

// Stale reports whether an exchange has failed because one of the ends demands evidence where the other one proved a secret of an
// earlier session. Both agree on that before, so something has changed in between, and the next exchange will be one with evidence.
// The other end's word for it is good enough: it costs another attempt.
func Stale(err error) bool {
	switch attest.CodeOf(err) {
	case attest.CodeReconnectRefused:
		return true
	case attest.CodePeerRefused:
		var coded *attest.Error
		return errors.As(err, &coded) && coded.Got == gaveUp(string(attest.CodeReconnectRefused))
	}
	return false
}

// codeText is a code that came from the other end, fit for a log.
func codeText(code string) string {
	if c := attest.Code(code); c.Title() != "" {
		return c.Title() + " (" + code + ")"
	}
	return "for a reason that is not known here"
}

// offer is the earlier session to name to the server: one that would still be affirmed.
func (e *end) offer() *earlier {
	past := e.opts.Store.named(e.peer)
	if past == nil {
		return nil
	}
	if past.server != sha256.Sum256(e.state.PeerCertificates[0].RawSubjectPublicKeyInfo) || past.client != e.ownKey() && past.client != [32]byte{} {
		e.opts.Store.drop(past)
		return nil
	}
	return e.still(past)
}

// resume is the earlier session that a client names, if this end goes along.
func (e *end) resume(id []byte) *earlier {
	past := e.opts.Store.identified(id)
	if past == nil {
		return nil
	}
	if past.server != e.ownKey() {
		e.opts.Store.drop(past)
		return nil
	}
	return e.still(past)
}

// still is past if what was found in it would be found again by the policy of today, on evidence that is not yet due anew.
func (e *end) still(past *earlier) *earlier {
	switch {
	case past.epoch != e.opts.epoch():
	case e.verifier == nil && past.found == nil:
		return past
	case e.verifier != nil && past.found != nil:
		again := e.verifier.Reconnect(past.found.result, past.found.presented)
		if pace := e.opts.pace(); again.Affirmed() && (pace <= 0 || age(again) < pace) {
			return past
		}
	}
	e.opts.Store.drop(past)
	return nil
}

// ownKey is the digest of the key that this end would present; zero for none.
func (e *end) ownKey() [32]byte {
	if e.prover == nil {
		return [32]byte{}
	}
	own, err := e.prover.Leaf()
	if err != nil {
		return [32]byte{}
	}
	return own.SPKI
}

// keep remembers a session whose evidence was affirmed, at both ends alike. One that was itself a reconnect is in the
// store already, with the age of its evidence.
func (e *end) keep(past *earlier) error {
	if e.opts.Store == nil || past != nil {
		return nil
	}
	raw, err := e.auth.Export(reconnectLabel, nil, 32+reconnectID)
	if err != nil {
		return malformed("no exporter", err)
	}
	n := &earlier{epoch: e.epoch, secret: [32]byte(raw), id: [reconnectID]byte(raw[32:]), found: e.found.Load(), until: e.now().Add(reconnectLife)}
	var own, other [32]byte
	if leaf := e.own.Load(); leaf != nil {
		own = leaf.SPKI
	}
	if n.found != nil {
		other = sha256.Sum256(n.found.presented.leaf.RawSubjectPublicKeyInfo)
	}
	n.server, n.client = own, other
	if e.role == ea.Client {
		n.name, n.server, n.client = e.peer, other, own
	}
	e.opts.Store.put(n)
	return nil
}

// send writes frames. What can't be sent is not answered: the next read tells.
func (e *end) send(raw []byte) { _, _ = e.tls.Write(raw) }

// take reads the payload of the next frame, which has to be of kind want. A refusal may come at any point.
func (e *end) take(want kind) ([]byte, error) {
	if e.next != nil {
		<-e.next
		e.next = nil
	}
	if err := e.in.header(); err != nil {
		return nil, err
	}
	if e.in.kind != want && e.in.kind != kindVerdict {
		return nil, malformed(e.in.kind.String()+" where "+want.String()+" was due", nil)
	}
	got := e.in.kind
	body, err := e.in.payload()
	if err != nil || got == want {
		return body, err
	}
	var v verdict
	if err := decode(body, &v); err != nil {
		return nil, err
	}
	e.told = !v.Affirmed
	return nil, v.refusal()
}

// request reads a request for evidence, and checks it before it costs anything.
func (e *end) request() (*demand, error) {
	raw, err := e.take(kindRequest)
	if err != nil {
		return nil, err
	}
	asked, err := e.parse(raw)
	if err != nil {
		return nil, err
	}
	e.answered = asked.challenge // once the connection is open, this is no request any more
	return asked, nil
}

// demand is a request of the other end.
type demand struct {
	raw                 []byte
	challenge, exporter [ChallengeSize]byte
}

func (c *Conn) parse(raw []byte) (*demand, error) {
	challenge, unsound := c.auth.Challenge(c.role.Other(), raw)
	exporter, unbound := c.exporter(c.role, challenge)
	if err := errors.Join(unsound, unbound); err != nil {
		return nil, malformed("a request for evidence", err)
	}
	return &demand{raw, challenge, exporter}, nil
}

func (e *end) receive(want kind, v any) error {
	raw, err := e.take(want)
	if err != nil {
		return err
	}
	return decode(raw, v)
}

// ahead waits for the header of the next frame, and cancels when it is there, which is out of turn or no good news so early,
// or when the connection ends instead.
func (e *end) ahead(cancel context.CancelCauseFunc) {
	e.next = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		err := e.in.header()
		if err == nil {
			err = errEarly
		}
		cancel(err)
	}(e.next)
}

var errEarly = errors.New("the client spoke out of turn")

// reason is why the client ended the exchange, where it has said so.
func (e *end) reason(err error) error {
	_ = e.tls.SetReadDeadline(time.Now().Add(farewell))
	if told := e.accepted(); e.told {
		return told
	}
	return err
}
