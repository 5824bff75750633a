package share

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quietly = slog.New(slog.DiscardHandler)

// anyOrigin has no two connections in common.
func anyOrigin(a net.Addr) string { return a.String() }

// values are Values in memory. They count what they were asked for.
type values struct {
	mu    sync.Mutex
	kept  map[string]string
	locks map[string]chan struct{}
	calls atomic.Int64
	fail  error

	during func() // is called while something is loaded
}

func newValues() *values {
	return &values{kept: map[string]string{}, locks: map[string]chan struct{}{}}
}

func (v *values) Load(_ context.Context, key string) ([]byte, error) {
	v.calls.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.during != nil {
		v.during()
	}
	if v.fail != nil {
		return nil, v.fail
	}
	s, ok := v.kept[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(s), nil
}

func (v *values) Store(_ context.Context, key string, value []byte) error {
	v.calls.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept[key] = string(value)
	return v.fail
}

func (v *values) Delete(_ context.Context, key string) error {
	v.calls.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.kept, key)
	return nil
}

func (v *values) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	v.calls.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	keys := slices.Sorted(maps.Keys(v.kept))
	if prefix != "" {
		keys = slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, prefix+"/") })
	}
	if len(keys) == 0 {
		return nil, fs.ErrNotExist
	}
	return keys, nil
}

func (v *values) Info(ctx context.Context, key string) (Info, error) {
	raw, err := v.Load(ctx, key)
	return Info{Size: int64(len(raw)), Terminal: err == nil}, err
}

func (v *values) Lock(ctx context.Context, name string) error {
	for {
		v.mu.Lock()
		held := v.locks[name]
		if held == nil {
			v.locks[name] = make(chan struct{})
			v.mu.Unlock()
			return nil
		}
		v.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (v *values) Unlock(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.locks[name])
	delete(v.locks, name)
	return nil
}

// locked reports whether somebody has a lock.
func (v *values) locked(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.locks[name] != nil
}

// hardware is the smallest platform: its evidence is the report data itself.
type hardware struct{}

func (hardware) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	return &attest.Evidence{Format: "test", Raw: rd[:]}, nil
}

// verifier verifies it, unless the vendor has revoked the keys.
type verifier struct{ revoked *atomic.Bool }

func (v verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if v.revoked.Load() {
		return nil, &attest.Error{Code: attest.CodeRevoked, Check: "authenticity.chain"}
	}
	return &attest.Claims{Vendor: "test", ReportData: attest.ReportData(ev.Raw)}, nil
}

// policy affirms whatever the level is, or refuses with a code.
type policy struct{ refuse attest.Code }

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.refuse != "" {
		c.Status, c.Code = attest.StatusFail, p.refuse
	}
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{c}}
}

// mesh is a holder and what its replicas need, with the policies of both.
type mesh struct {
	*values
	server *Server
	addr   string
	places *enforce.Enforcer
	id     *ratls.Identity

	revoked atomic.Bool
}

func newMesh(t testing.TB) *mesh {
	t.Helper()
	m := &mesh{values: newValues()}
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, verifier{&m.revoked})
	m.places = enforce.New(func(attest.Stack) *attest.Appraiser { return appraiser }, time.Now, nil)
	m.places.Apply(t.Context(), enforce.Change{
		Policies: map[string]attest.Policy{"replicas": policy{}, "holder": policy{}}, Places: map[string][]string{"replicas": {"replicas"}, "holder": {"holder"}},
	})
	var err error
	if m.id, err = ratls.NewIdentity(t.Context(), hardware{}, []string{"127.0.0.1"}, [32]byte{7}, ratls.IdentityOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.id.Close)
	acceptor := ratls.NewMutualAcceptor(m.id, ratls.NewEnforcedParty(m.places.Place("replicas"), time.Now))
	m.serve(t, func(ctx context.Context, raw net.Conn) (Conn, error) {
		conn, err := acceptor.Handshake(ctx, raw)
		if err != nil {
			return nil, err
		}
		return conn, nil
	})
	return m
}

func (m *mesh) serve(t testing.TB, handshake Handshake) {
	t.Helper()
	m.serveTelling(t, handshake, quietly)
}

