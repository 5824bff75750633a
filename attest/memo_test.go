package attest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
)

var (
	crlRef = attest.Ref{Service: "vendor", Path: "/crl", Kind: attest.KindCRL}
	tcbRef = attest.Ref{Service: "vendor", Path: "/tcb", Kind: attest.KindTCBInfo}
)

// hardware is a Verifier whose claims are all that a verification depends on: evidence, answers and time. Evidence "bad…" is
// not authentic, and evidence "foreign…" is another's. The revocation list is a claim also where there is none.
type hardware struct {
	calls atomic.Int64
	enter func(context.Context) // called on the way in
}

func (h *hardware) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	h.calls.Add(1)
	if h.enter != nil {
		h.enter(ctx)
	}
	return facts(ctx, ev, endorser, now)
}

func facts(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	switch {
	case bytes.HasPrefix(ev.Raw, []byte("foreign")):
		return nil, attest.ErrNotMine
	case bytes.HasPrefix(ev.Raw, []byte("bad")):
		return nil, &attest.Error{Code: attest.CodeSignature, Check: "authenticity.signature"}
	}
	c := &attest.Claims{Vendor: fmt.Sprintf("%q", *ev), Made: now, Measured: map[string]attest.HexBytes{"launch": ev.Raw}}
	tcb, err := endorser.Endorse(ctx, tcbRef)
	if err != nil {
		return nil, err
	}
	crl, err := endorser.Endorse(ctx, crlRef)
	if again, err2 := endorser.Endorse(ctx, crlRef); fmt.Sprint(crl, err) != fmt.Sprint(again, err2) {
		return nil, errors.New("asked twice, answered differently")
	}
	c.Generation = fmt.Sprintf("%q %q", tcb, crl)
	if err != nil {
		c.Revocation.Problem = &attest.Error{Code: attest.CodeOf(err), Err: err}
	}
	return c, nil
}

// shelf is an Endorser that answers from a map, and with a failure what it does not have.
type shelf map[attest.Ref]any // []attest.Endorsement or error

func (s shelf) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	switch a := s[ref].(type) {
	case []attest.Endorsement:
		return a, nil
	case error:
		return []attest.Endorsement{{Raw: []byte("beside an error")}}, a
	}
	return attest.NoEndorser{}.Endorse(ctx, ref)
}

func list(kind attest.Kind, raws ...string) (all []attest.Endorsement) {
	for _, r := range raws {
		all = append(all, attest.Endorsement{Kind: kind, Raw: []byte(r)})
	}
	return all
}

func vendor() shelf {
	return shelf{tcbRef: list(attest.KindTCBInfo, "tcb"), crlRef: list(attest.KindCRL, "crl")}
}

func (s shelf) with(ref attest.Ref, answer any) shelf {
	other := shelf{}
	for k, v := range s {
		other[k] = v
	}
	other[ref] = answer
	return other
}

func quote() *attest.Evidence {
	return &attest.Evidence{Format: "test", Raw: []byte("quote"), Endorsements: list(attest.KindCertificate, "leaf", "root"), EventLog: []byte("log")}
}

