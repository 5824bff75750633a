package pins_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/pins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware is the smallest platform: its evidence is the report data itself.
type hardware struct{}

func (hardware) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	return &attest.Evidence{Format: "test", Raw: rd[:]}, nil
}

type verifier struct{ fail atomic.Pointer[attest.Error] }

func (v *verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if err := v.fail.Load(); err != nil {
		return nil, err
	}
	return &attest.Claims{Vendor: "test", ReportData: attest.ReportData(ev.Raw)}, nil
}

// policy affirms at a least level, or refuses with a code.
type policy struct {
	min    attest.Level
	refuse attest.Code
	age    time.Duration
}

func (p *policy) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.refuse != "" {
		c.Status, c.Code = attest.StatusFail, p.refuse
	} else if !s.Level.AtLeast(p.min) {
		c.Status, c.Code = attest.StatusFail, attest.CodeBindingTooWeak
	}
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{c}}
}

func (p *policy) EvidenceAge() time.Duration { return p.age }

// world has a peer that can have another identity, or be away, and a Keeper that looks at it.
type world struct {
	*testing.T
	verifier verifier
	enforcer *enforce.Enforcer
	peer     atomic.Pointer[ratls.Identity] // nil is away
	nextAway atomic.Bool                    // what it is going to serve with is not to be seen
	ahead    atomic.Int64                   // of our clock
	target   pins.Target
	keeper   *pins.Keeper
	looks    atomic.Int64

	mu   sync.Mutex
	told []string
}

const place = "list"

func newWorld(t *testing.T, p *policy) *world {
	w := &world{T: t}
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, &w.verifier)
	w.enforcer = enforce.New(func(attest.Stack) *attest.Appraiser { return appraiser }, now, nil)
	w.put(p)
	w.renew()
	w.target = pins.Target{Address: w.listen(), Name: "127.0.0.1"}
	at := w.enforcer.Place(place)
	party := ratls.NewEnforcedParty(at, now).ForPin()
	w.keeper = pins.New(at, func(ctx context.Context, target pins.Target) (*attest.Result, ratls.Presented, error) {
		defer w.looks.Add(1)
		if w.peer.Load() == nil || target.Successor && w.nextAway.Load() {
			return nil, ratls.Presented{}, errors.New("away")
		}
		raw, _, err := ratls.Connect(ctx, target.Address)
		if err != nil {
			return nil, ratls.Presented{}, err
		}
		connector := ratls.NewConnector(party, "h2").CertificateOnly()
		if target.Successor {
			connector = connector.Successor()
		}
		conn, err := connector.Handshake(ctx, raw, target.Name)
		var refusal *ratls.Refusal
		if errors.As(err, &refusal) {
			return refusal.Result, refusal.Presented, nil
		} else if err != nil {
			return nil, ratls.Presented{}, err
		}
		defer conn.Close()
		return conn.Result(), conn.Presented(), nil
	}, pins.Options{Now: now, Told: func(_ pins.Target, r *attest.Result, err error) {
		if err == nil {
			err = r.Err()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, string(attest.CodeOf(err)))
	}})
	t.Cleanup(w.keeper.Close)
	return w
}

func (w *world) put(p attest.Policy) {
	w.enforcer.Apply(w.Context(), enforce.Change{Policies: map[string]attest.Policy{"p": p}, Places: map[string][]string{place: {"p"}}})
}

// renew has the peer present another key, and answers it.
func (w *world) renew() pins.Key {
	w.Helper()
	id, err := ratls.NewIdentity(w.Context(), hardware{}, []string{"127.0.0.1"}, [32]byte{7}, ratls.IdentityOptions{})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(id.Close)
	w.peer.Store(id)
	return keyOf(id)
}

func keyOf(id *ratls.Identity) pins.Key {
	return sha256.Sum256(id.Leaf().Certificate.RawSubjectPublicKeyInfo)
}

func (w *world) listen() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			id := w.peer.Load()
			if id == nil {
				_ = raw.Close()
				continue
			}
			work.Go(func() {
				if conn, err := ratls.NewAcceptor(id).Handshake(w.Context(), raw); err == nil {
					_, _ = conn.Read(make([]byte, 1))
					_ = conn.Close()
				}
			})
		}
	})
	w.Cleanup(func() {
		_ = ln.Close()
		work.Wait()
	})
	return ln.Addr().String()
}

func (w *world) aim() { w.keeper.Aim([]pins.Target{w.target}, 10*time.Millisecond) }

// keeps waits until the keys are these.
func (w *world) keeps(keys ...pins.Key) {
	w.Helper()
	slices.SortFunc(keys, func(a, b pins.Key) int { return slices.Compare(a[:], b[:]) })
	for end := time.Now().Add(20 * time.Second); !slices.Equal(w.keeper.Keys(), keys); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.Fatalf("it keeps %d keys, want %d; told %q", len(w.keeper.Keys()), len(keys), w.told)
		}
	}
}

// looked waits until the peer was looked at from beginning to end.
func (w *world) looked() {
	w.Helper()
	from := w.looks.Load()
	for end := time.Now().Add(20 * time.Second); w.looks.Load() < from+3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.Fatal("it does not look")
		}
	}
}

func TestKept(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelPinned})
	if keys := w.keeper.Keys(); len(keys) != 0 || !w.keeper.Next().IsZero() {
		t.Fatalf("it has %d keys already", len(keys))
	}
	first := keyOf(w.peer.Load())
	w.aim()
	w.keeps(first)
	if next := w.keeper.Next(); !next.Equal(w.peer.Load().Leaf().Certificate.NotAfter) {
		t.Errorf("the key ends %v", next)
	}
	second := w.renew()
	w.keeps(first, second) // there may be more than one machine behind the address
	w.aim()
	if keys := w.keeper.Keys(); len(keys) != 2 {
		t.Errorf("what stays was forgotten: %d keys", len(keys))
	}
	w.peer.Store(nil) // away
	w.looked()
	w.keeps(first, second)
	w.keeper.Aim(nil, time.Second)
	w.keeps()
	w.aim()
	w.keeper.Close()
	w.aim()
	w.keeps()
}