func (m *mesh) serveTelling(t testing.TB, handshake Handshake, log *slog.Logger) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.server, m.addr = NewServer(m.values, handshake, anyOrigin, log), ln.Addr().String()
	m.server.Serve(ln)
	t.Cleanup(m.server.Close)
}

// party judges holders.
func (m *mesh) party() *ratls.RelyingParty {
	return ratls.NewEnforcedParty(m.places.Place("holder"), time.Now)
}

func (m *mesh) client(t testing.TB, connector *ratls.Connector) *Client {
	t.Helper()
	c := NewClient(func(ctx context.Context) (Conn, error) {
		conn, err := connector.Dial(ctx, m.addr)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}, quietly)
	t.Cleanup(c.Close)
	return c
}

func (m *mesh) replica(t testing.TB) *Client {
	return m.client(t, ratls.NewMutualConnector(m.id, m.party()))
}

// peer is a connection to a peer whose Result can be another one later.
type peer struct {
	net.Conn
	result *atomic.Pointer[attest.Result]
}

func (p peer) Result() *attest.Result { return p.result.Load() }

// resultOf is one at a level.
func resultOf(t testing.TB, level attest.Level) *attest.Result {
	t.Helper()
	data := attest.ReportData{1}
	now := time.Now()
	a := attest.NewAppraiser(attest.NoEndorser{}, verifier{new(atomic.Bool)})
	r := a.Appraise(t.Context(), &attest.Evidence{Format: "test", Raw: data[:]}, attest.Expect(data, level, now), policy{}, now)
	if !r.Affirmed() {
		t.Fatal(r.Err())
	}
	return r
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestOperations(t *testing.T) {
	m := newMesh(t)
	c, ctx := m.replica(t), t.Context()
	if _, err := c.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	if _, err := c.Info(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	if _, err := c.List(ctx, "", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	big := bytes.Repeat([]byte{0, 'x'}, maxValue/2)
	for _, v := range [][]byte{{}, []byte("value"), big} {
		if err := c.Store(ctx, "a/b ü&?#%", v); err != nil {
			t.Fatal(err)
		}
		got, err := c.Load(ctx, "a/b ü&?#%")
		if err != nil || !bytes.Equal(got, v) {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(v))
		}
		if i, err := c.Info(ctx, "a/b ü&?#%"); err != nil || i.Size != int64(len(v)) || !i.Terminal {
			t.Errorf("%+v %v", i, err)
		}
	}
	if keys, err := c.List(ctx, "a", false); err != nil || !slices.Equal(keys, []string{"a/b ü&?#%"}) {
		t.Errorf("%q %v", keys, err)
	}
	if err := c.Delete(ctx, "a/b ü&?#%"); err != nil || len(m.kept) != 0 {
		t.Errorf("%v, %d are left", err, len(m.kept))
	}
	if err := c.Lock(ctx, "l"); err != nil || !m.locked("l") {
		t.Errorf("locked %v: %v", m.locked("l"), err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if err := c.Unlock(ended, "l"); err != nil {
		t.Error(err)
	}
	until(t, "unlocked", func() bool { return !m.locked("l") })
	if err := c.Unlock(ctx, "l"); attest.CodeOf(err) != attest.CodeInternal {
		t.Errorf("a lock that nobody has: %v", err)
	}
	for _, code := range []attest.Code{attest.CodeStoreBroken, attest.CodeInternal} {
		m.mu.Lock()
		m.fail = &attest.Error{Code: code, Got: "a secret of the holder"}
		m.mu.Unlock()
		if _, err := c.Load(ctx, "a"); attest.CodeOf(err) != code || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// Whoever is not let in gets nothing, and neither does a holder that is not trusted: no operation is carried out.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change string // the policy that refuses
		client func(*mesh) *ratls.Connector
		code   attest.Code
	}{
		"the replica":       {"replicas", func(m *mesh) *ratls.Connector { return ratls.NewMutualConnector(m.id, m.party()) }, attest.CodePeerRefused},
		"the holder":        {"holder", func(m *mesh) *ratls.Connector { return ratls.NewMutualConnector(m.id, m.party()) }, attest.CodePlatformDenied},
		"no evidence":       {"", func(m *mesh) *ratls.Connector { return ratls.NewConnector(m.party()) }, ""},
		"a certificate":     {"", func(m *mesh) *ratls.Connector { return ratls.NewMutualConnector(m.id, m.party()).CertificateOnly() }, attest.CodeBindingTooWeak},
		"no evidence at it": {"", func(m *mesh) *ratls.Connector { return ratls.NewConnector(m.party()).CertificateOnly() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			m.kept["key"] = "secret"
			if test.change != "" {
				m.places.Replace(t.Context(), test.change, policy{attest.CodePlatformDenied})
			}
			c := m.client(t, test.client(m))
			_, err := c.Load(t.Context(), "key")
			if err == nil || errors.Is(err, fs.ErrNotExist) || test.code != "" && attest.CodeOf(err) != test.code {
				t.Errorf("%v, want %s", err, test.code)
			}
			if err := c.Store(t.Context(), "key", []byte("mine")); err == nil {
				t.Error("stored")
			}
			if m.calls.Load() != 0 {
				t.Errorf("%d operations were carried out", m.calls.Load())
			}
		})
	}
}

// A weak level is refused at either end, whatever the policy takes, and so is who attests anew and fails.
func TestLevel(t *testing.T) {
	session := resultOf(t, attest.LevelSession)
	for name, test := range map[string]struct {
		server, client *attest.Result
		code           attest.Code
	}{
		"both":                {session, session, ""},
		"the replica is weak": {resultOf(t, attest.LevelKey), session, attest.CodeStorageAway},
		"the holder is weak":  {session, resultOf(t, attest.LevelKey), attest.CodeBindingTooWeak},
		"no holder":           {session, nil, attest.CodeNoEvidence},
		"no replica":          {nil, session, attest.CodeStorageAway},
		"refused":             {session, new(attest.Result), attest.CodeOf(new(attest.Result).Err())},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mesh{values: newValues()}
			m.kept["key"] = "secret"
			var server, client atomic.Pointer[attest.Result]
			server.Store(test.server)
			client.Store(test.client)
			var said bytes.Buffer
			m.serveTelling(t, func(_ context.Context, raw net.Conn) (Conn, error) { return peer{raw, &server}, nil }, slog.New(slog.NewTextHandler(&said, nil)))
			c := NewClient(func(ctx context.Context) (Conn, error) {
				raw, err := new(net.Dialer).DialContext(ctx, "tcp", m.addr)
				return peer{raw, &client}, err
			}, quietly)
			t.Cleanup(c.Close)
			if _, err := c.Load(t.Context(), "key"); attest.CodeOf(err) != test.code || (err == nil) != (m.calls.Load() == 1) {
				t.Fatalf("%v, %d operations", err, m.calls.Load())
			}
			if test.code != "" {
				m.server.Close()
				if weak := test.server != session; strings.Contains(said.String(), "no replica") != weak {
					t.Errorf("the holder says %s", said.String())
				}
				return
			}
			for _, end := range []*atomic.Pointer[attest.Result]{&server, &client} { // while an operation is carried out
				m.mu.Lock()
				m.during = func() { end.Store(new(attest.Result)) }
				m.mu.Unlock()
				if got, err := c.Load(t.Context(), "key"); err == nil {
					t.Errorf("%q, for a peer that was refused meanwhile", got)
				}
				m.mu.Lock()
				m.during = nil
				m.mu.Unlock()
				end.Store(session)
			}
			for _, end := range []*atomic.Pointer[attest.Result]{&server, &client} {
				was := m.calls.Load()
				end.Store(new(attest.Result))
				if _, err := c.Load(t.Context(), "key"); err == nil || m.calls.Load() != was {
					t.Errorf("%v, %d operations", err, m.calls.Load()-was)
				}
				end.Store(session)
				if _, err := c.Load(t.Context(), "key"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Whoever is refused from now on, by a policy or since endorsements have changed, is cut off.
func TestCutOff(t *testing.T) {
	m := newMesh(t)
	c := m.replica(t)
	if err := c.Store(t.Context(), "key", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	open := func() int { return len(m.server.connections) }
	if open() != 1 {
		t.Fatalf("%d connections", open())
	}
	m.places.Replace(t.Context(), "replicas", policy{attest.CodePlatformDenied})
	until(t, "cut off", func() bool { return open() == 0 })
	was := m.calls.Load()
	if _, err := c.Load(t.Context(), "key"); attest.CodeOf(err) != attest.CodePeerRefused || m.calls.Load() != was {
		t.Errorf("%v, %d operations", err, m.calls.Load()-was)
	}
	m.places.Replace(t.Context(), "replicas", policy{})
	if got, err := c.Load(t.Context(), "key"); err != nil || string(got) != "secret" {
		t.Errorf("%q %v", got, err)
	}
	m.places.Replace(t.Context(), "holder", policy{attest.CodePlatformDenied})
	was = m.calls.Load()
	if err := c.Store(t.Context(), "key", []byte("another")); attest.CodeOf(err) != attest.CodePlatformDenied || m.calls.Load() != was {
		t.Errorf("%v, %d operations", err, m.calls.Load()-was)
	}
	m.places.Replace(t.Context(), "holder", policy{})
	if err := c.Store(t.Context(), "key", []byte("another")); err != nil || open() == 0 {
		t.Fatal(err)
	}
	m.revoked.Store(true)
	m.places.Endorsed(t.Context())
	until(t, "cut off", func() bool { return open() == 0 })
	was = m.calls.Load()
	if _, err := c.Load(t.Context(), "key"); attest.CodeOf(err) != attest.CodeRevoked && attest.CodeOf(err) != attest.CodePeerRefused || m.calls.Load() != was {
		t.Errorf("%v, %d operations", err, m.calls.Load()-was)
	}
}

// A holder that is away is not one that has nothing, and it is said once.
func TestAway(t *testing.T) {
	m := newMesh(t)
	var said bytes.Buffer
	c := m.replica(t)
	c.log = slog.New(slog.NewTextHandler(&said, nil))
	if err := c.Store(t.Context(), "key", []byte("x")); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := c.Load(ended, "key"); !errors.Is(err, context.Canceled) || attest.CodeOf(err) == attest.CodeStorageAway {
		t.Error(err)
	}
	m.server.Close()
	for range 3 {
		if _, err := c.Load(t.Context(), "key"); attest.CodeOf(err) != attest.CodeStorageAway || errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(m.values, m.server.handshake, anyOrigin, quietly)
	defer s.Close()
	s.Serve(ln)
	if _, err := c.Load(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if text := said.String(); strings.Count(text, "code=J857") != 1 || strings.Count(text, "there again") != 1 {
		t.Error(text)
	}
}

// serveOne has a handler carry out a request.
func serveOne(s *Server, method, target string, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest(method, target, body))
	return w
}

// What makes no sense, and what is too much, gets to no storage.
func TestHostile(t *testing.T) {
	v := newValues()
	s := NewServer(v, nil, anyOrigin, quietly)
	defer s.Close()
	long := strings.Repeat("x", maxKey+1)
	for _, key := range []string{"", "..", "a/../b", ".", "a/.", "/a", "a/", "a//b", "a\x00b", "a\nb", "a\x7f", "a\\b", "\xff", "a\u202eb", long, strings.Repeat("a/", maxParts) + "a"} {
		for _, op := range []string{"load", "store", "delete", "info", "lock", "unlock"} {
			if w := serveOne(s, "POST", "/"+op+"?token=t&key="+url.QueryEscape(key), nil); w.Code != http.StatusBadRequest {
				t.Errorf("%s %.20q: %d", op, key, w.Code)
			}
		}
		if w := serveOne(s, "POST", "/list?key="+url.QueryEscape(key), nil); key != "" && w.Code != http.StatusBadRequest {
			t.Errorf("list %.20q: %d", key, w.Code)
		}
	}
	v.calls.Store(0)
	for _, test := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/load?key=a", 400},
		{"POST", "/other?key=a", 400},
		{"POST", "/?key=a", 400},
		{"POST", "/load/?key=a", 400},
		{"POST", "/load?key=%zz", 400},
		{"POST", "/lock?key=a", 400},
		{"POST", "/lock?key=a&token=" + long, 400},
	} {
		if w := serveOne(s, test.method, test.target, nil); w.Code != test.status {
			t.Errorf("%s %s: %d", test.method, test.target, w.Code)
		}
	}
	if w := serveOne(s, "POST", "/store?key=a", bytes.NewReader(make([]byte, maxValue+1))); w.Code != http.StatusInsufficientStorage {
		t.Errorf("a value that is too large: %d", w.Code)
	}
	if v.calls.Load() != 0 || len(v.kept) != 0 || v.locked("a") {
		t.Errorf("%d operations", v.calls.Load())
	}
}

// A client takes from a holder no more than it has to, and asks for nothing that the holder would refuse.
func TestHostileHolder(t *testing.T) {
	session := resultOf(t, attest.LevelSession)
	var result atomic.Pointer[attest.Result]
	result.Store(session)
	var answer atomic.Pointer[[]byte]
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = w.Write(*answer.Load())
	}))
	defer s.Close()
	c := NewClient(func(ctx context.Context) (Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
		return peer{raw, &result}, err
	}, quietly)
	defer c.Close()
	for name, text := range map[string]string{"long": strings.Repeat("x", maxList+1), "text": "text", "list": `["a/../b"]`, "foreign": `["other/x"]`, "negative": `{"size":-1}`} {
		raw := []byte(text)
		answer.Store(&raw)
		if _, err := c.List(t.Context(), "a", true); err == nil {
			t.Errorf("%s: a list", name)
		}
		if _, err := c.Info(t.Context(), "a"); err == nil {
			t.Errorf("%s: something is known of a key", name)
		}
		if _, err := c.Load(t.Context(), "a"); (err == nil) != (len(text) <= maxValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
	was := requests.Load()
	if err := c.Store(t.Context(), "a", make([]byte, maxValue+1)); attest.CodeOf(err) != attest.CodeOversized {
		t.Error(err)
	}
	if _, err := c.Load(t.Context(), "../a"); attest.CodeOf(err) != attest.CodeInternal {
		t.Error(err)
	}
	if n := requests.Load() - was; n != 0 {
		t.Errorf("%d requests", n)
	}
}

// A connection that has ended when the next operation is asked for costs nothing.
func TestReused(t *testing.T) {
	var result atomic.Pointer[attest.Result]
	result.Store(resultOf(t, attest.LevelSession))
	var dialled atomic.Int64
	var work sync.WaitGroup
	c := NewClient(func(context.Context) (Conn, error) {
		ours, theirs := net.Pipe()
		first := dialled.Add(1) == 1
		work.Go(func() {
			defer theirs.Close()
			in := bufio.NewReader(theirs)
			for n := 0; ; n++ {
				r, err := http.ReadRequest(in)
				if err != nil || first && n == 1 {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		return peer{ours, &result}, nil
	}, quietly)
	for range 2 {
		if err := c.Store(t.Context(), "a", []byte("x")); err != nil {
			t.Error(err)
		}
	}
	if dialled.Load() != 2 {
		t.Errorf("%d connections", dialled.Load())
	}
	c.Close()
	work.Wait()
}

// The number of values and their total are bounded; what is there can be replaced.
func TestRoom(t *testing.T) {
	v := newValues()
	s := NewServer(v, nil, anyOrigin, quietly)
	defer s.Close()
	for i := range maxValues {
		v.kept[fmt.Sprint("k", i)] = ""
	}
	if err := s.store(t.Context(), "one", nil); attest.CodeOf(err) != attest.CodeOversized {
		t.Errorf("one more: %v", err)
	}
	if err := s.store(t.Context(), "k0", []byte("x")); err != nil {
		t.Error(err)
	}
	v.kept = map[string]string{}
	big := make([]byte, maxValue)
	for i := range maxTotal / maxValue {
		if err := s.store(t.Context(), fmt.Sprint("k", i), big); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store(t.Context(), "one", []byte("x")); attest.CodeOf(err) != attest.CodeOversized {
		t.Errorf("one more byte: %v", err)
	}
	if err := s.store(t.Context(), "k0", big); err != nil {
		t.Error(err)
	}
}

// withDirs are values in directories, which stay.
type withDirs struct {
	*values
	dirs []string
}

func (w withDirs) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	keys, _ := w.values.List(ctx, prefix, recursive)
	return append(keys, w.dirs...), nil
}

// A replica can't fill a disk with directories that nothing is in, nor memory with lists of long keys.
func TestRoomForNames(t *testing.T) {
	w := withDirs{values: newValues()}
	for i := range maxValues - 1 {
		w.dirs = append(w.dirs, fmt.Sprintf("%0*d", maxKey, i))
	}
	s := NewServer(w, nil, anyOrigin, quietly)
	defer s.Close()
	if err := s.store(t.Context(), "one", nil); err != nil {
		t.Error(err)
	}
	if err := s.store(t.Context(), "two", nil); attest.CodeOf(err) != attest.CodeOversized {
		t.Errorf("one more: %v", err)
	}
	if answer := serveOne(s, "POST", "/list?key=", nil); answer.Code != http.StatusInsufficientStorage || answer.Body.Len() != 0 {
		t.Errorf("%d with %d bytes", answer.Code, answer.Body.Len())
	}
}

// Who is refused while it waits for its turn writes nothing, and gets nothing.
func TestRefusedInTurn(t *testing.T) {
	v := newValues()
	s := NewServer(v, nil, anyOrigin, quietly)
	defer s.Close()
	ctx, refuse := context.WithCancel(t.Context())
	refuse()
	if err := s.store(ctx, "k", []byte("x")); err == nil || len(v.kept) != 0 {
		t.Errorf("%v, %d values", err, len(v.kept))
	}
	v.calls.Store(0)
	if _, err := s.list(&request{ctx: ctx}); err == nil || v.calls.Load() != 0 {
		t.Error("all is looked through for somebody who is gone")
	}
}

// Strangers that draw out their handshakes are bounded, and so are connections.
func TestFlood(t *testing.T) {
	m := &mesh{values: newValues()}
	entered := make(chan struct{}, 2*maxHandshakes)
	m.serve(t, func(ctx context.Context, raw net.Conn) (Conn, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range maxHandshakes + 10 {
		c, err := net.Dial("tcp", m.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for range maxHandshakes {
		<-entered
	}
	for _, c := range conns[maxHandshakes:] {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("there was something to read")
		}
	}
	m.server.Close()
	if n := len(m.server.connections) + len(m.server.handshakes) + len(entered); n != 0 {
		t.Errorf("%d are left", n)
	}
	s := NewServer(newValues(), nil, func(net.Addr) string { return "one" }, quietly)
	defer s.Close()
	var leave []func()
	for range maxOfOne {
		end, ok := s.begin(conns[0])
		if !ok {
			t.Fatal("there is no room")
		}
		leave = append(leave, end)
	}
	if _, ok := s.begin(conns[0]); ok {
		t.Error("one origin has more than its share")
	}
	for _, end := range leave {
		end()
	}
	if len(s.origins) != 0 || len(s.handshakes) != 0 {
		t.Error("who has left is counted")
	}
	if !func() bool { full := make(chan struct{}, 1); return enter(full) && !enter(full) }() {
		t.Error("there is always room")
	}
}

// A lease goes on for as long as it is renewed, and ends by itself.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValues()
		l := newLeases(v)
		ctx := t.Context()
		lock := func(token string) error { return l.lock(ctx, "x", token) }
		began := time.Now()
		if err := lock("a"); err != nil || !v.locked("x") {
			t.Fatal(err)
		}
		for range 5 { // far longer than one lasts
			time.Sleep(lasts - time.Second)
			if err := lock("a"); err != nil {
				t.Fatal(err)
			}
			if err := lock("b"); !errors.Is(err, errHeld) {
				t.Fatal(err)
			}
			l.unlock("x", "b") // which is not its own
		}
		if time.Since(began) < 4*lasts {
			t.Fatal(time.Since(began))
		}
		time.Sleep(lasts - time.Millisecond)
		if err := lock("b"); !errors.Is(err, errHeld) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if v.locked("x") {
			t.Error("who has died has the lock")
		}
		if err := lock("b"); err != nil {
			t.Fatal(err)
		}
		if err := lock("a"); !errors.Is(err, errHeld) {
			t.Errorf("a lease that has ended: %v", err)
		}
		l.unlock("x", "b")
		synctest.Wait()
		if v.locked("x") || len(l.held) != 0 {
			t.Error("it was given back")
		}
		l.close()
		if err := lock("a"); err == nil {
			t.Error("after the end")
		}
	})
}

// Who uses the storage itself has locks as well: a peer is the next to have one, as long as it asks.
func TestLeaseBehindHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValues()
		l := newLeases(v)
		ctx := t.Context()
		if err := v.Lock(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if err := l.lock(ctx, "x", "a"); !errors.Is(err, errHeld) {
				t.Fatal(err)
			}
			time.Sleep(asked)
		}
		if err := v.Unlock(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		if err := l.lock(ctx, "x", "a"); err != nil {
			t.Fatal(err)
		}
		got := make(chan error)
		go func() { got <- v.Lock(ctx, "x") }() // the holder itself, behind a peer that dies
		synctest.Wait()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if err := l.lock(ctx, "x", "b"); !errors.Is(err, errHeld) {
			t.Fatal(err)
		}
		time.Sleep(2 * lasts) // who only waits, and dies, is next no more
		synctest.Wait()
		if len(l.held) != 0 {
			t.Error("it waits still")
		}
		_ = v.Unlock(ctx, "x")
		for i := range maxLocks {
			if err := l.lock(ctx, fmt.Sprint(i), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.lock(ctx, "x", "a"); attest.CodeOf(err) != attest.CodeOversized {
			t.Error(err)
		}
		l.close()
		if len(v.locks) != 0 {
			t.Errorf("%d locks are left", len(v.locks))
		}
	})
}

// failing locks nothing.
type failing struct{ *values }

func (failing) Lock(context.Context, string) error { return errFailed }

func TestLeaseFails(t *testing.T) {
	l := newLeases(failing{newValues()})
	defer l.close()
	if err := l.lock(t.Context(), "x", "a"); !errors.Is(err, errFailed) {
		t.Error(err)
	}
	if len(l.held) != 0 {
		t.Error("it is held")
	}
}

// pipes is a Dial to a server in this process, without a network: time can be that of a synctest.
func pipes(s *Server, result *atomic.Pointer[attest.Result]) Dial {
	in := &entrance{conns: make(chan net.Conn), closed: s.living.Done(), address: &net.TCPAddr{}}
	s.work.Go(func() { _ = s.http.Serve(in) })
	return func(context.Context) (Conn, error) {
		a, b := net.Pipe()
		s.connections <- struct{}{}
		err := in.take(&counted{Conn: guarded{peer{b, result}}, raw: b, leave: sync.OnceFunc(func() { <-s.connections })})
		return peer{a, result}, err
	}
}

// Over the wire a client keeps a lock for as long as it lives, and another one gets it soon after.
func TestClientLocks(t *testing.T) {
	var result atomic.Pointer[attest.Result]
	result.Store(resultOf(t, attest.LevelSession))
	synctest.Test(t, func(t *testing.T) {
		v := newValues()
		s := NewServer(v, nil, anyOrigin, quietly)
		dial := pipes(s, &result)
		one, two := NewClient(dial, quietly), NewClient(dial, quietly)
		ctx := t.Context()
		if err := one.Lock(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		short, end := context.WithTimeout(ctx, 10*lasts)
		if err := two.Lock(short, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("two have it: %v", err)
		}
		end()
		died := time.Now()
		one.Close()
		if err := two.Lock(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(died); took > lasts+2*asked {
			t.Errorf("it took %s", took)
		}
		began := time.Now()
		if err := two.Unlock(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		three := NewClient(dial, quietly)
		if err := three.Lock(ctx, "x"); err != nil || time.Since(began) > 2*asked {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if err := v.Lock(ctx, "z"); err != nil {
			t.Fatal(err)
		}
		short, end = context.WithTimeout(ctx, 2*asked)
		if err := three.Lock(short, "z"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		end()
		if s.leases.mu.Lock(); s.leases.held["z"] != nil {
			t.Error("who waits no more is the next")
		}
		s.leases.mu.Unlock()
		if err := one.Lock(ctx, "y"); err == nil {
			t.Error("a lock that nobody renews")
		}
		two.Close()
		three.Close()
		s.Close()
		one.Close()
	})
}

// ending is a connection that says when it is closed.
type ending struct {
	peer
	ended *atomic.Bool
}

func (e ending) Close() error {
	e.ended.Store(true)
	return e.peer.Close()
}

// A connection on which something is under way is not used again once it is to be made anew, whatever is asked for meanwhile.
func TestRenew(t *testing.T) {
	var result atomic.Pointer[attest.Result]
	result.Store(resultOf(t, attest.LevelSession))
	synctest.Test(t, func(t *testing.T) {
		v := newValues()
		s := NewServer(v, nil, anyOrigin, quietly)
		pipe := pipes(s, &result)
		var first atomic.Bool
		var dialled atomic.Int64
		c := NewClient(func(ctx context.Context) (Conn, error) {
			conn, err := pipe(ctx)
			if dialled.Add(1) == 1 {
				return ending{conn.(peer), &first}, err
			}
			return conn, err
		}, quietly)
		v.during = func() {
			c.Renew()
			if _, err := c.ask(t.Context(), "unlock", of("x"), nil, 0); err != nil {
				t.Error(err)
			}
		}
		_, _ = c.Load(t.Context(), "a")
		synctest.Wait()
		if !first.Load() || dialled.Load() != 2 {
			t.Errorf("closed %v, %d connections", first.Load(), dialled.Load())
		}
		c.Close()
		s.Close()
	})
}

// A lock that ran out while the holder was away, and that another caller here has had since, is not taken again by who had it before:
// nobody would ever give it back.
func TestLockNotTakenAgain(t *testing.T) {
	var result atomic.Pointer[attest.Result]
	result.Store(resultOf(t, attest.LevelSession))
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(newValues(), nil, anyOrigin, quietly)
		c := NewClient(pipes(s, &result), quietly)
		if err := c.Lock(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		first := c.held["x"].token
		c.mu.Unlock()
		s.leases.unlock("x", first) // as its time would
		if err := c.Lock(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if err := c.Unlock(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * renewed)
		_ = c.Unlock(t.Context(), "x") // of the first one
		time.Sleep(2 * lasts)
		s.leases.mu.Lock()
		if s.leases.held["x"] != nil {
			t.Error("a lock that nobody gives back")
		}
		s.leases.mu.Unlock()
		c.Close()
		s.Close()
	})
}

func FuzzRequest(f *testing.F) {
	for _, op := range []string{"load", "store", "delete", "info", "list", "lock", "unlock", "", "x"} {
		f.Add(op, "key=a%2Fb&token=t&recursive=true", []byte("value"))
	}
	f.Add("store", "key=..%2Fx", []byte{})
	f.Add("load", "key=%zz;&&=", []byte{})
	f.Fuzz(func(t *testing.T, op, query string, body []byte) {
		u := &url.URL{Path: "/" + op, RawQuery: query}
		v := newValues()
		s := NewServer(v, nil, anyOrigin, quietly)
		defer s.Close()
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, &http.Request{Method: http.MethodPost, URL: u, Body: io.NopCloser(bytes.NewReader(body))})
		for k := range v.kept {
			if checkKey(k) != nil {
				t.Fatalf("%q is a key", k)
			}
		}
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%s?%s has failed", op, query)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`["a/b"]`), "a")
	f.Add([]byte(`{"modified":"2026-01-02T03:04:05Z","size":3,"terminal":true}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, prefix string) {
		if keys, err := decodeList(raw, prefix); err == nil {
			for _, k := range keys {
				if checkKey(k) != nil || prefix != "" && !strings.HasPrefix(k, prefix+"/") {
					t.Fatalf("%q is listed below %q", k, prefix)
				}
			}
		}
		if i, err := decodeInfo(raw); err == nil && i.Size < 0 {
			t.Fatal(i.Size)
		}
	})
}