// What a remembered verification counts for, and what not.
func TestMemo(t *testing.T) {
	type call struct {
		ev *attest.Evidence
		e  attest.Endorser
		at time.Duration
	}
	evidence := func(change func(*attest.Evidence)) *attest.Evidence {
		ev := quote()
		change(ev)
		return ev
	}
	unreachable := func(code attest.Code, got string, err error) error {
		return &attest.Error{Code: code, Check: "c", Got: got, Err: err}
	}
	down := vendor().with(crlRef, unreachable(attest.CodeEndorserUnreachable, "a", errors.New("x")))
	first := call{quote(), vendor(), 0}
	for name, c := range map[string]struct {
		first, second call
		anew          bool
	}{
		"the same":                     {first, first, false},
		"ten seconds later":            {first, call{quote(), vendor(), 10 * time.Second}, false},
		"more than that":               {first, call{quote(), vendor(), 10*time.Second + 1}, true},
		"a clock set back":             {first, call{quote(), vendor(), -1}, true},
		"another format":               {first, call{evidence(func(e *attest.Evidence) { e.Format = "tes" }), vendor(), 0}, true},
		"other bytes":                  {first, call{evidence(func(e *attest.Evidence) { e.Raw[4] ^= 1 }), vendor(), 0}, true},
		"another log":                  {first, call{evidence(func(e *attest.Evidence) { e.EventLog = nil }), vendor(), 0}, true},
		"log and bytes shifted":        {first, call{evidence(func(e *attest.Evidence) { e.Raw, e.EventLog = []byte("quotelog"), nil }), vendor(), 0}, true},
		"format and bytes shifted":     {first, call{evidence(func(e *attest.Evidence) { e.Format, e.Raw = "testq", []byte("uote") }), vendor(), 0}, true},
		"another stapled":              {first, call{evidence(func(e *attest.Evidence) { e.Endorsements[1].Raw = []byte("rood") }), vendor(), 0}, true},
		"another kind":                 {first, call{evidence(func(e *attest.Evidence) { e.Endorsements[1].Kind = attest.KindCRL }), vendor(), 0}, true},
		"one stapled less":             {first, call{evidence(func(e *attest.Evidence) { e.Endorsements = e.Endorsements[:1] }), vendor(), 0}, true},
		"stapled, shifted":             {first, call{evidence(func(e *attest.Evidence) { e.Endorsements = list(attest.KindCertificate, "leafroot", "") }), vendor(), 0}, true},
		"another order":                {first, call{evidence(func(e *attest.Evidence) { e.Endorsements = list(attest.KindCertificate, "root", "leaf") }), vendor(), 0}, true},
		"another endorser, same words": {first, call{quote(), record.NewRecorder(vendor()), 0}, false},
		"another list":                 {first, call{quote(), vendor().with(crlRef, list(attest.KindCRL, "crm")), 0}, true},
		"another first answer":         {first, call{quote(), vendor().with(tcbRef, list(attest.KindTCBInfo, "tcc")), 0}, true},
		"an answer's kind":             {first, call{quote(), vendor().with(crlRef, list(attest.KindPublicKey, "crl")), 0}, true},
		"two answers":                  {first, call{quote(), vendor().with(crlRef, list(attest.KindCRL, "crl", "")), 0}, true},
		"an answer, shifted":           {first, call{quote(), vendor().with(crlRef, list(attest.KindCRL, "c", "rl")), 0}, true},
		"no answer any more":           {first, call{quote(), vendor().with(crlRef, nil), 0}, true},
		"the same failure":             {call{quote(), down, 0}, call{quote(), down, 0}, false},
		"a failure that went away":     {call{quote(), down, 0}, first, true},
		"another code":                 {call{quote(), down, 0}, call{quote(), down.with(crlRef, unreachable(attest.CodeEndorserRefused, "a", errors.New("x"))), 0}, true},
		"another detail":               {call{quote(), down, 0}, call{quote(), down.with(crlRef, unreachable(attest.CodeEndorserUnreachable, "b", errors.New("x"))), 0}, true},
		"another cause":                {call{quote(), down, 0}, call{quote(), down.with(crlRef, unreachable(attest.CodeEndorserUnreachable, "a", errors.New("y"))), 0}, true},
		"another kind of failure":      {call{quote(), vendor().with(crlRef, context.Canceled), 0}, call{quote(), vendor().with(crlRef, errors.New(context.Canceled.Error()+" ")), 0}, true},
		"failure, said by another type": {
			call{quote(), vendor().with(crlRef, fmt.Errorf("%w", context.Canceled)), 0}, call{quote(), vendor().with(crlRef, context.Canceled), 0}, true,
		},
		"a hint that the text hides": {
			call{quote(), vendor().with(crlRef, &attest.Error{Hint: "a"}), 0}, call{quote(), vendor().with(crlRef, &attest.Error{Hint: "b"}), 0}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := new(hardware)
			m := attest.NewMemo(h)
			one, err := m.Verify(t.Context(), c.first.ev, c.first.e, now.Add(c.first.at))
			if err != nil {
				t.Fatal(err)
			}
			two, err := m.Verify(t.Context(), c.second.ev, c.second.e, now.Add(c.second.at))
			if err != nil {
				t.Fatal(err)
			}
			if (one != two) != c.anew || (h.calls.Load() == 2) != c.anew {
				t.Errorf("%d verifications", h.calls.Load())
			}
			want, err := facts(t.Context(), c.second.ev, c.second.e, two.Made)
			if err != nil || fmt.Sprintf("%+v", want) != fmt.Sprintf("%+v", two) {
				t.Errorf("got %+v, want %+v (%v)", two, want, err)
			}
			// What was verified last is what is remembered.
			if three, err := m.Verify(t.Context(), c.second.ev, c.second.e, now.Add(c.second.at)); err != nil || three != two {
				t.Errorf("the latest is not remembered: %v", err)
			}
		})
	}
}

