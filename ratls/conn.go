package ratls

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/session"
)

// bareTimeout bounds an appraisal inside a handshake whose context crypto/tls does not pass on.
const bareTimeout = 30 * time.Second

// stream is what carries the application's bytes: TLS itself, or the session tier inside it.
type stream interface {
	net.Conn
	CloseWrite() error
	NetConn() net.Conn
	ConnectionState() tls.ConnectionState
}

// Conn is a TLS connection whose peer was appraised as far as that was asked for.
type Conn struct {
	stream
	certificate atomic.Pointer[attest.Result] // of the certificate tier
	evidence    *attest.Evidence              // likewise; nil where a server asks its clients for none
	standing    *enforce.Standing             // nil where no change ends the connection
	shown       *[32]byte                     // SHA-256 of the SPKI that this end showed in the handshake; nil at a client

	mu      sync.Mutex
	refused *attest.Result
	end     func(*attest.Result)
}

// Result is the affirmed Attestation Result of the peer; nil at a server that does not ask its clients for evidence. In the
// session tier it is replaced whenever the peer attests anew.
func (c *Conn) Result() *attest.Result {
	if s, ok := c.stream.(*session.Conn); ok {
		return s.Result()
	}
	return c.certificate.Load()
}

// OnRefused has end called, instead of the connection being broken off, when a change of policy or endorsements refuses the peer.
// It is called once, by any goroutine, and must not wait; at once where that has happened already. From then on nothing is to
// move over the connection, and what it cuts off is not to look whole.
func (c *Conn) OnRefused(end func(*attest.Result)) {
	c.mu.Lock()
	r := c.refused
	c.end = end
	c.mu.Unlock()
	if r != nil {
		end(r)
	}
}

// Explains reports whether Refuse can tell the peer why.
func (c *Conn) Explains() bool {
	_, ok := c.stream.(*session.Conn)
	return ok
}

// Refuse tells the peer the code of why it is refused, as far as there is a way to say it, and breaks the connection off. It may
// wait for a moment where the transport does.
func (c *Conn) Refuse(r *attest.Result) {
	if s, ok := c.stream.(*session.Conn); ok {
		s.Refuse(r)
		return
	}
	// No alert of TLS that says that all is well.
	switch raw := c.NetConn().(type) {
	case interface{ Reset() }:
		raw.Reset()
	case interface{ SetLinger(int) error }:
		_ = raw.SetLinger(0)
		_ = c.NetConn().Close()
	default:
		_ = c.NetConn().Close()
	}
}

// RefuseSoon is Refuse for who can't wait: nothing of the application moves from when it returns on, and the rest follows.
func (c *Conn) RefuseSoon(r *attest.Result) {
	if s, ok := c.stream.(*session.Conn); ok {
		s.RefuseSoon(r)
		return
	}
	c.Refuse(r) // which writes nothing
}

// Close tells the peer that everything was sent, and closes.
func (c *Conn) Close() error {
	c.standing.Done()
	return c.stream.Close()
}

// subject is a Conn as what is enforced sees it.
type subject struct{ *Conn }

// Settle implements enforce.Subject.
func (c subject) Settle(was, is *attest.Result) bool {
	if s, ok := c.stream.(*session.Conn); ok {
		return s.Settle(was, is)
	}
	return c.certificate.CompareAndSwap(was, is)
}

// Refuse implements enforce.Subject.
func (c subject) Refuse(r *attest.Result) {
	c.mu.Lock()
	end := c.end
	c.refused = r
	c.mu.Unlock()
	if end != nil {
		end(r)
	} else {
		c.RefuseSoon(r)
	}
}

// Evidence implements enforce.Subject.
func (c subject) Evidence() (*attest.Evidence, error) {
	if c.evidence != nil {
		return c.evidence, nil
	}
	content, err := OpenPresented(c.Presented())
	if err != nil {
		return nil, err
	}
	return content.Evidence, nil
}

// Presented is what the peer showed for its Result.
func (c *Conn) Presented() Presented {
	if s, ok := c.stream.(*session.Conn); ok {
		return presentedIn(s.Presented())
	}
	return Presented{Chain: rawChain(c.ConnectionState().PeerCertificates)}
}

