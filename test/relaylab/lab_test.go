// Package relaylab plays the known attacks on attested TLS against the product's own code, each as a permanent test.
//
// The premise is that of CVE-2026-33697: somebody stands between a genuine client and a genuine TEE, holds the private key of
// the TEE's leaf certificate, and can talk to the TEE as everybody can. What he does not hold is the key with which the
// hardware signs evidence, nor the memory of the TEE. The genuine ends are package ratls, session, batch and proxy as they
// ship; the attacker is written by hand on crypto/tls, down to the messages of RFC 9261.
//
// Some of what is tried succeeds: evidence that is bound to a key, or to a key and a nonce, can be relayed. Those tests
// assert that it does, so that the claim in LIMITATIONS.md stays true in both directions. The rest is refused, each with the
// one code that says why, so that an attack which breaks down for another reason is not counted as one that was refused.
//
// `make relaylab` tries each relay 10,000 times and prints what came of every attack at every level.
package relaylab

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if testing.Verbose() || os.Getenv(attemptsVariable) != "" {
			fmt.Print(findings.String())
		}
		os.Exit(code)
	}))
}

const (
	attemptsVariable = "JURAT_RELAYLAB"
	name             = "tee.example"
	patience         = time.Minute // for what takes milliseconds; nothing waits for it
	lanes            = 4           // attempts side by side
)

// attempts is how often each relay is tried.
func attempts(t testing.TB) int {
	t.Helper()
	text := os.Getenv(attemptsVariable)
	if text == "" {
		return 500
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of attempts", attemptsVariable, text)
	}
	return n
}

// vendor makes chips, and verifies what they sign. It is the smallest platform with a signature; a test with simulated
// SEV-SNP stands beside it.
type vendor struct {
	mu    sync.Mutex
	chips map[string]*chip
}

// chip signs report data, as a TEE does.
type chip struct {
	id     []byte
	key    *ecdsa.PrivateKey
	quotes atomic.Int64
}

type quote struct{ Chip, Data, Signature []byte }

func newVendor() *vendor { return &vendor{chips: map[string]*chip{}} }

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (v *vendor) chip(t testing.TB) *chip {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	c := &chip{id: []byte{0xc0, 0, 0, 0, 0, 0, 0, byte(len(v.chips))}, key: key(t)}
	v.chips[string(c.id)] = c
	return c
}

// Attest implements attest.Attester.
func (c *chip) Attest(_ context.Context, data attest.ReportData) (*attest.Evidence, error) {
	c.quotes.Add(1)
	sum := sha256.Sum256(append(c.id[:8:8], data[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, c.key, sum[:])
	if err != nil {
		return nil, err
	}
	raw, err := asn1.Marshal(quote{c.id, data[:], sig})
	return &attest.Evidence{Format: "lab", Raw: raw}, err
}

// Verify implements attest.Verifier.
func (v *vendor) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if ev.Format != "lab" {
		return nil, attest.ErrNotMine
	}
	var q quote
	if rest, err := asn1.Unmarshal(ev.Raw, &q); err != nil || len(rest) != 0 || len(q.Data) != 64 || len(q.Chip) != 8 {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: "evidence"}
	}
	v.mu.Lock()
	c := v.chips[string(q.Chip)]
	v.mu.Unlock()
	sum := sha256.Sum256(append(q.Chip[:8:8], q.Data...))
	if c == nil || !ecdsa.VerifyASN1(&c.key.PublicKey, sum[:], q.Signature) {
		return nil, &attest.Error{Code: attest.CodeSignature, Check: "authenticity.signature"}
	}
	return &attest.Claims{
		Vendor: "relaylab", TEE: "lab", Debug: attest.Off, Migratable: attest.Off, ReportData: attest.ReportData(q.Data),
		Privilege: new(int), Provenance: attest.Provenance{ChipID: q.Chip},
	}, nil
}