// A field that evidence gains has to be part of what is compared.
func TestMemoKnowsEveryField(t *testing.T) {
	for of, fields := range map[reflect.Type]int{reflect.TypeFor[attest.Evidence](): 4, reflect.TypeFor[attest.Endorsement](): 2, reflect.TypeFor[attest.Error](): 7} {
		if of.NumField() != fields {
			t.Errorf("%s has %d fields, and memo.go compares %d", of, of.NumField(), fields)
		}
	}
}

func TestMemoForgetsFailures(t *testing.T) {
	h := new(hardware)
	m := attest.NewMemo(h)
	forgetful := attest.NewMemo(verifier(func(*attest.Evidence) (*attest.Claims, error) { return nil, nil }))
	both := attest.NewMemo(verifier(func(*attest.Evidence) (*attest.Claims, error) { return new(attest.Claims), attest.ErrNotMine }), h)
	for range 3 {
		if _, err := m.Verify(t.Context(), &attest.Evidence{Raw: []byte("bad")}, vendor(), now); attest.CodeOf(err) != attest.CodeSignature {
			t.Errorf("got %v", err)
		}
		if _, err := m.Verify(t.Context(), &attest.Evidence{Raw: []byte("foreign")}, vendor(), now); !errors.Is(err, attest.ErrNotMine) {
			t.Errorf("got %v", err)
		}
		if _, err := m.Verify(t.Context(), quote(), vendor().with(tcbRef, nil), now); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("got %v", err)
		}
		if c, err := forgetful.Verify(t.Context(), quote(), vendor(), now); c != nil || attest.CodeOf(err) != attest.CodeInternal {
			t.Errorf("got %v, %v", c, err)
		}
		if c, err := both.Verify(t.Context(), &attest.Evidence{Raw: []byte("foreign")}, vendor(), now); c != nil || !errors.Is(err, attest.ErrNotMine) {
			t.Errorf("got %v, %v", c, err)
		}
	}
	if h.calls.Load() != 12 {
		t.Errorf("%d verifications", h.calls.Load())
	}
	if c, err := both.Verify(t.Context(), quote(), vendor(), now); c == nil || err != nil {
		t.Errorf("the second verifier was not asked: %v", err)
	}
	if _, err := attest.NewMemo().Verify(t.Context(), quote(), vendor(), now); !errors.Is(err, attest.ErrNotMine) {
		t.Errorf("without a verifier: %v", err)
	}
	// Behind an Appraiser the answers are those of the verifiers themselves.
	unknown := attest.NewAppraiser(vendor(), m).Appraise(t.Context(), &attest.Evidence{Raw: []byte("foreign")}, attest.UnsafeExpectAnything(), policy{pass("a")}, now)
	if unknown.Code() != attest.CodeUnknownFormat {
		t.Errorf("got %v", unknown.Err())
	}
}