// Read gives the refusal of our own evidence its code: in TLS 1.3 a client of the certificate tier learns of it only here.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	if passing, ok := err.(net.Error); err == nil || ok && passing.Timeout() { // the rule where a loop reads
		return n, err
	}
	if coded := PeerError(err); attest.CodeOf(coded) == attest.CodePeerRefused {
		err = coded
	}
	return n, err
}

// Polled says that Read is called whenever something has arrived, on a transport that does not wait. It reports whether it
// has to be called after io.EOF as well.
func (c *Conn) Polled() bool {
	s, ok := c.stream.(*session.Conn)
	return ok && s.Polled()
}

// Presented is what a peer showed of itself.
type Presented struct {
	Chain   [][]byte           // DER certificates, leaf first
	Session *session.Presented // evidence for the connection; nil in the certificate tier, where the leaf carries it
}

func presentedIn(p *session.Presented) Presented {
	if p == nil {
		return Presented{}
	}
	return Presented{Chain: p.Chain, Session: p}
}

// Refusal is the error of a handshake whose peer was appraised and not affirmed.
type Refusal struct {
	Result *attest.Result
	Presented
}

func (r *Refusal) Error() string { return r.Result.Err().Error() }

// Unwrap gives the *attest.Error of the first failing check.
func (r *Refusal) Unwrap() error { return r.Result.Err() }

func baseConfig() *tls.Config {
	// Small records at first are for browsers on slow links; evidence would take many small writes, and bulk twice the CPU.
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
}

// offerSession makes c one of the session tier, before protos.
func offerSession(c *tls.Config, protos ...string) {
	c.NextProtos = append([]string{session.ALPN}, protos...)
}

// kept is what came of the certificate of a peer.
type kept struct {
	result   *attest.Result
	evidence *attest.Evidence
}

// Appraising has the form of tls.Config.VerifyConnection: it refuses the connection unless the peer is affirmed. keep,
// when not nil, gets what came of it.
func (rp *RelyingParty) appraising(ctx context.Context, peer Peer, known dialect.Context, keep *kept) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		ctx, cancel := context.WithTimeout(ctx, bareTimeout)
		defer cancel()
		if err := notResumed(cs); err != nil {
			return err
		}
		chain := rawChain(cs.PeerCertificates)
		r, ev := rp.appraise(ctx, chain, peer, known)
		if keep != nil {
			*keep = kept{r, ev}
		}
		if !r.Affirmed() {
			return &Refusal{Result: r, Presented: Presented{Chain: chain}}
		}
		return nil
	}
}

func notResumed(cs tls.ConnectionState) error {
	if cs.DidResume {
		return &attest.Error{Code: attest.CodeResumed, Check: "binding.session"}
	}
	return nil
}

func rawChain(certs []*x509.Certificate) [][]byte {
	chain := make([][]byte, len(certs))
	for i, c := range certs {
		chain[i] = c.Raw
	}
	return chain
}

// ClientConfig is a TLS configuration that connects to name only if the peer is affirmed. name is required, since
// crypto/tls does not tell its hooks about an IP address that was dialled.
func ClientConfig(rp *RelyingParty, name string) *tls.Config {
	return clientConfig(context.Background(), rp, name, dialect.Context{}, nil)
}

// MutualClientConfig is ClientConfig for a client that presents id to servers that ask.
func MutualClientConfig(id *Identity, rp *RelyingParty, name string) *tls.Config {
	c := ClientConfig(rp, name)
	c.GetClientCertificate = id.GetClientCertificate
	return c
}

func clientConfig(ctx context.Context, rp *RelyingParty, name string, known dialect.Context, keep *kept) *tls.Config {
	c := baseConfig()
	c.ServerName = name
	// crypto/tls would demand a public CA. All of the verification is in VerifyConnection, which it runs either way.
	c.InsecureSkipVerify = true
	c.VerifyConnection = rp.appraising(ctx, Server(name), known, keep)
	return c
}