// demand is a policy in the product's own language: any software on the vendor's chips, or on those that are named, bound at
// least at a level.
func demand(t testing.TB, level attest.Level, chips ...*chip) *policy.Policy {
	t.Helper()
	which := ""
	for i, c := range chips {
		which += []string{", chip_ids: [", ", "}[min(i, 1)] + hex.EncodeToString(c.id)
	}
	if which != "" {
		which += "]"
	}
	return parse(t, "policy: relay-lab\nplatforms: {allow: [{vendor: relaylab"+which+"}]}\nworkload: {measurement: any, debug: off}\n"+
		"binding: "+string(level)+"\nfreshness: {evidence: 2h, reconnect: 10m}\nrevocation: unchecked\n")
}

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("lab.yaml", []byte(text), policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// lab is a vendor, a TEE, and the wires between everybody.
type lab struct {
	testing.TB
	*vendor
	ln   *net.UnixListener
	wire sync.Mutex // one connection is made at a time, so that both of its ends are known
	work sync.WaitGroup
}

func newLab(t testing.TB) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{TB: t, vendor: newVendor(), ln: ln}
	t.Cleanup(func() {
		l.work.Wait()
		_ = ln.Close()
		_ = os.RemoveAll(dir)
	})
	return l
}

// pair is the two ends of a new wire. Sockets of the machine, not of the network: tens of thousands leave nothing behind.
func (l *lab) pair() (a, b net.Conn) {
	l.wire.Lock()
	defer l.wire.Unlock()
	a, err := net.Dial("unix", l.ln.Addr().String())
	if err == nil {
		b, err = l.ln.Accept()
	}
	if err != nil {
		l.Error(err)
		return net.Pipe() // on which everything fails
	}
	late := time.Now().Add(patience)
	_, _ = a.SetDeadline(late), b.SetDeadline(late)
	return a, b
}

func (l *lab) party(p attest.Policy) *ratls.RelyingParty {
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, l.vendor), p, time.Now)
}

var config = [32]byte{0xc0, 0xff}

// tee is a genuine TEE with an identity of the product, and a service that answers every byte with itself.
type tee struct {
	*lab
	attester attest.Attester
	id       *ratls.Identity
	accept   func(raw net.Conn) (*ratls.Conn, error)
}

func (l *lab) tee(hw attest.Attester, opts ratls.IdentityOptions) *tee {
	l.Helper()
	id, err := ratls.NewIdentity(context.Background(), hw, []string{name}, config, opts)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(id.Close)
	g := &tee{lab: l, attester: hw, id: id}
	g.serves(ratls.NewAcceptor(id))
	return g
}

func (g *tee) serves(a *ratls.Acceptor) {
	g.accept = func(raw net.Conn) (*ratls.Conn, error) { return a.Handshake(context.Background(), raw) }
}

// dial is a wire to the TEE, which serves it.
func (g *tee) dial() net.Conn {
	a, b := g.pair()
	g.work.Go(func() {
		defer b.Close()
		conn, err := g.accept(b)
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := io.Copy(conn, conn); err == nil {
			_ = conn.CloseWrite()
		}
	})
	return a
}

// leak is what the attacker has: the key of the leaf that the TEE presents now.
func (g *tee) leak() crypto.Signer {
	c, err := g.id.GetCertificate(nil)
	if err != nil {
		g.Fatal(err)
	}
	return c.PrivateKey.(crypto.Signer)
}

// own is the leaf with its key, as the attacker serves it, with evidence in it or bare.
func (g *tee) own(bare bool) tls.Certificate {
	c, err := g.id.GetCertificate(nil)
	if err != nil {
		g.Fatal(err)
	}
	if !bare {
		return *c
	}
	up := g.reach(session.ALPN)
	defer up.Close()
	return tls.Certificate{Certificate: up.chain(), PrivateKey: c.PrivateKey}
}

func spki(der []byte) [32]byte {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
}

// secret is what a client says to a server that it has affirmed.
const secret = "secret"

// confide says the secret over an attested connection and waits for the echo. Whoever is at the other end has read it then.
func confide(conn *ratls.Conn) error {
	defer conn.Close()
	if _, err := io.WriteString(conn, secret); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	echo, err := io.ReadAll(conn)
	if err == nil && string(echo) != secret {
		err = fmt.Errorf("got %q back", echo)
	}
	return err
}