// Claims outlive the buffer that their evidence came in.
func TestMemoOwnsItsEvidence(t *testing.T) {
	m := attest.NewMemo(verifier(func(ev *attest.Evidence) (*attest.Claims, error) {
		return &attest.Claims{Measured: map[string]attest.HexBytes{"raw": ev.Raw, "log": ev.EventLog, "leaf": ev.Endorsements[0].Raw}}, nil
	}))
	ev := quote()
	c, err := m.Verify(t.Context(), ev, vendor(), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{ev.Raw, ev.EventLog, ev.Endorsements[0].Raw} {
		b[0] = 'X'
	}
	if got := string(c.Measured["raw"]) + string(c.Measured["log"]) + string(c.Measured["leaf"]); got != "quotelogleaf" {
		t.Errorf("got %s", got)
	}
}

// The verification that was not used for longest goes.
func TestMemoIsBounded(t *testing.T) {
	h := new(hardware)
	m := attest.NewMemo(h)
	verify := func(i int) bool {
		before := h.calls.Load()
		if _, err := m.Verify(t.Context(), &attest.Evidence{Raw: fmt.Append(nil, i)}, vendor(), now); err != nil {
			t.Fatal(err)
		}
		return h.calls.Load() > before
	}
	for i := range 256 {
		verify(i)
	}
	for i := range 256 {
		if verify(i) {
			t.Fatalf("%d of 256 is forgotten", i)
		}
	}
	verify(0)
	if !verify(256) || verify(0) || verify(2) || verify(255) || verify(256) {
		t.Error("another one went than the one that was not used for longest")
	}
	if !verify(1) {
		t.Error("more than 256 are remembered")
	}
	if !verify(3) {
		t.Error("more than 256 are remembered")
	}
}

// A record of an appraisal whose verification was remembered can be replayed: its endorser saw every request, once.
func TestMemoIsRecorded(t *testing.T) {
	h := new(hardware)
	m := attest.NewMemo(h)
	appraise := func(e attest.Endorser, v attest.Verifier) *attest.Result {
		return attest.NewAppraiser(e, v).Appraise(t.Context(), quote(), attest.UnsafeExpectAnything(), policy{pass("a")}, now)
	}
	appraise(vendor(), m)
	for name, e := range map[string]shelf{
		"as remembered": vendor(), "another list": vendor().with(crlRef, list(attest.KindCRL, "new")), "another first answer": vendor().with(tcbRef, list(attest.KindTCBInfo, "new")),
	} {
		recorder := record.NewRecorder(e)
		live := appraise(recorder, m)
		var refs []string
		for _, f := range recorder.Fetched() {
			refs = append(refs, f.Ref.Path)
		}
		if got := strings.Join(refs, " "); got != "/tcb /crl" {
			t.Errorf("%s: %s were asked for", name, got)
		}
		again := appraise((&record.Record{Fetched: recorder.Fetched()}).Endorser(), new(hardware))
		if !live.Affirmed() || live.Claims().Generation != again.Claims().Generation {
			t.Errorf("%s: live %s, replayed %s", name, live.Claims().Generation, again.Claims().Generation)
		}
	}
}

// One of many connections verifies, and the others wait for it.
func TestMemoSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		h := &hardware{enter: func(context.Context) { <-gate }}
		m := attest.NewMemo(h)
		var group sync.WaitGroup
		var seen sync.Map
		verify := func(ctx context.Context, e attest.Endorser, at time.Time, code attest.Code) {
			group.Go(func() {
				c, err := m.Verify(ctx, quote(), e, at)
				if attest.CodeOf(err) != code || (c == nil) != (err != nil) {
					t.Errorf("got %v, %v", c, err)
				}
				seen.Store(c, true)
			})
		}
		verify(t.Context(), vendor(), now, "")
		synctest.Wait()
		for range 50 {
			verify(t.Context(), vendor(), now, "")
		}
		// One gives up, one has another list, and the clock of one is before that of the verification.
		ctx, cancel := context.WithCancel(t.Context())
		verify(ctx, vendor(), now, attest.CodeEndorserUnreachable)
		verify(t.Context(), vendor().with(crlRef, list(attest.KindCRL, "new")), now, "")
		verify(t.Context(), vendor(), now.Add(-time.Second), "")
		synctest.Wait()
		cancel()
		synctest.Wait()
		if n := h.calls.Load(); n != 1 {
			t.Fatalf("%d verifications while the first is under way", n)
		}
		close(gate)
		group.Wait()
		distinct := 0
		seen.Range(func(any, any) bool { distinct++; return true })
		if n := h.calls.Load(); n != 3 || distinct != 4 {
			t.Errorf("%d verifications, %d claims", n, distinct)
		}
	})
}