// ServerConfig is a TLS configuration that presents id to every client.
func ServerConfig(id *Identity) *tls.Config {
	c := baseConfig()
	c.GetCertificate = id.GetCertificate
	return c
}

// MutualServerConfig is a TLS configuration that presents id and serves only clients that are affirmed.
func MutualServerConfig(id *Identity, rp *RelyingParty) *tls.Config {
	return mutualServerConfig(context.Background(), id, rp, nil)
}

func mutualServerConfig(ctx context.Context, id *Identity, rp *RelyingParty, keep *kept) *tls.Config {
	c := ServerConfig(id)
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = rp.appraising(ctx, AnyClient(), dialect.Context{}, keep)
	return c
}

// judge is a RelyingParty that judges one peer. A nil RelyingParty judges nobody.
type judge struct {
	*RelyingParty
	peer     Peer
	began    atomic.Uint64 // epoch from before the last Result
	standing atomic.Pointer[enforce.Standing]
}

// Appraise implements session.Verifier.
func (j *judge) Appraise(ctx context.Context, p *session.Presented) *attest.Result {
	j.began.Store(j.epoch())
	return j.appraiseSession(ctx, p, j.peer)
}

// Recheck implements session.Rechecker.
func (j *judge) Recheck(ctx context.Context) *attest.Result {
	if s := j.standing.Load(); s != nil {
		return s.Recheck(ctx, j.began.Load())
	}
	return nil // not admitted yet, which looks at the Result that is there by then
}

// admit has the connection stand on what is in force, where the peer is appraised by that.
func (j *judge) admit(ctx context.Context, c *Conn) error {
	if j.RelyingParty == nil || j.place == nil {
		return nil
	}
	addr := ""
	if a := c.RemoteAddr(); a != nil {
		addr = a.String()
	}
	standing, refused := j.place.Admit(ctx, j.began.Load(), addr, subject{c})
	if refused != nil {
		return c.turnedAway(refused)
	}
	c.standing = standing
	j.standing.Store(standing)
	// A peer that attested anew meanwhile was not rechecked, for want of a standing.
	if refused := standing.Recheck(ctx, j.began.Load()); refused != nil {
		return c.turnedAway(refused)
	}
	return nil
}

// turnedAway ends a connection that is refused before anything has moved over it.
func (c *Conn) turnedAway(r *attest.Result) error {
	presented := c.Presented()
	c.Refuse(r)
	_ = c.stream.Close()
	return &Refusal{Result: r, Presented: presented}
}

// Reconnect implements session.Verifier.
func (j *judge) Reconnect(earlier *attest.Result, p *session.Presented) *attest.Result {
	now := j.now()
	j.began.Store(j.epoch())
	_, checks, err := admitSession(p, j.peer, now)
	if err != nil {
		return attest.RefusedResult(err, now)
	}
	_, policy := j.basis()
	return earlier.Reconnect(policy, now, checks...)
}

// Acceptor is the server's side of attested connections. One port serves both tiers: a client that offers the session tier
// gets it, any other gets the certificate with evidence.
type Acceptor struct {
	id      *Identity
	rp      *RelyingParty // nil asks clients for nothing
	protos  []string
	session session.Options
	tiers   func(certificates *tls.Config) *tls.Config
	all     *tls.Config // for every client, where it is asked for nothing: a configuration lives as long as its connections
}

// KeyALPN is offered, beside the protocols of the application or alone, by a client of the certificate tier that wants evidence also of a
// server that has a public certificate for the name. Where it is offered alone it is what is agreed on, and says nothing of the application.
const KeyALPN = "jurat-key/1"

// challengeALPN is offered, alone, by a CA that wants to know whether a name is served here (RFC 8737 section 3).
const challengeALPN = "acme-tls/1"

// ErrChallenge is the error of a handshake that was all that a CA came for.
var ErrChallenge = errors.New("a challenge of a certificate authority was answered")

