package ratls_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

// at is where report data lie in what begins as a quote of a TEE.
var at = map[attest.Format]int{"sgx": 368, "tdx": 568}

// fakeQuote begins as one, and holds its report data where one does.
func fakeQuote(format attest.Format, data [64]byte) []byte {
	q := make([]byte, 1000)
	copy(q, map[attest.Format][]byte{"sgx": {3, 0, 2, 0, 0}, "tdx": {4, 0, 2, 0, 0x81}}[format])
	copy(q[at[format]:], data[:])
	return q
}

// foreignVerifier believes fake quotes, and what verifier believes. The last byte of a quote is a measurement.
type foreignVerifier struct{ verifier }

func (v foreignVerifier) Verify(ctx context.Context, ev *attest.Evidence, e attest.Endorser, now time.Time) (*attest.Claims, error) {
	if where, ok := at[ev.Format]; ok {
		return &attest.Claims{Vendor: "test", ReportData: attest.ReportData(ev.Raw[where : where+64]), Measured: map[string]attest.HexBytes{"launch": ev.Raw[999:]}}, nil
	}
	return v.verifier.Verify(ctx, ev, e, now)
}

func foreignForge(t testing.TB, format attest.Format) *dialectforge.Forge {
	return &dialectforge.Forge{
		T: t, Key: dialectforge.NewKey(t), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), CommonName: "enclave.example",
		Quote: func(data [64]byte) []byte { return fakeQuote(format, data) },
	}
}

func readsDialects(t testing.TB, p attest.Policy, names ...string) *ratls.RelyingParty {
	t.Helper()
	r, err := dialect.NewReader(names...)
	if err != nil {
		t.Fatal(err)
	}
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, foreignVerifier{}), p, time.Now).WithDialects(r)
}

// answering accepts connections with one certificate, and reads until they end.
func presenting(t testing.TB, f *dialectforge.Forge, leaf func(*tls.ClientHelloInfo) *x509.Certificate) string {
	return listener(t, func(raw net.Conn) {
		conn := tls.Server(raw, &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{leaf(hello).Raw}, PrivateKey: f.Key}, nil
			},
		})
		_, _ = io.Copy(io.Discard, conn)
	})
}