// A caller whose endorser knows better joins the verification of another such caller.
func TestMemoSingleFlightAfterADifference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(hardware)
		m := attest.NewMemo(h)
		if _, err := m.Verify(t.Context(), quote(), vendor(), now); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		h.enter = func(context.Context) { <-gate }
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if _, err := m.Verify(t.Context(), quote(), vendor().with(crlRef, list(attest.KindCRL, "new")), now); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		group.Wait()
		if n := h.calls.Load(); n != 2 {
			t.Errorf("%d verifications", n)
		}
	})
}

// Where the one that verifies fails, for whatever reason, the others are not held up, nor do they fail with it.
func TestMemoFailedFlight(t *testing.T) {
	for name, fault := range map[string]func(context.Context){
		"panics": func(context.Context) { panic("index out of range") },
		"exits":  func(ctx context.Context) { <-ctx.Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate, first := make(chan struct{}), true
				h := new(hardware)
				failing := verifier2(func(ctx context.Context, ev *attest.Evidence, e attest.Endorser, now time.Time) (*attest.Claims, error) {
					if h.calls.Load() == 0 && first {
						first = false
						<-gate
						fault(ctx)
						return nil, ctx.Err()
					}
					return h.Verify(ctx, ev, e, now)
				})
				m := attest.NewMemo(failing)
				leading, cancel := context.WithCancel(t.Context())
				appraise := func(ctx context.Context) *attest.Result {
					return attest.NewAppraiser(vendor(), m).Appraise(ctx, quote(), attest.UnsafeExpectAnything(), policy{pass("a")}, now)
				}
				var group sync.WaitGroup
				group.Go(func() {
					if r := appraise(leading); r.Code() != attest.CodeInternal {
						t.Errorf("the first: %v", r.Err())
					}
				})
				synctest.Wait()
				for range 10 {
					group.Go(func() {
						if r := appraise(t.Context()); !r.Affirmed() {
							t.Errorf("another: %v", r.Err())
						}
					})
				}
				synctest.Wait()
				cancel()
				close(gate)
				group.Wait()
				if !appraise(t.Context()).Affirmed() || h.calls.Load() > 10 {
					t.Errorf("%d verifications", h.calls.Load())
				}
			})
		})
	}
}

// Evidence that is not authentic is that for everyone who presents it.
func TestMemoRefusesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		h := &hardware{enter: func(context.Context) { <-gate }}
		m := attest.NewMemo(h)
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				if c, err := m.Verify(t.Context(), &attest.Evidence{Raw: []byte("bad")}, vendor(), now); c != nil || attest.CodeOf(err) != attest.CodeSignature {
					t.Errorf("got %v, %v", c, err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		group.Wait()
		if n := h.calls.Load(); n != 5 {
			t.Errorf("%d verifications", n)
		}
	})
}

// verifier2 is a Verifier that sees everything.
type verifier2 func(context.Context, *attest.Evidence, attest.Endorser, time.Time) (*attest.Claims, error)

func (v verifier2) Verify(ctx context.Context, ev *attest.Evidence, e attest.Endorser, now time.Time) (*attest.Claims, error) {
	return v(ctx, ev, e, now)
}