// Public has the certificates that clients trust which know nothing of evidence.
type Public interface {
	// Certificate answers the one for the server name that a client asks for. It is nil, without an error, where that is no public one.
	Certificate(name string) (*tls.Certificate, error)
	// Challenge answers the certificate by which a CA finds out that a name is served here.
	Challenge(ctx context.Context, name string) (*tls.Certificate, error)
	// Outside reports that somebody else may have the keys of the certificates: there is no evidence for those.
	Outside() bool
}

// NewAcceptor serves every client. protos are the protocols of the application, best first; none means that a client which offers one
// protocol alone gets it, since PostgreSQL's and gRPC's insist on theirs, and that what others offer is ignored.
func NewAcceptor(id *Identity, protos ...string) *Acceptor {
	a := &Acceptor{id: id, protos: protos, session: session.Options{Protocols: protos}}
	exchange := baseConfig()
	offerSession(exchange)
	exchange.GetCertificate = id.bareCertificate
	exchange.VerifyConnection = notResumed
	a.tiers = func(certificates *tls.Config) *tls.Config {
		if len(protos) > 0 {
			certificates.NextProtos = append(slices.Clone(protos), KeyALPN) // which is chosen where a client offers nothing else
		}
		c := baseConfig()
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, session.ALPN) {
				return exchange, nil
			}
			return sole(certificates, hello), nil
		}
		return c
	}
	a.all = a.tiers(ServerConfig(id))
	return a
}

// sole is the configuration that agrees on what a client offers where the server has nothing to say about it, and the client no choice.
func sole(c *tls.Config, hello *tls.ClientHelloInfo) *tls.Config {
	if offered := hello.SupportedProtos; len(c.NextProtos) == 0 && len(offered) == 1 && offered[0] != challengeALPN {
		c = c.Clone()
		c.NextProtos = offered
	}
	return c
}

// NewPublicAcceptor is NewAcceptor for a server that has public certificates too. What a client gets is settled by its ClientHello:
//
//   - who offers the session tier gets that;
//   - who offers KeyALPN gets the certificate with evidence;
//   - who offers the protocol of RFC 8737 alone gets the answer to its challenge, and nothing after it: Handshake answers ErrChallenge;
//   - who asks for a public name gets the certificate of that, or an alert where there is none. TLS 1.2 will do;
//   - everybody else gets the certificate with evidence.
//
// There is no such acceptor that asks its clients for evidence: who knows nothing of it has none.
func NewPublicAcceptor(id *Identity, public Public, protos ...string) *Acceptor {
	a := NewAcceptor(id, protos...)
	inner := a.all.GetConfigForClient
	known := baseConfig()
	known.MinVersion, known.CipherSuites, known.NextProtos = tls.VersionTLS12, forwardSecret(), protos
	known.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := public.Certificate(hello.ServerName)
		if cert != nil && !public.Outside() {
			err = showPublic(hello, cert)
		}
		return cert, err
	}
	challenge := baseConfig()
	challenge.MinVersion, challenge.NextProtos = tls.VersionTLS12, []string{challengeALPN}
	challenge.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return public.Challenge(hello.Context(), hello.ServerName)
	}
	a.all = baseConfig()
	a.all.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered := hello.SupportedProtos
		switch {
		case slices.Contains(offered, session.ALPN), slices.Contains(offered, KeyALPN):
			return inner(hello)
		case len(offered) == 1 && offered[0] == challengeALPN:
			return challenge, nil
		}
		cert, err := public.Certificate(hello.ServerName)
		switch {
		case err != nil:
			return nil, err
		case cert != nil:
			return sole(known, hello), nil
		}
		return inner(hello)
	}
	return a
}

// forwardSecret are the cipher suites of TLS 1.2 that HTTP/2 has not forbidden (RFC 9113 section 9.2.2).
func forwardSecret() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// NewMutualAcceptor serves only clients that rp affirms.
func NewMutualAcceptor(id *Identity, rp *RelyingParty, protos ...string) *Acceptor {
	a := NewAcceptor(id, protos...)
	a.rp = rp
	return a
}

// WithSession is a with another session tier; without Protocols it has those of a.
func (a *Acceptor) WithSession(opts session.Options) *Acceptor {
	tuned := *a
	if opts.Protocols == nil {
		opts.Protocols = a.protos
	}
	tuned.session = opts
	return &tuned
}