// visit is a genuine client's connection over raw.
func visit(c *ratls.Connector, raw net.Conn) error {
	conn, err := c.Handshake(context.Background(), raw, name)
	if err != nil {
		return err
	}
	return confide(conn)
}

// between puts the attacker's play at the other end of a genuine client's connection, and answers what the client made of it
// once both have ended. What the play met does not count: only the genuine end decides.
func (l *lab) between(client func(raw net.Conn) error, play func(victim net.Conn)) error {
	a, b := l.pair()
	var done sync.WaitGroup
	done.Go(func() {
		defer b.Close()
		defer func() {
			if p := recover(); p != nil {
				if _, ended := p.(gone); !ended {
					panic(p)
				}
			}
		}()
		play(b)
	})
	err := client(a)
	_ = a.Close()
	done.Wait()
	return err
}

// accepted is the outcome of an attack that succeeds.
const accepted attest.Code = ""

// must checks that an attack came out as it is documented to, and writes it down.
func must(t testing.TB, attack, level string, err error, want attest.Code) {
	t.Helper()
	if got := attest.CodeOf(err); got != want {
		t.Errorf("%s at level %s: got %q (%v), want %q", attack, level, got, err, want)
		return
	}
	findings.add(attack, level, want)
}

// repeatedly tries an attack n times, several at once, and demands the same outcome each time. It answers how often the
// attack succeeded.
func repeatedly(t testing.TB, n int, attack func(i int) (what string, want attest.Code, err error), level string) int {
	t.Helper()
	var next, hits, wrong atomic.Int64
	var work sync.WaitGroup
	for range lanes {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && wrong.Load() < 5; i = next.Add(1) - 1 {
				what, want, err := attack(int(i))
				if err == nil {
					hits.Add(1)
				}
				if got := attest.CodeOf(err); got != want {
					wrong.Add(1)
					t.Errorf("attempt %d, %s at level %s: got %q (%v), want %q", i, what, level, got, err, want)
					continue
				}
				findings.add(what, level, want)
			}
		})
	}
	work.Wait()
	return int(hits.Load())
}

// relays says how many relays a level let through.
func relays(t testing.TB, level string, hits, n int) {
	t.Helper()
	line := fmt.Sprintf("%s: %d of %d relays accepted", level, hits, n)
	if hits > 0 {
		line += " (documented: see LIMITATIONS.md)"
	}
	t.Log(line)
	findings.say(line)
}

// findings is the table of what came of every attack.
var findings = &report{cells: map[string]map[string]string{}}

var columns = []string{"key", "nonce", "session", "batched", "reconnect", "open"}

type report struct {
	mu    sync.Mutex
	rows  []string
	cells map[string]map[string]string
	lines []string
}

func (r *report) say(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *report) add(attack, level string, outcome attest.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cells[attack] == nil {
		r.cells[attack] = map[string]string{}
		r.rows = append(r.rows, attack)
	}
	text := string(outcome)
	if outcome == accepted {
		text = "accepted"
	}
	if old := r.cells[attack][level]; old != "" && old != text {
		text = old + "/" + text
	}
	r.cells[attack][level] = text
}

func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	width := 0
	for _, row := range r.rows {
		width = max(width, len(row))
	}
	fmt.Fprintf(&b, "\n%-*s", width, "attack")
	for _, c := range columns {
		fmt.Fprintf(&b, " %-9s", c)
	}
	b.WriteString("\n")
	for _, row := range r.rows {
		fmt.Fprintf(&b, "%-*s", width, row)
		for _, c := range columns {
			text := r.cells[row][c]
			if text == "" {
				text = "·"
			}
			fmt.Fprintf(&b, " %-9s", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n" + strings.Join(r.lines, "\n") + "\n")
	return b.String()
}

// gone ends an attacker's play whose connection has ended.
type gone struct{ error }

func check(err error) {
	if err != nil {
		panic(gone{err})
	}
}

var errOdd = errors.New("the genuine end said something else")