// Whatever came before, the answer is what the verifier itself would have said at most ten seconds ago.
func TestMemoIsSound(t *testing.T) {
	texts := []string{"", "a", "b", "ab"}
	rapid.Check(t, func(t *rapid.T) {
		h := new(hardware)
		m := attest.NewMemo(h)
		calls, at := int64(0), now
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
			ev := &attest.Evidence{Format: attest.Format(pick("format", texts...)), Raw: []byte(pick("raw", "a", "b", "bad", "foreign")), EventLog: []byte(pick("log", "", "a"))}
			if pick("stapled", "yes", "no") == "yes" {
				ev.Endorsements = list(attest.KindCRL, pick("endorsement", texts...))
			}
			e := shelf{}
			for _, ref := range []attest.Ref{tcbRef, crlRef} {
				switch answer := pick(ref.Path, "a", "a", "a", "b", "failure"); answer {
				case "failure":
					e[ref] = &attest.Error{Code: attest.CodeEndorserUnreachable, Got: pick("got", texts...)}
				default:
					e[ref] = list(attest.KindCRL, answer)
				}
			}
			at = at.Add(time.Duration(rapid.IntRange(-2, 8).Draw(t, "seconds")) * time.Second)
			recorder := record.NewRecorder(e)
			got, err := m.Verify(context.Background(), ev, recorder, at)
			made := at
			if got != nil {
				made = got.Made
			}
			want, wrong := facts(context.Background(), ev, record.NewRecorder(e), made)
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || fmt.Sprint(err) != fmt.Sprint(wrong) || made.After(at) || at.Sub(made) > 10*time.Second {
				t.Fatalf("at %v: got %+v, %v; want %+v, %v", at, got, err, want, wrong)
			}
			if made != at && h.calls.Load() != calls {
				t.Fatal("verified, and an older verification used")
			}
			calls = h.calls.Load()
			replayed, _ := facts(context.Background(), ev, (&record.Record{Fetched: recorder.Fetched()}).Endorser(), made)
			if fmt.Sprintf("%+v", replayed) != fmt.Sprintf("%+v", got) {
				t.Fatalf("replayed %+v, live %+v", replayed, got)
			}
		}
	})
}

// Many callers with few kinds of evidence, for the race detector.
func TestMemoRace(t *testing.T) {
	h := new(hardware)
	m := attest.NewMemo(h)
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for j := range 50 {
				ev := &attest.Evidence{Raw: fmt.Append(nil, (i+j)%3)}
				e := vendor().with(crlRef, list(attest.KindCRL, fmt.Sprint(j%2)))
				at := now.Add(time.Duration(j) * time.Second)
				c, err := m.Verify(t.Context(), ev, e, at)
				if err != nil {
					t.Error(err)
					return
				}
				if want, _ := facts(t.Context(), ev, e, c.Made); want.Vendor != c.Vendor || want.Generation != c.Generation || at.Sub(c.Made) > 10*time.Second {
					t.Errorf("got %+v", c)
				}
			}
		})
	}
	group.Wait()
}

// A quote of 5 KB with its chain, and a list that the endorser has at hand.
func BenchmarkMemoHit(b *testing.B) {
	ev := &attest.Evidence{Format: "test", Raw: bytes.Repeat([]byte{7}, 1184), Endorsements: list(attest.KindCertificate, strings.Repeat("v", 1360), strings.Repeat("a", 1640), strings.Repeat("r", 1640))}
	e := vendor().with(crlRef, list(attest.KindCRL, strings.Repeat("c", 1024)))
	m := attest.NewMemo(new(hardware))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Verify(b.Context(), ev, e, now); err != nil {
			b.Fatal(err)
		}
	}
}

// What a hit is beside: the digests alone.
func BenchmarkMemoDigests(b *testing.B) {
	raw := bytes.Repeat([]byte{7}, 5824+1024)
	for b.Loop() {
		sha256.Sum256(raw)
	}
}