// Handshake makes raw an attested connection, or closes it and answers an *attest.Error or a *Refusal.
func (a *Acceptor) Handshake(ctx context.Context, raw net.Conn) (*Conn, error) {
	var peer kept
	j := &judge{RelyingParty: a.rp, peer: AnyClient()}
	j.began.Store(a.rp.epoch())
	config := a.all
	if a.rp != nil {
		config = a.tiers(mutualServerConfig(ctx, a.id, a.rp, &peer))
	}
	ctx, shown := showing(ctx)
	conn, err := finish(ctx, tls.Server(raw, config))
	if err != nil {
		return nil, err
	}
	switch conn.ConnectionState().NegotiatedProtocol {
	case session.ALPN:
	case challengeALPN:
		_ = conn.Close()
		return nil, ErrChallenge
	default:
		return shown.on(certified(ctx, conn, peer, j))
	}
	var verifier session.Verifier
	if a.rp != nil {
		verifier = j
	}
	s, err := session.Server(ctx, conn, Origin(raw.RemoteAddr()), verifier, prover{a.id}, a.id.opts.Now, enforced(a.session, a.rp))
	return shown.on(established(ctx, conn, s, err, j))
}

// enforced are the options of a session whose secrets die with what is in force.
func enforced(opts session.Options, rp *RelyingParty) session.Options {
	if rp != nil && rp.place != nil {
		opts.Epoch = rp.place.Epoch
	}
	return opts
}

// certified makes a Conn of a connection of the certificate tier.
func certified(ctx context.Context, conn *tls.Conn, shown kept, j *judge) (*Conn, error) {
	c := &Conn{stream: conn, evidence: shown.evidence}
	c.certificate.Store(shown.result)
	if err := j.admit(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// Origin is whom a connection counts for where peers share what is scarce: an IPv4 address, or the /64 that an IPv6 address
// is in, which is the least that one customer gets.
func Origin(addr net.Addr) string {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return addr.Network()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		prefix, _ := ip.Prefix(64) // 64 is within its bounds
		return prefix.String()
	}
	return ip.String()
}

// established makes a Conn of an exchange that has come to an end.
func established(ctx context.Context, conn *tls.Conn, s *session.Conn, err error, j *judge) (*Conn, error) {
	if err == nil {
		c := &Conn{stream: s}
		if err := j.admit(ctx, c); err != nil {
			return nil, err
		}
		return c, nil
	}
	_ = conn.Close()
	var refused *session.Refused
	if errors.As(err, &refused) {
		return nil, &Refusal{Result: refused.Result, Presented: presentedIn(refused.Presented)}
	}
	return nil, err
}

// Connector is the client's side of attested connections.
type Connector struct {
	rp          *RelyingParty
	id          *Identity
	protos      []string
	session     session.Options
	certificate bool
	successor   bool
}

// NewConnector connects to servers that rp affirms. It offers the session tier, and beside it the certificate tier, which a
// policy may accept. protos are the protocols of the application, best first; none leaves it open.
func NewConnector(rp *RelyingParty, protos ...string) *Connector {
	return &Connector{rp: rp, protos: protos, session: session.Options{Protocols: protos}}
}

// NewMutualConnector also presents id to servers that ask for evidence.
func NewMutualConnector(id *Identity, rp *RelyingParty, protos ...string) *Connector {
	c := NewConnector(rp, protos...)
	c.id = id
	return c
}

// WithSession is c with another session tier; without Protocols it has those of c.
func (c *Connector) WithSession(opts session.Options) *Connector {
	tuned := *c
	if opts.Protocols == nil {
		opts.Protocols = c.protos
	}
	tuned.session = opts
	return &tuned
}

// CertificateOnly is c without the session tier: it sees what a client sees that knows nothing of it.
func (c *Connector) CertificateOnly() *Connector {
	tuned := *c
	tuned.certificate = true
	return &tuned
}

// Handshake makes raw an attested connection to name, or closes it and answers an *attest.Error or a *Refusal.
func (c *Connector) Handshake(ctx context.Context, raw net.Conn, name string) (*Conn, error) {
	var shown kept
	j := &judge{RelyingParty: c.rp, peer: Server(name)}
	j.began.Store(c.rp.epoch())
	unjudged := false // the handshake leads to an exchange
	known, serverName, nonce := c.rp.ask(name)
	config := clientConfig(ctx, c.rp, name, known, &shown)
	config.ServerName = serverName
	config.NextProtos = slices.Concat(c.protos, nonce)
	if c.successor {
		config.NextProtos = append(config.NextProtos, successorALPN)
	}
	if !c.certificate {
		offerSession(config, config.NextProtos...)
		appraise := config.VerifyConnection
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == session.ALPN {
				unjudged = true
				return notResumed(cs) // the rest is in the exchange: crypto/tls exports nothing before the handshake is over
			}
			return appraise(cs)
		}
	}
	if c.id != nil {
		config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if unjudged { // whoever asks is anybody still, and is shown no evidence
				return new(tls.Certificate), nil
			}
			return c.id.GetClientCertificate(info)
		}
	}
	conn, err := finish(ctx, tls.Client(raw, config))
	if err != nil {
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != session.ALPN {
		return certified(ctx, conn, shown, j)
	}
	var own session.Prover
	if c.id != nil {
		own = prover{c.id}
	}
	s, err := session.Client(ctx, conn, name, j, own, c.rp.now, enforced(c.session, c.rp))
	return established(ctx, conn, s, err, j)
}