// A pin is less than a connection: the policy has to take that.
func TestLevel(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelKey})
	w.aim()
	w.looked()
	w.keeps()
	w.put(&policy{min: attest.LevelPinned})
	w.keeps(keyOf(w.peer.Load()))
}

// A policy that refuses takes the key away before Apply returns, whether or not the peer can be reached.
func TestPolicyChange(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelPinned})
	w.aim()
	key := keyOf(w.peer.Load())
	w.keeps(key)
	w.peer.Store(nil)
	w.looked()
	w.put(&policy{refuse: attest.CodeDebug})
	if keys := w.keeper.Keys(); len(keys) != 0 {
		t.Error("it is kept")
	}
	w.put(&policy{min: attest.LevelPinned})
	w.looked()
	w.keeps()
	w.enforcer.Apply(t.Context(), enforce.Change{Policies: map[string]attest.Policy{"p": nil}})
	w.renew()
	w.looked()
	w.keeps()
}

// Endorsements have changed: evidence that is no longer authentic takes the key away, and what can't be said takes nothing.
func TestEndorsements(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelPinned})
	w.aim()
	key := keyOf(w.peer.Load())
	w.keeps(key)
	w.verifier.fail.Store(&attest.Error{Code: attest.CodeEndorsementMissing, Check: "endorsements"})
	w.looked()
	w.keeps(key)
	w.renew()
	w.looked()
	w.keeps(key) // the other one is not known to be good
	w.peer.Store(nil)
	w.looked()
	w.verifier.fail.Store(&attest.Error{Code: attest.CodeSignature, Check: "signature"})
	w.enforcer.Endorsed(t.Context())
	if keys := w.keeper.Keys(); len(keys) != 0 {
		t.Error("it is kept")
	}
}

// What a target shows that is refused takes away all that it has shown before.
func TestRefused(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelPinned})
	w.aim()
	w.keeps(keyOf(w.peer.Load()))
	w.verifier.fail.Store(&attest.Error{Code: attest.CodeSignature, Check: "signature"})
	w.keeps()
	w.verifier.fail.Store(nil)
	w.keeps(keyOf(w.peer.Load()))
}

func TestExpiry(t *testing.T) {
	for name, tc := range map[string]struct{ age, just, over time.Duration }{
		"certificate": {0, 50 * time.Minute, 61 * time.Minute},
		"evidence":    {10 * time.Minute, 8 * time.Minute, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, &policy{min: attest.LevelPinned, age: tc.age})
			w.aim()
			key := keyOf(w.peer.Load())
			w.keeps(key)
			w.peer.Store(nil)
			w.looked()
			w.ahead.Store(int64(tc.just))
			w.keeps(key)
			w.ahead.Store(int64(tc.over))
			w.keeps()
			for end := time.Now().Add(20 * time.Second); !w.keeper.Next().IsZero(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it is not forgotten")
				}
			}
		})
	}
}

// One address can be many machines, and not any number of them.
func TestMany(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelPinned})
	w.aim()
	var keys []pins.Key
	for range 20 {
		key := w.renew()
		keys = append(keys, key)
		for end := time.Now().Add(20 * time.Second); !slices.Contains(w.keeper.Keys(), key); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it is not taken")
			}
		}
	}
	if got := w.keeper.Keys(); len(got) != 16 || !slices.Contains(got, keys[19]) {
		t.Errorf("it keeps %d", len(got))
	}
}

// A Keeper ends while it looks at a peer that does not answer.
func TestCloseWhileLooking(t *testing.T) {
	began := make(chan struct{})
	k := pins.New(enforce.Place{}, func(ctx context.Context, _ pins.Target) (*attest.Result, ratls.Presented, error) {
		close(began)
		<-ctx.Done()
		return nil, ratls.Presented{}, ctx.Err()
	}, pins.Options{Told: func(pins.Target, *attest.Result, error) { t.Error("there is nothing to tell") }})
	k.Aim([]pins.Target{{Address: "x:1", Name: "x"}}, time.Hour)
	<-began
	k.Close()
}

// The key that a peer is going to serve with next is kept beside that of now, and goes with it when the peer is refused.
func TestSuccessor(t *testing.T) {
	w := newWorld(t, &policy{min: attest.LevelPinned})
	next := w.target
	next.Successor = true
	first := keyOf(w.peer.Load())
	w.keeper.Aim([]pins.Target{w.target, next}, 10*time.Millisecond)
	w.keeps(first)
	if err := w.peer.Load().Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); len(w.keeper.Keys()) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the next key is not kept")
		}
	}
	leaves := w.keeper.Leaves()
	w.peer.Load().Promote()
	second := keyOf(w.peer.Load())
	for i, key := range w.keeper.Keys() {
		leaf, err := x509.ParseCertificate(leaves[i])
		if err != nil || sha256.Sum256(leaf.RawSubjectPublicKeyInfo) != key {
			t.Error("leaves and keys differ", err)
		}
	}
	w.keeps(first, second) // until its certificate ends, for peers that are many machines

	// The next one can't be seen any more, and that of now is refused: both go.
	w.nextAway.Store(true)
	w.looked()
	w.keeps(first, second)
	w.verifier.fail.Store(&attest.Error{Code: attest.CodeSignature, Check: "test"})
	w.keeps()
}
