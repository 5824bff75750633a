package public

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/public/share"
	"github.com/jurat-tls/jurat/test/pebble"
)

// affirmed is a connection to a peer that was affirmed.
type affirmed struct {
	net.Conn
	result *attest.Result
}

func (a affirmed) Result() *attest.Result { return a.result }

type anybody struct{}

func (anybody) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	return &attest.Claims{Vendor: "test", ReportData: attest.ReportData(ev.Raw)}, nil
}

func (anybody) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{{ID: "test", Status: attest.StatusPass}}}
}

// overWire is a storage as another replica has it.
func overWire(t testing.TB, s *Storage) (*Storage, func()) {
	t.Helper()
	now, data := time.Now(), attest.ReportData{1}
	result := attest.NewAppraiser(attest.NoEndorser{}, anybody{}).
		Appraise(context.Background(), &attest.Evidence{Format: "test", Raw: data[:]}, attest.Expect(data, attest.LevelSession, now), anybody{}, now)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	server := share.NewServer(s.Values(), func(_ context.Context, raw net.Conn) (share.Conn, error) { return affirmed{raw, result}, nil }, net.Addr.String, log)
	server.Serve(ln)
	client := share.NewClient(func(ctx context.Context) (share.Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		return affirmed{raw, result}, err
	}, log)
	return NewRemote(client), func() {
		client.Close()
		server.Close()
	}
}

// answering are Values that answer when they are told to.
type answering struct {
	share.Values
	mu     sync.Mutex
	loads  int
	answer func() ([]byte, error)
	store  func() error
}

func (a *answering) Load(context.Context, string) ([]byte, error) {
	a.mu.Lock()
	a.loads++
	a.mu.Unlock()
	return a.answer()
}

func (a *answering) Store(context.Context, string, []byte) error {
	return a.store()
}

func (a *answering) Info(context.Context, string) (share.Info, error) {
	_, err := a.answer()
	return share.Info{}, err
}

// However many strangers say that they are the CA, the holder is asked once for all that wait, and whoever comes later gets what is there
// by then.
func TestChallengeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := make(chan string)
		a := &answering{answer: func() ([]byte, error) { return []byte(<-now), nil }}
		r := NewRemote(a).values
		var work sync.WaitGroup
		got := make(chan string, 200)
		strangers := func(n int) {
			for range n {
				work.Go(func() {
					v, err := r.Load(t.Context(), "challenges/ca/tls-alpn-01/shop.example")
					if err != nil {
						t.Error(err)
					}
					got <- string(v)
				})
			}
			synctest.Wait()
		}
		strangers(1)
		strangers(50) // who come while the first one asks
		now <- "old"
		if v := <-got; v != "old" {
			t.Error(v)
		}
		now <- "new"
		work.Wait()
		if a.loads != 2 {
			t.Errorf("the holder was asked %d times", a.loads)
		}
		for range 50 {
			if v := <-got; v != "new" {
				t.Fatalf("%q, which was found before they came", v)
			}
		}
		strangers(1)
		now <- "newest"
		if v := <-got; v != "newest" || a.loads != 3 {
			t.Errorf("%q, asked %d times", v, a.loads)
		}
		gone, end := context.WithCancel(t.Context())
		work.Go(func() { _, _ = r.Load(t.Context(), "challenges/x") })
		synctest.Wait()
		end()
		if _, err := r.Load(gone, "challenges/x"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		now <- ""
		work.Wait()
		for i := range maxFound + 2 {
			work.Go(func() { _, _ = r.Load(t.Context(), fmt.Sprint("challenges/", i)) })
			now <- ""
			work.Wait()
		}
		if n := len(r.(*remote).found); n > maxFound {
			t.Errorf("%d are remembered", n)
		}
	})
}

// Who goes away while the holder is asked leaves nothing to the others.
func TestChallengeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := make(chan string)
		r := NewRemote(&answering{answer: func() ([]byte, error) { return []byte(<-now), nil }}).values
		const key = "challenges/x"
		var work sync.WaitGroup
		work.Go(func() { _, _ = r.Load(t.Context(), key) })
		synctest.Wait()
		gone, end := context.WithCancel(t.Context())
		var values sync.Map
		for _, ctx := range []context.Context{gone, t.Context()} { // in this order they get their turns
			work.Go(func() {
				v, err := r.Load(ctx, key)
				values.Store(ctx, fmt.Sprint(string(v), err))
			})
			synctest.Wait()
		}
		now <- "first"
		synctest.Wait()
		end()
		now <- "left"
		synctest.Wait()
		now <- "right"
		work.Wait()
		if v, _ := values.Load(t.Context()); v != "right<nil>" {
			t.Errorf("%v", v)
		}
	})
}