// Dial connects to addr ("host:port") and makes an attested connection to its host.
func (c *Connector) Dial(ctx context.Context, addr string) (*Conn, error) {
	return c.Establish(ctx, func(ctx context.Context) (net.Conn, string, error) { return Connect(ctx, addr) })
}

// Establish makes an attested connection of a transport that open opens, to the name that it answers. Where either end's demands have
// changed under a reconnect, which is then refused, it opens another one: what was kept is void by now, and evidence is shown.
func (c *Connector) Establish(ctx context.Context, open func(context.Context) (net.Conn, string, error)) (*Conn, error) {
	again := false
	for {
		raw, name, err := open(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := c.Handshake(ctx, raw, name)
		if err == nil || again || !session.Stale(err) {
			return conn, err
		}
		again = true
	}
}

// Connect opens the transport to addr ("host:port") for a Handshake, and answers the name to expect there.
func Connect(ctx context.Context, addr string) (net.Conn, string, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", &attest.Error{Code: attest.CodeUsage, Check: "transport.address", Got: addr, Want: "HOST:PORT", Err: err}
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		code := attest.CodeUnreachable
		if isTimeout(err) {
			code = attest.CodeTimeout
		}
		return nil, "", &attest.Error{Code: code, Check: "transport.dial", Subject: addr, Err: err}
	}
	return raw, host, nil
}

func finish(ctx context.Context, conn *tls.Conn) (*tls.Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, classify(ctx, err)
	}
	return conn, nil
}

// Peek completes a TLS handshake with whatever listens at addr and answers its certificates, without judging them. The
// connection is closed before an application byte could move either way. The peer has proven that it holds the leaf's key.
func Peek(ctx context.Context, addr string) ([][]byte, error) {
	raw, host, err := Connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := baseConfig()
	c.ServerName = host
	c.InsecureSkipVerify = true // nothing is trusted here: the caller shows the chain to a person or appraises it
	conn, err := finish(ctx, tls.Client(raw, c))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return rawChain(conn.ConnectionState().PeerCertificates), nil
}

// peekOver is Peek that keeps the connection, for one request in HTTP/1.1 whose answer is evidence itself.
func peekOver(ctx context.Context, addr string) (*tls.Conn, string, error) {
	raw, host, err := Connect(ctx, addr)
	if err != nil {
		return nil, "", err
	}
	c := baseConfig()
	c.ServerName, c.NextProtos = host, []string{"http/1.1"}
	c.InsecureSkipVerify = true // nothing is trusted here: what the peer answers is held against the key that it showed
	conn, err := finish(ctx, tls.Client(raw, c))
	return conn, host, err
}