// What a relying party takes of a dialect, and at which level.
func TestForeignCertificates(t *testing.T) {
	key := policy{min: attest.LevelKey}
	plain := func(make func(*dialectforge.Forge) *x509.Certificate) func(*dialectforge.Forge) [][]byte {
		return func(f *dialectforge.Forge) [][]byte { return [][]byte{make(f).Raw} }
	}
	ego, dice := plain((*dialectforge.Forge).EGo), plain((*dialectforge.Forge).DICE)
	named := func(f *dialectforge.Forge) [][]byte {
		f.Names = []string{"enclave.example"}
		return dice(f)
	}
	expired := func(f *dialectforge.Forge) [][]byte {
		f.NotAfter = time.Now().Add(-time.Second)
		return dice(f)
	}
	early := func(f *dialectforge.Forge) [][]byte {
		f.NotBefore = time.Now().Add(time.Hour)
		f.NotAfter = f.NotBefore.Add(time.Hour)
		return dice(f)
	}
	flashbots := plain((*dialectforge.Forge).AttestedTLS)
	server := ratls.Server("enclave.example")
	for name, c := range map[string]struct {
		format attest.Format
		make   func(*dialectforge.Forge) [][]byte
		allow  []string
		policy policy
		peer   ratls.Peer
		want   attest.Code
	}{
		"allowed":                      {"sgx", ego, []string{dialect.EGo}, key, server, ""},
		"not allowed":                  {"sgx", ego, []string{dialect.DICE}, key, server, attest.CodeDialect},
		"not by default":               {"sgx", ego, nil, key, server, attest.CodeDialect},
		"by default, for the name":     {"sgx", named, nil, key, server, ""},
		"by default, for another name": {"sgx", named, nil, key, ratls.Server("other.example"), attest.CodeName},
		"by default, for no name":      {"sgx", dice, nil, key, server, attest.CodeName},
		"by default, a client":         {"sgx", dice, nil, key, ratls.AnyClient(), ""},
		"allowed, for no name":         {"sgx", dice, []string{dialect.DICE}, key, server, ""},
		"expired":                      {"sgx", expired, []string{dialect.DICE}, key, server, attest.CodeLeafExpired},
		"early":                        {"sgx", early, []string{dialect.DICE}, key, server, attest.CodeLeafNotYetValid},
		"less than a session":          {"sgx", ego, []string{dialect.EGo}, policy{min: attest.LevelSession}, server, attest.CodeBindingTooWeak},
		"less than a nonce":            {"sgx", ego, []string{dialect.EGo}, policy{min: attest.LevelNonce}, server, attest.CodeBindingTooWeak},
		"a signed name":                {"tdx", flashbots, []string{dialect.AttestedTLS}, key, server, ""},
		"another signed name":          {"tdx", flashbots, []string{dialect.AttestedTLS}, key, ratls.Server("other.example"), attest.CodeName},
		"a signed name, a client":      {"tdx", flashbots, []string{dialect.AttestedTLS}, key, ratls.AnyClient(), ""},
		"a nonce that nobody sent": {"tdx", func(f *dialectforge.Forge) [][]byte {
			f.Nonce = make([]byte, 32)
			return [][]byte{f.Constellation().Raw}
		}, []string{dialect.Constellation}, key, server, attest.CodeNoExpectation},
		"the policy refuses": {"sgx", ego, []string{dialect.EGo}, policy{refuse: attest.CodeDebug}, server, attest.CodeDebug},
	} {
		t.Run(name, func(t *testing.T) {
			r := readsDialects(t, c.policy, c.allow...).Appraise(t.Context(), c.make(foreignForge(t, c.format)), c.peer)
			if r.Code() != c.want {
				t.Fatalf("got %q (%v), want %q", r.Code(), r.Err(), c.want)
			}
			if c.want == "" && (r.Level() != attest.LevelKey || dialect.DialectOf(r) == "") {
				t.Errorf("level %s, dialect %q", r.Level(), dialect.DialectOf(r))
			}
		})
	}
	// Nobody has signed the names and validity that were looked at.
	f := foreignForge(t, "sgx")
	f.Names = []string{"enclave.example"}
	looked := 0
	for _, check := range readsDialects(t, key).Appraise(t.Context(), [][]byte{f.DICE().Raw}, server).Checks() {
		if check.ID == "binding.name" || check.ID == "binding.validity" {
			if looked++; check.Source != attest.SourceTLS {
				t.Errorf("%s: %s", check.ID, check.Source)
			}
		}
	}
	if looked != 2 {
		t.Errorf("%d checks", looked)
	}
	r := readsDialects(t, policy{min: attest.LevelPinned}, dialect.EGo).ForPin().Appraise(t.Context(), ego(foreignForge(t, "sgx")), server)
	if !r.Affirmed() || r.Level() != attest.LevelPinned {
		t.Error(r.Level(), r.Err())
	}
}

// What is taken without a word is given to programs as the one authority they have. Whether it may certify others nobody has signed,
// in DICE's form of our own evidence as little as in that of others.
func TestForeignAuthorities(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate){
		"neither": func(*x509.Certificate) {},
		"a CA":    func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true },
		"usage":   func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign },
	} {
		for _, own := range []bool{false, true} {
			f := foreignForge(t, "sgx")
			f.NotBefore, f.NotAfter = f.NotBefore.Truncate(time.Second), f.NotAfter.Truncate(time.Second)
			claims := f.Claims()
			if own {
				var err error
				if claims, err = (cmw.Binding{SPKI: f.SPKI(), NotBefore: f.NotBefore, NotAfter: f.NotAfter, DNSNames: []string{"enclave.example"}}).Claims(); err != nil {
					t.Fatal(err)
				}
			}
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: f.NotBefore, NotAfter: f.NotAfter, DNSNames: []string{"enclave.example"},
				ExtraExtensions: []pkix.Extension{{Id: dialectforge.OIDDICE, Value: f.TaggedEvidence(60000, claims)}},
			}
			change(template)
			der, err := x509.CreateCertificate(rand.Reader, template, template, f.Key.Public(), f.Key)
			if err != nil {
				t.Fatal(err)
			}
			want := attest.CodeMalformedCertificate
			if name == "neither" {
				want = ""
			}
			r := readsDialects(t, policy{min: attest.LevelKey}).Appraise(t.Context(), [][]byte{der}, ratls.Server("enclave.example"))
			if r.Code() != want {
				t.Errorf("%s, own %t: got %v, want %q", name, own, r.Err(), want)
			}
		}
	}
}