// Without the holder there is no order, certificates stay, and another configuration begins with them.
func TestHolderAway(t *testing.T) {
	away := &attest.Error{Code: attest.CodeStorageAway}
	a := &answering{answer: func() ([]byte, error) { return nil, away }}
	storage := NewRemote(a)
	if !storage.values.Exists(t.Context(), "x") {
		t.Error("what can't be said is taken for no")
	}
	made := ACME{Directory: "https://ca.example/dir", ALPN: true} // where nobody is
	c, err := NewCertificates([]string{"shop.example"}, made, storage, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, patience := c.slots["shop.example"], time.Duration(0)
	err = c.obtain(t.Context(), s, false, true, &patience)
	if attest.CodeOf(err) != attest.CodeStorageAway {
		t.Error(err)
	}
	if p := c.pause(s, 0, err); p > 2*awayRetry {
		t.Errorf("a pause of %s, as if a CA had been asked", p)
	}
	if p := c.pause(s, 9, err); p < awayLongest || p > 2*awayLongest {
		t.Errorf("a pause of %s after many failures", p)
	}
	if p := c.pause(s, 0, away); p < c.issuer.Retry {
		t.Errorf("a pause of %s", p)
	}
	a.answer = func() ([]byte, error) { return nil, fs.ErrNotExist }
	a.store = func() error { // it goes away when the library stores something
		a.answer = func() ([]byte, error) { return nil, away }
		return away
	}
	if err := c.obtain(t.Context(), s, false, true, &patience); attest.CodeOf(err) != attest.CodeStorageAway || errors.As(err, new(unasked)) {
		t.Error(err)
	}
	a.answer = func() ([]byte, error) { return nil, away }
	chain, key := pebble.SelfSigned(t, "shop.example")
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	c.take(s, &cert)
	again, err := NewCertificates([]string{"shop.example", "other.example"}, made, storage, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Certificate("shop.example"); err != nil || got.Leaf != cert.Leaf {
		t.Errorf("it was lost: %v", err)
	}
	if _, err := again.Certificate("other.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
	a.answer = func() ([]byte, error) { return nil, fs.ErrNotExist }
	if storage.values.Exists(t.Context(), "x") {
		t.Error("what is not there exists")
	}
}

// What a holder says of challenges is remembered, and so it is no more than a CA says at once.
func TestChallengeTooLong(t *testing.T) {
	a := &answering{answer: func() ([]byte, error) { return make([]byte, bodyLimit+1), nil }}
	r := NewRemote(a).values.(*remote)
	if v, err := r.Load(t.Context(), "challenges/x"); attest.CodeOf(err) != attest.CodeOversized || v != nil || len(r.found["challenges/x"].value) != 0 {
		t.Errorf("%d bytes, %v, %d are remembered", len(v), err, len(r.found["challenges/x"].value))
	}
	a.answer = func() ([]byte, error) { return make([]byte, bodyLimit), nil }
	if v, err := r.Load(t.Context(), "challenges/x"); err != nil || len(v) != bodyLimit {
		t.Errorf("%d bytes, %v", len(v), err)
	}
}

// lockless are Values whose locks somebody else has, and keeps.
type lockless struct{ *answering }

func (lockless) Lock(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// Who keeps a lock for ever keeps nobody waiting for ever: there is something wrong that can be seen.
func TestLockThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &attest.Error{Code: attest.CodeStoreBroken}
		storage := NewRemote(lockless{&answering{answer: func() ([]byte, error) { return nil, broken }}})
		c, err := NewCertificates([]string{"shop.example"}, ACME{Directory: "https://ca.example/dir", ALPN: true}, storage, time.Now, nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, end := context.WithTimeout(t.Context(), 24*time.Hour)
		defer end()
		if err := c.reload(ctx, c.slots["shop.example"]); err == nil || time.Since(began) > answerLimit {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// For a key that another machine may have there is no evidence: a relying party would know nothing of that one.
func TestSharedIsOutside(t *testing.T) {
	holder := NewMemory()
	outside := func(s *Storage) bool {
		t.Helper()
		c, err := NewCertificates([]string{"shop.example"}, ACME{Directory: "https://ca.example/dir", ALPN: true}, s, time.Now, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Outside()
	}
	if outside(holder) {
		t.Error("nobody else has them")
	}
	other, end := overWire(t, holder)
	defer end()
	if !outside(holder) || !outside(other) {
		t.Error("there are two who have them")
	}
}

// A challenge that one replica is asked is answered by another one, with what the first has stored.
func TestChallengeElsewhere(t *testing.T) {
	holder := NewMemory()
	one, endOne := overWire(t, holder)
	defer endOne()
	two, endTwo := overWire(t, holder)
	defer endTwo()
	ch := pendingChallenge(acme.ChallengeTypeTLSALPN01, "shop.example")
	if err := newChallenges(one, "ca").add(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Storage{holder, two} {
		cert, err := newChallenges(s, "ca").certificate(t.Context(), "shop.example")
		if err != nil || len(cert.Certificate) != 1 {
			t.Fatal(err)
		}
	}
	if err := newChallenges(one, "ca").remove(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	if _, err := newChallenges(two, "ca").certificate(t.Context(), "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
}