// contentTypes are what documents are served as.
var contentTypes = []string{"application/json", "text/plain", "application/cbor", "application/octet-stream"}

// FetchDocument gets the document of at most limit bytes at an https address, with the certificate whose key the server has proven.
// Nothing is trusted: the document is for the caller to judge, for that certificate. Only that address is asked, no other that the
// answer names, and only a whole document of a type that documents have is taken.
func FetchDocument(ctx context.Context, u *url.URL, limit int) ([]byte, *x509.Certificate, error) {
	const check = "transport.document"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, nil, &attest.Error{Code: attest.CodeUsage, Check: check, Got: attest.Quote(u.Redacted()), Want: "an https URL, without a user"}
	}
	raw, host, err := Connect(ctx, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	if err != nil {
		return nil, nil, err
	}
	c := baseConfig()
	c.ServerName, c.NextProtos = host, []string{"http/1.1"}
	c.InsecureSkipVerify = true // the document says whose certificate this is
	conn, err := finish(ctx, tls.Client(raw, c))
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	leaf := conn.ConnectionState().PeerCertificates[0]
	// The document is for this connection's certificate: there is no other connection.
	once := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	answer, err := once.RoundTrip(request) // which follows no redirects
	if err != nil {
		return nil, nil, classify(ctx, err)
	}
	defer answer.Body.Close()
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	switch {
	case answer.StatusCode != http.StatusOK:
		return nil, nil, &attest.Error{Code: attest.CodeNoEvidence, Check: check, Got: "status " + strconv.Itoa(answer.StatusCode), Want: "200, from this address"}
	case !slices.Contains(contentTypes, kind):
		return nil, nil, &attest.Error{Code: attest.CodeNoEvidence, Check: check, Got: "content of type " + attest.Quote(kind), Want: strings.Join(contentTypes, ", ")}
	}
	document, err := io.ReadAll(io.LimitReader(answer.Body, int64(limit)+1))
	if err != nil {
		return nil, nil, classify(ctx, err)
	}
	if len(document) > limit {
		return nil, nil, &attest.Error{Code: attest.CodeOversized, Check: check, Want: "at most " + strconv.Itoa(limit) + " bytes"}
	}
	return document, leaf, nil
}

// NoSession reports whether a handshake failed because the server takes none of the protocols on offer: one that knows
// nothing of the session tier, met by a Connector that names no protocol of the application. Its certificate may be good
// enough for CertificateOnly.
func NoSession(err error) bool {
	return attest.CodeOf(err) == attest.CodeHandshake && strings.Contains(err.Error(), "remote error: tls: no application protocol")
}

// classify gives the errors of crypto/tls their codes. Some of them are known by their text only; tests hold each.
func classify(ctx context.Context, err error) error {
	var refusal *Refusal
	var coded *attest.Error
	if errors.As(err, &refusal) || errors.As(err, &coded) {
		return err
	}
	var alert tls.AlertError
	text := err.Error()
	code, check := attest.CodeHandshake, "transport.tls"
	switch {
	case ctx.Err() != nil || isTimeout(err):
		code = attest.CodeTimeout
	case strings.Contains(text, "didn't provide a certificate"):
		return &attest.Error{Code: attest.CodeNoEvidence, Check: "evidence", Got: "no certificate"}
	case strings.Contains(text, "failed to parse certificate"), strings.Contains(text, "failed to parse client certificate"):
		return badCertificate(err)
	case errors.As(err, &alert), strings.Contains(text, "remote error"):
		if strings.Contains(text, "certificate") {
			code = attest.CodePeerRefused
		}
	case errors.Is(err, io.EOF):
		err = errors.New("the peer closed the connection")
	}
	return &attest.Error{Code: code, Check: check, Err: err}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// PeerError gives a failure on an established connection its code: in TLS 1.3 a client learns only from its first read
// that the server refused its certificate.
func PeerError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return classify(context.Background(), err)
}