// Our own evidence beside that of another dialect: both have to hold, and ours counts.
func TestForeignBesideOwn(t *testing.T) {
	own := func(f *dialectforge.Forge) pkix.Extension {
		binding := cmw.Binding{SPKI: f.SPKI(), NotBefore: f.NotBefore, NotAfter: f.NotAfter, DNSNames: f.Names}
		data, err := binding.ReportData()
		if err != nil {
			t.Fatal(err)
		}
		ext, err := cmw.Marshal(&attest.Evidence{Format: "sgx", Raw: fakeQuote("sgx", data)}, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		return pkix.Extension{Id: cmw.OID(), Value: ext}
	}
	for name, c := range map[string]struct {
		change func(*dialectforge.Forge)
		peer   string
		want   attest.Code
	}{
		"agree":               {func(*dialectforge.Forge) {}, "enclave.example", ""},
		"another measurement": {func(f *dialectforge.Forge) { f.Value = func(v []byte) []byte { v[len(v)-1] ^= 1; return v } }, "enclave.example", attest.CodeDialects},
		"another key":         {func(f *dialectforge.Forge) { f.Signed = func(b []byte) []byte { return b[1:] } }, "enclave.example", attest.CodeReportData},
		"another name":        {func(*dialectforge.Forge) {}, "other.example", attest.CodeName},
		"ours is broken":      {func(f *dialectforge.Forge) { f.Extra[0].Value = []byte{4, 0} }, "enclave.example", attest.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			f := foreignForge(t, "sgx")
			f.Names = []string{"enclave.example"}
			f.Extra = []pkix.Extension{own(f)}
			c.change(f)
			// EGo is not allowed, and agrees all the same, or not.
			r := readsDialects(t, policy{min: attest.LevelKey}).Appraise(t.Context(), [][]byte{f.EGo().Raw}, ratls.Server(c.peer))
			if r.Code() != c.want {
				t.Fatalf("got %q (%v), want %q", r.Code(), r.Err(), c.want)
			}
			if c.want == "" && !r.EvidenceTime().Equal(f.NotBefore.Truncate(time.Second)) {
				t.Errorf("made %s", r.EvidenceTime())
			}
		})
	}
}

// The nonce of a connection travels as the dialect has it, and reaches level nonce.
func TestForeignNonces(t *testing.T) {
	sni := func(hello *tls.ClientHelloInfo) []byte {
		nonce, _ := base64.StdEncoding.DecodeString(hello.ServerName)
		return nonce
	}
	alpn := func(hello *tls.ClientHelloInfo) []byte {
		i := slices.IndexFunc(hello.SupportedProtos, func(p string) bool { return strings.HasPrefix(p, "atls:v1:nonce:") })
		if i < 0 {
			return nil
		}
		nonce, _ := hex.DecodeString(strings.TrimPrefix(hello.SupportedProtos[i], "atls:v1:nonce:"))
		return nonce
	}
	for name, c := range map[string]struct {
		allow string
		nonce func(*tls.ClientHelloInfo) []byte
		want  attest.Code
	}{
		"server name": {dialect.Constellation, sni, ""},
		"replayed":    {dialect.Constellation, func(*tls.ClientHelloInfo) []byte { return make([]byte, 32) }, attest.CodeReportData},
		"cut":         {dialect.Constellation, func(h *tls.ClientHelloInfo) []byte { return sni(h)[:31] }, attest.CodeReportData},
		"protocol":    {dialect.Contrast, alpn, ""}, // judged below: a fake quote is no report
	} {
		t.Run(name, func(t *testing.T) {
			f := foreignForge(t, "tdx")
			var seen [][]byte
			addr := presenting(t, f, func(hello *tls.ClientHelloInfo) *x509.Certificate {
				own := *f
				own.Nonce = c.nonce(hello)
				seen = append(seen, own.Nonce)
				return own.Constellation()
			})
			connector := ratls.NewConnector(readsDialects(t, policy{min: attest.LevelNonce}, c.allow), "h2")
			for range 2 {
				conn, err := connector.Dial(t.Context(), addr)
				if c.allow == dialect.Contrast {
					code(t, err, attest.CodeDialect)
					continue
				}
				if code(t, err, c.want); err != nil {
					continue
				}
				if r := conn.Result(); r.Level() != attest.LevelNonce || time.Since(r.EvidenceTime()) > time.Minute {
					t.Errorf("level %s, made %s", r.Level(), r.EvidenceTime())
				}
				_ = conn.Close()
			}
			if len(seen) != 2 || c.want == "" && (len(seen[0]) != 32 || bytes.Equal(seen[0], seen[1])) {
				t.Errorf("nonces %x", seen)
			}
		})
	}
}

// A connection that stands on evidence of another dialect is verified again like any other.
func TestForeignEvidenceIsKept(t *testing.T) {
	f := foreignForge(t, "sgx")
	leaf := f.EGo()
	addr := presenting(t, f, func(*tls.ClientHelloInfo) *x509.Certificate { return leaf })
	r, err := dialect.NewReader(dialect.EGo)
	if err != nil {
		t.Fatal(err)
	}
	e := enforce.New(func(attest.Stack) *attest.Appraiser {
		return attest.NewAppraiser(attest.NoEndorser{}, foreignVerifier{})
	}, time.Now, nil)
	e.Publish(enforce.Change{Policies: map[string]attest.Policy{"p": policy{min: attest.LevelKey}}, Places: map[string][]string{"here": {"p"}}})
	conn, err := ratls.NewConnector(ratls.NewEnforcedParty(e.Place("here"), time.Now).WithDialects(r), "h2").Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e.Endorsed(t.Context())
	if !conn.Result().Affirmed() || dialect.DialectOf(conn.Result()) != dialect.EGo {
		t.Fatal(conn.Result().Err())
	}
}

func TestFetchDocument(t *testing.T) {
	f := foreignForge(t, "sgx")
	leaf := f.Certificate()
	var asked []string
	server := func(handler http.HandlerFunc) *url.URL {
		addr := listener(t, func(raw net.Conn) {
			conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: f.Key}}})
			s := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
			one := &single{conn: conn, done: make(chan struct{})}
			s.ConnState = func(_ net.Conn, st http.ConnState) {
				if st == http.StateClosed || st == http.StateHijacked {
					one.close()
				}
			}
			_ = s.Serve(one)
		})
		return &url.URL{Scheme: "https", Host: addr, Path: "/attestation", RawQuery: "nonce=00"}
	}
	answer := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Method+" "+r.RequestURI)
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, body)
		}
	}
	raw, got, err := ratls.FetchDocument(t.Context(), server(answer("application/json; charset=utf-8", "{}")), 2)
	if err != nil || string(raw) != "{}" || !bytes.Equal(got.Raw, leaf.Raw) || !slices.Equal(asked, []string{"GET /attestation?nonce=00"}) {
		t.Fatalf("%q, %v, %q", raw, err, asked)
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    attest.Code
	}{
		"too long": {answer("text/plain", "{} "), attest.CodeOversized},
		"a page":   {answer("text/html", "{}"), attest.CodeNoEvidence},
		"no type":  {answer("", "{}"), attest.CodeNoEvidence},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		}, attest.CodeNoEvidence},
		"not there": {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "{}", http.StatusNotFound) }, attest.CodeNoEvidence},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", "2")
			_, _ = w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, attest.CodeHandshake},
		"no answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, attest.CodeHandshake},
	} {
		if _, _, err := ratls.FetchDocument(t.Context(), server(c.handler), 2); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, _, err := ratls.FetchDocument(t.Context(), &url.URL{Scheme: "https", Host: "127.0.0.1:1"}, 2); attest.CodeOf(err) != attest.CodeUnreachable {
		t.Error(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, _, err := ratls.FetchDocument(ended, &url.URL{Scheme: "https", Host: "127.0.0.1"}, 2); attest.CodeOf(err) != attest.CodeUnreachable || !strings.Contains(err.Error(), "127.0.0.1:443") {
		t.Error(err)
	}
	// Another scheme would have the document come over a connection that the certificate is not of, and no host is this one.
	asked = nil
	for name, change := range map[string]func(*url.URL){
		"scheme":   func(u *url.URL) { u.Scheme = "http" },
		"no host":  func(u *url.URL) { u.Host = ":" + u.Port() },
		"password": func(u *url.URL) { u.User = url.UserPassword("a", "b") },
		"no query": func(u *url.URL) { u.RawQuery = "a\r\nb" },
	} {
		u := server(answer("text/plain", "{}"))
		change(u)
		if _, _, err := ratls.FetchDocument(t.Context(), u, 2); attest.CodeOf(err) != attest.CodeUsage || len(asked) > 0 {
			t.Errorf("%s: %v, asked %q", name, err, asked)
		}
	}
	plain := listener(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") })
	if _, _, err := ratls.FetchDocument(t.Context(), &url.URL{Scheme: "https", Host: plain}, 2); attest.CodeOf(err) != attest.CodeHandshake {
		t.Error(err)
	}
}

// single is a listener of one connection.
type single struct {
	conn net.Conn
	done chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if c := s.conn; c != nil {
		s.conn = nil
		return c, nil
	}
	<-s.done
	return nil, io.EOF
}

func (s *single) close() {
	select {
	case <-s.done:
	default:
		close(s.done)
	}
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return &net.TCPAddr{} }

// enclave is a platform whose evidence begins as a quote.
type enclave struct{ made int }

func (e *enclave) Attest(_ context.Context, data attest.ReportData) (*attest.Evidence, error) {
	e.made++
	return &attest.Evidence{Format: "sgx", Raw: fakeQuote("sgx", data)}, nil
}

// A certificate that speaks other dialects as well is our own to us, and one of theirs to others. DICE takes no quote of its own.
func TestIdentityInOtherDialects(t *testing.T) {
	for _, c := range []struct {
		names  []string
		quotes int
	}{{nil, 1}, {[]string{dialect.DICE}, 1}, {[]string{dialect.DICE, dialect.EGo, dialect.GramineLegacy}, 3}} {
		w, err := dialect.NewWriters(c.names...)
		if err != nil {
			t.Fatal(err)
		}
		tee := new(enclave)
		id, err := ratls.NewIdentity(t.Context(), tee, []string{"enclave.example"}, [32]byte{7}, ratls.IdentityOptions{Dialects: w})
		if err != nil {
			t.Fatal(err)
		}
		chain := [][]byte{id.Leaf().Certificate.Raw}
		id.Close()
		if tee.made != c.quotes {
			t.Errorf("%q: %d quotes, want %d", c.names, tee.made, c.quotes)
		}
		for peer, want := range map[string]attest.Code{"enclave.example": "", "other.example": attest.CodeName} {
			r := readsDialects(t, policy{min: attest.LevelKey}).Appraise(t.Context(), chain, ratls.Server(peer))
			if r.Code() != want || want == "" && r.EvidenceTime().IsZero() {
				t.Errorf("%q for %s: %v", c.names, peer, r.Err())
			}
		}
	}
	w, err := dialect.NewWriters(dialect.Dstack)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ratls.NewIdentity(t.Context(), new(enclave), nil, [32]byte{}, ratls.IdentityOptions{Dialects: w}); attest.CodeOf(err) != attest.CodeUnknownFormat {
		t.Error(err)
	}
	if _, err := ratls.NewIdentity(t.Context(), &failing{}, nil, [32]byte{}, ratls.IdentityOptions{Dialects: must(dialect.NewWriters(dialect.EGo))}); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
}

// failing attests once.
type failing struct{ enclave }

func (f *failing) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	if f.made > 0 {
		return nil, &attest.Error{Code: attest.CodeAttesterFailed}
	}
	return f.enclave.Attest(ctx, data)
}

func must(w []*dialect.Writer, err error) []*dialect.Writer {
	if err != nil {
		panic(err)
	}
	return w
}
