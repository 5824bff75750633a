package enforce_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware verifies evidence that is a number of eight bytes: it stands for the generation, from 2000 on with another firmware, and for
// the report data.
type hardware struct {
	asked atomic.Int64

	mu      sync.Mutex
	revoked map[string]error // by generation
}

func (h *hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	h.asked.Add(1)
	n := binary.BigEndian.Uint64(ev.Raw)
	generation := fmt.Sprint(n % 10)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.revoked[generation]; err != nil {
		return nil, err
	}
	c := &attest.Claims{Vendor: "q", TEE: "t", Product: "p", Generation: generation, TCB: attest.TCB{"f": n / 2000}}
	copy(c.ReportData[:], ev.Raw)
	return c, nil
}

func (h *hardware) revoke(generation string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revoked = map[string]error{generation: err}
}

// denying is a policy that denies one generation.
type denying struct {
	id, generation string
	shadow         bool
	most           time.Duration
	change         time.Time // from when on
	before         func()    // called first
}

func (d *denying) Judge(c *attest.Claims, s attest.Situation) attest.Judgement {
	if d.before != nil {
		d.before()
	}
	check := attest.Check{ID: "platform.denied", Status: attest.StatusPass}
	if c.Generation == d.generation && !s.Now.Before(d.change) {
		check = attest.Check{ID: "platform.denied", Status: attest.StatusFail, Code: attest.CodePlatformDenied, Line: 7}
		if d.shadow {
			check.Status = attest.StatusWarn
		}
	}
	age := attest.Check{ID: "age", Status: attest.StatusPass}
	if d.most > 0 && s.Now.Sub(s.Made) > d.most {
		age = attest.Check{ID: "age", Status: attest.StatusFail, Code: attest.CodeEvidenceTooOld}
	}
	return attest.Judgement{ID: "sha256:" + d.id, Checks: []attest.Check{check, age}}
}

func (d *denying) OlderIsWorse() bool         { return true }
func (d *denying) EvidenceAge() time.Duration { return d.most }
func (d *denying) Changes(after time.Time) time.Time {
	if d.change.After(after) {
		return d.change
	}
	return time.Time{}
}

// peer is an open connection.
type peer struct {
	evidence *attest.Evidence
	result   atomic.Pointer[attest.Result]
	refused  atomic.Pointer[attest.Result]
	standing *enforce.Standing

	settling func() // called before Settle
	showing  func() // called before Evidence
}

func (p *peer) Result() *attest.Result { return p.result.Load() }
func (p *peer) Settle(was, is *attest.Result) bool {
	if f := p.settling; f != nil {
		p.settling = nil
		f()
	}
	return p.result.CompareAndSwap(was, is)
}

func (p *peer) Refuse(r *attest.Result) {
	if !p.refused.CompareAndSwap(nil, r) {
		panic("refused twice")
	}
}

func (p *peer) Evidence() (*attest.Evidence, error) {
	if f := p.showing; f != nil {
		p.showing = nil
		f()
	}
	if p.evidence == nil {
		return nil, errors.New("none")
	}
	return p.evidence, nil
}

// world is an Enforcer and its hardware.
type world struct {
	testing.TB
	hw        *hardware
	appraiser *attest.Appraiser
	e         *enforce.Enforcer
	now       atomic.Pointer[time.Time]
	swept     []*enforce.Sweep
}

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t testing.TB) *world {
	w := &world{TB: t, hw: new(hardware)}
	w.now.Store(&noon)
	w.appraiser = attest.NewAppraiser(attest.NoEndorser{}, w.hw)
	w.e = enforce.New(func(attest.Stack) *attest.Appraiser { return w.appraiser }, w.clock, func(s *enforce.Sweep) { w.swept = append(w.swept, s) })
	w.e.Apply(t.Context(), enforce.Change{
		Policies: map[string]attest.Policy{"floor": &denying{id: "floor", generation: "9"}, "pushed": &denying{id: "pushed", generation: "9"}},
		Places:   map[string][]string{"in": {"floor", "pushed"}, "out": {"floor"}},
	})
	return w
}

func (w *world) clock() time.Time { return *w.now.Load() }

func (w *world) pass(d time.Duration) {
	now := w.clock().Add(d)
	w.now.Store(&now)
}

func evidence(n uint64) *attest.Evidence {
	return &attest.Evidence{Format: "test", Raw: append(binary.BigEndian.AppendUint64(nil, n), 1)}
}

// appraise is a handshake with a peer that shows a number, up to its verdict.
func (w *world) appraise(place string, n uint64) (p *peer, began uint64) {
	began = w.e.Place(place).Epoch()
	appraiser, stack := w.e.Place(place).Basis()
	p = &peer{evidence: evidence(n)}
	var data attest.ReportData
	copy(data[:], p.evidence.Raw)
	p.result.Store(appraiser.Appraise(w.Context(), p.evidence, attest.Expect(data, attest.LevelSession, w.clock()).WithConfig([32]byte{byte(n / 1000 % 2)}), stack, w.clock()))
	return p, began
}

// open is all of it.
func (w *world) open(place string, n uint64) *peer {
	w.Helper()
	p, began := w.appraise(place, n)
	if !p.Result().Affirmed() {
		w.Fatal(p.Result().Err())
	}
	var refused *attest.Result
	if p.standing, refused = w.e.Place(place).Admit(w.Context(), began, fmt.Sprint("peer ", n), p); refused != nil {
		w.Fatal(refused.Err())
	}
	return p
}

func (w *world) stands(p *peer, policy string) {
	w.Helper()
	if r := p.refused.Load(); r != nil {
		w.Errorf("refused: %v", r.Err())
	}
	if r := p.Result(); !r.Affirmed() || policy != "" && r.PolicyID() != policy {
		w.Errorf("stands on %s, %v", r.PolicyID(), r.Err())
	}
}

func (w *world) cut(p *peer, code attest.Code) {
	w.Helper()
	if r := p.refused.Load(); r == nil || r.Code() != code {
		w.Errorf("got %v, want a refusal with %s", r.Err(), code)
	}
}

// A policy is replaced: those that it refuses end, all others go on, under the new one.
func TestReplace(t *testing.T) {
	w := newWorld(t)
	var good, bad []*peer
	for i := range uint64(100) {
		place := []string{"in", "out"}[i%2]
		n := i % 9 // generations 0 to 8
		if p := w.open(place, n); place == "in" && n == 3 {
			bad = append(bad, p)
		} else {
			good = append(good, p)
		}
	}
	before := good[0].Result().PolicyID()
	s := w.e.Replace(t.Context(), "pushed", &denying{id: "emergency", generation: "3"})
	if s.Judged != 50 || s.Refused != len(bad) || len(s.Refusals) != len(bad) || s.Verified != 0 || w.hw.asked.Load() != 100 {
		t.Errorf("%+v", s)
	}
	for _, p := range bad {
		w.cut(p, attest.CodePlatformDenied)
	}
	for _, p := range good {
		w.stands(p, "")
	}
	if after := good[0].Result().PolicyID(); after == before || after == "" {
		t.Errorf("the Result is under policy %s, as before", after)
	}
	for _, r := range s.Refusals {
		if r.Place != "in" || r.Peer != "peer 3" || !r.Was.Affirmed() || r.Is.Affirmed() {
			t.Errorf("%+v", r)
		}
	}
	st := w.e.Stats()
	open := 0
	for k, n := range st.Open {
		if open += n; k.Vendor != "q" || k.TEE != "t" || k.Product != "p" || k.Verdict != attest.Affirmed || k.Level != attest.LevelSession {
			t.Errorf("%+v", k)
		}
	}
	if open != 100-len(bad) || st.Rejudged != 50 || st.Refused != uint64(len(bad)) || !st.LastSweep.Equal(noon) || st.Epoch != s.Epoch {
		t.Errorf("%+v", st)
	}
	if len(w.e.Standing()) != open {
		t.Error("a list of other connections")
	}
	for _, p := range append(good, bad...) {
		p.standing.Done()
		p.standing.Done()
	}
	if st := w.e.Stats(); len(st.Open) != 0 {
		t.Errorf("left: %+v", st.Open)
	}
}

// All policies of a place have to affirm, whatever is pushed; one that is missing refuses.
func TestFloor(t *testing.T) {
	for name, change := range map[string]struct {
		change enforce.Change
		code   attest.Code
	}{
		"the floor refuses, what was pushed affirms": {enforce.Change{Policies: map[string]attest.Policy{"floor": &denying{id: "f", generation: "1"}}}, attest.CodePlatformDenied},
		"what was pushed refuses":                    {enforce.Change{Policies: map[string]attest.Policy{"pushed": &denying{id: "p", generation: "1"}}}, attest.CodePlatformDenied},
		"what was pushed is taken away":              {enforce.Change{Policies: map[string]attest.Policy{"pushed": nil}}, attest.CodeEmptyPolicy},
		"the floor is taken away":                    {enforce.Change{Policies: map[string]attest.Policy{"floor": nil}}, attest.CodeEmptyPolicy},
		"the place demands nothing":                  {enforce.Change{Places: map[string][]string{"in": {}, "out": {"floor"}}}, attest.CodeEmptyPolicy},
		"the place demands what there is not":        {enforce.Change{Places: map[string][]string{"in": {"floor", "nosuch"}}}, attest.CodeEmptyPolicy},
		"something else":                             {enforce.Change{Policies: map[string]attest.Policy{"other": &denying{id: "o", generation: "1"}}}, ""},
		"nothing":                                    {enforce.Change{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.open("in", 1)
			w.e.Apply(t.Context(), change.change)
			if change.code == "" {
				w.stands(p, "")
			} else {
				w.cut(p, change.code)
			}
			if p, _ := w.appraise("in", 1); p.Result().Code() != change.code {
				t.Errorf("a new connection: %v", p.Result().Err())
			}
		})
	}
	var zero enforce.Place
	if a, s := zero.Basis(); a == nil || len(s) != 0 || zero.Epoch() != 0 || zero.EvidenceAge() != 0 {
		t.Error("the zero Place knows something")
	}
	if _, refused := zero.Admit(t.Context(), 0, "", new(peer)); refused == nil || refused.Affirmed() {
		t.Error("the zero Place admits")
	}
}

// A handshake that began before a change, and ends after it, is judged by the change before anything moves.
func TestHandshakeDuringChange(t *testing.T) {
	for name, c := range map[string]struct {
		during func(*world)
		code   attest.Code
	}{
		"it is denied":           {func(w *world) { w.e.Replace(w.Context(), "pushed", &denying{id: "e", generation: "3"}) }, attest.CodePlatformDenied},
		"another one is denied":  {func(w *world) { w.e.Replace(w.Context(), "pushed", &denying{id: "e", generation: "4"}) }, ""},
		"its key is revoked":     {func(w *world) { w.hw.revoke("3", revoked); w.e.Endorsed(w.Context()) }, attest.CodeRevoked},
		"another key is revoked": {func(w *world) { w.hw.revoke("4", revoked); w.e.Endorsed(w.Context()) }, ""},
		"the policy is gone":     {func(w *world) { w.e.Replace(w.Context(), "pushed", nil) }, attest.CodeEmptyPolicy},
		"the place is gone":      {func(w *world) { w.e.Apply(w.Context(), enforce.Change{Places: map[string][]string{"out": {"floor"}}}) }, attest.CodeEmptyPolicy},
		"the place demands more": {func(w *world) {
			w.e.Apply(w.Context(), enforce.Change{Policies: map[string]attest.Policy{"more": &denying{id: "m", generation: "3"}}, Places: map[string][]string{"in": {"floor", "more"}}})
		}, attest.CodePlatformDenied},
		"a change and its return": {func(w *world) {
			w.e.Replace(w.Context(), "pushed", nil)
			w.e.Replace(w.Context(), "pushed", &denying{id: "p", generation: "9"})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, began := w.appraise("in", 3)
			if !p.Result().Affirmed() {
				t.Fatal(p.Result().Err())
			}
			c.during(w)
			s, refused := w.e.Place("in").Admit(t.Context(), began, "", p)
			if codeOf(refused) != c.code || (s == nil) != (refused != nil) {
				t.Errorf("got %v, want %q", refused.Err(), c.code)
			}
			if want := map[bool]int{true: 1, false: 0}[c.code == ""]; len(w.e.Standing()) != want {
				t.Errorf("%d connections are open", len(w.e.Standing()))
			}
			if c.code == "" {
				w.stands(p, stackID(w, "in"))
			}
		})
	}
}

var revoked = &attest.Error{Code: attest.CodeRevoked, Check: "authenticity.chain"}

func codeOf(r *attest.Result) attest.Code {
	if r == nil {
		return ""
	}
	return r.Code()
}

// stackID is the id of what is in force at a place.
func stackID(w *world, place string) string {
	_, s := w.e.Place(place).Basis()
	return s.Judge(&attest.Claims{}, attest.Situation{}).ID
}

// A change comes while the one before is being looked at, on the way to the list.
func TestChangeDuringAdmission(t *testing.T) {
	w := newWorld(t)
	p, began := w.appraise("in", 3)
	w.e.Replace(t.Context(), "pushed", &denying{id: "a", generation: "4"})
	p.settling = func() { w.e.Replace(t.Context(), "pushed", &denying{id: "b", generation: "3"}) }
	s, refused := w.e.Place("in").Admit(t.Context(), began, "", p)
	if s != nil || codeOf(refused) != attest.CodePlatformDenied {
		t.Errorf("got %v", refused.Err())
	}
}

// A peer attests anew while a policy is replaced. Whichever comes first, it ends up judged by the new policy.
func TestReattestationDuringChange(t *testing.T) {
	t.Run("the new Result was judged by the old policy", func(t *testing.T) {
		w := newWorld(t)
		p := w.open("in", 4)
		again, began := w.appraise("in", 3)
		w.e.Replace(t.Context(), "pushed", &denying{id: "e", generation: "3"})
		w.stands(p, "")
		p.evidence = again.evidence
		p.result.Store(again.Result()) // which the sweep did not see
		if r := p.standing.Recheck(t.Context(), began); codeOf(r) != attest.CodePlatformDenied {
			t.Errorf("got %v", r.Err())
		}
		if len(w.e.Standing()) != 0 {
			t.Error("it is still on the list")
		}
	})
	t.Run("nothing has changed", func(t *testing.T) {
		w := newWorld(t)
		p := w.open("in", 4)
		again, began := w.appraise("in", 3)
		p.result.Store(again.Result())
		asked := w.hw.asked.Load()
		if r := p.standing.Recheck(t.Context(), began); r != nil || p.Result() != again.Result() || w.hw.asked.Load() != asked {
			t.Errorf("got %v", r.Err())
		}
	})
	for name, c := range map[string]struct {
		is   uint64 // what it attests meanwhile
		code attest.Code
	}{"good by good": {5, ""}, "good by bad": {3, attest.CodePlatformDenied}} {
		t.Run("the sweep had the old Result: "+name, func(t *testing.T) {
			w := newWorld(t)
			p := w.open("in", 4)
			again, _ := w.appraise("in", c.is)
			p.settling = func() { // just before the sweep puts its own there
				p.evidence = again.evidence
				p.result.Store(again.Result())
			}
			w.e.Replace(t.Context(), "pushed", &denying{id: "e", generation: "3"})
			if c.code != "" {
				w.cut(p, c.code)
				return
			}
			if w.stands(p, stackID(w, "in")); p.Result().Claims() != again.Result().Claims() {
				t.Error("what was attested anew is lost")
			}
		})
	}
	t.Run("the sweep verified the old evidence", func(t *testing.T) {
		w := newWorld(t)
		p := w.open("in", 4)
		again, _ := w.appraise("in", 3)
		p.settling = func() {
			p.evidence = again.evidence
			p.result.Store(again.Result())
		}
		w.hw.revoke("3", revoked)
		w.e.Endorsed(t.Context())
		w.cut(p, attest.CodeRevoked)
	})
}

// Two sweeps at once: the later policy has the last word.
func TestSweepsOverlap(t *testing.T) {
	w := newWorld(t)
	p, q := w.open("in", 3), w.open("in", 4)
	p.settling = func() { // the first sweep has judged, and not yet settled
		w.e.Replace(t.Context(), "pushed", &denying{id: "later", generation: "4"})
	}
	w.e.Replace(t.Context(), "pushed", &denying{id: "earlier", generation: "5"})
	w.stands(p, stackID(w, "in"))
	w.cut(q, attest.CodePlatformDenied)
}

func TestEndorsed(t *testing.T) {
	w := newWorld(t)
	all := map[uint64][]*peer{}
	for i := range uint64(60) {
		all[i%6] = append(all[i%6], w.open([]string{"in", "out"}[i/6%2], i%6))
	}
	shared := w.open("in", 5)
	for _, p := range all[5] { // one verification for all that stand on the same claims
		p.result.Store(shared.Result())
	}
	before := w.hw.asked.Load()
	w.hw.revoke("3", revoked)
	s := w.e.Endorsed(t.Context())
	if s.Refused != 10 || s.Judged != 61 || s.Verified != 51 || w.hw.asked.Load()-before != 51 || s.Unproven != 0 {
		t.Errorf("%+v, %d verifications", s, w.hw.asked.Load()-before)
	}
	for n, peers := range all {
		for _, p := range peers {
			if n == 3 {
				w.cut(p, attest.CodeRevoked)
			} else {
				w.stands(p, "")
			}
		}
	}
	// Who supplies endorsements has failed: what was authentic stands.
	w.hw.revoke("4", &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements"})
	if s := w.e.Endorsed(t.Context()); s.Refused != 0 || s.Unproven != 10 {
		t.Errorf("%+v", s)
	}
	for _, p := range all[4] {
		w.stands(p, "")
	}
	// Evidence that can't be read any more is none.
	w.hw.revoke("", nil)
	all[4][0].evidence = nil
	all[4][1].evidence = evidence(14)
	if s := w.e.Endorsed(t.Context()); s.Refused != 2 {
		t.Errorf("%+v", s)
	}
	w.cut(all[4][0], attest.CodeNoEvidence)
	w.cut(all[4][1], attest.CodeInternal)
	if got := w.e.Stats().Verified; got == 0 {
		t.Error(got)
	}
}

// A verifier that is replaced verifies what the one before let in.
func TestVerifierReplaced(t *testing.T) {
	w := newWorld(t)
	p, q := w.open("in", 3), w.open("out", 3)
	strict := new(hardware)
	strict.revoke("3", &attest.Error{Code: attest.CodeUntrustedRoot, Check: "authenticity.chain"})
	w.appraiser = attest.NewAppraiser(attest.NoEndorser{}, strict)
	w.e.Replace(t.Context(), "pushed", &denying{id: "e", generation: "4"})
	w.cut(p, attest.CodeUntrustedRoot)
	w.stands(q, "")
}

// Rules in the shadow have something to say, and end nothing.
func TestShadow(t *testing.T) {
	w := newWorld(t)
	var all []*peer
	for i := range uint64(30) {
		all = append(all, w.open("in", i%3))
	}
	s := w.e.Replace(t.Context(), "pushed", &denying{id: "e", generation: "1", shadow: true})
	for _, p := range all {
		w.stands(p, "")
	}
	if s.Refused != 0 || len(s.Warnings) != 1 {
		t.Errorf("%+v", s)
	}
	for k, n := range s.Warnings {
		if n != 10 || k.Code != attest.CodePlatformDenied || k.Line != 7 || k.Place != "in" {
			t.Errorf("%d of %+v", n, k)
		}
	}
	if got := w.e.Stats(); got.Warned != 10 || got.Refused != 0 {
		t.Errorf("%+v", got)
	}
}

// A preview says what would be, and nothing comes of it.
func TestPreview(t *testing.T) {
	w := newWorld(t)
	p, q, r := w.open("in", 3), w.open("in", 4), w.open("out", 3)
	before, epoch := p.Result(), w.e.Stats()
	s := w.e.Preview(t.Context(), "pushed", &denying{id: "e", generation: "3"})
	if s.Judged != 2 || s.Refused != 1 || s.Refusals[0].Peer != "peer 3" {
		t.Errorf("%+v", s)
	}
	if s := w.e.Preview(t.Context(), "nosuch", nil); s.Judged != 0 {
		t.Errorf("%+v", s)
	}
	if got := w.e.Stats(); got.Epoch != epoch.Epoch || got.Sweeps != epoch.Sweeps || got.Refused != 0 || p.Result() != before {
		t.Errorf("%+v", got)
	}
	for _, p := range []*peer{p, q, r} {
		w.stands(p, "")
	}
}

// What a place demanded goes on holding for those that are still open when no configuration has it any more.
func TestRetiredPlace(t *testing.T) {
	w := newWorld(t)
	p, q := w.open("in", 3), w.open("in", 4)
	w.e.Apply(t.Context(), enforce.Change{Places: map[string][]string{"out": {"floor"}}, Policies: map[string]attest.Policy{"pushed": nil}})
	w.stands(p, "")
	w.e.Replace(t.Context(), "floor", &denying{id: "f", generation: "4"})
	w.stands(p, "")
	w.cut(q, attest.CodePlatformDenied)
	p.standing.Done()
	if r, _ := w.appraise("in", 3); r.Result().Affirmed() {
		t.Error("the place lives on without a connection")
	}
	// It comes back.
	w.e.Apply(t.Context(), enforce.Change{Places: map[string][]string{"in": {"floor"}}})
	w.stands(w.open("in", 3), "")
}

// A peer may attest anew just when the evidence that it has in common with others is verified again: it is theirs that counts for them.
func TestEndorsedDuringReattestation(t *testing.T) {
	w := newWorld(t)
	shared := w.open("in", 5)
	all := []*peer{shared}
	for range 20 {
		p := w.open("in", 5)
		p.result.Store(shared.Result())
		all = append(all, p)
	}
	fresh, _ := w.appraise("in", 15) // another piece of evidence, of the same generation
	for _, p := range all {          // which of them is asked is nobody's choice
		p.showing = func() {
			p.evidence = fresh.evidence
			p.result.Store(fresh.Result())
		}
	}
	s := w.e.Endorsed(t.Context())
	if s.Refused != 0 || s.Judged != 21 {
		t.Errorf("%+v", s)
	}
	for _, p := range all {
		w.stands(p, stackID(w, "in"))
	}
	// That another sweep has judged them meanwhile is no such thing.
	w.hw.revoke("5", revoked)
	for _, p := range all {
		p.showing = func() {
			for _, p := range all {
				p.showing = nil
			}
			w.e.Sweep(t.Context())
		}
	}
	if s := w.e.Endorsed(t.Context()); s.Refused != 21 {
		t.Errorf("%+v", s)
	}
}

// A change whose connections nobody has judged, as one that only announces what is to come, is owed to them: the next one judges them
// by both, and verifies what the first one would have.
func TestSweepOwed(t *testing.T) {
	w := newWorld(t)
	old, other := w.open("in", 3), w.open("in", 4)
	w.e.Apply(t.Context(), enforce.Change{Places: map[string][]string{"out": {"floor"}}, Policies: map[string]attest.Policy{"pushed": nil}})
	// The place comes back, with another policy: first beside what there is, then for good.
	back := enforce.Change{Places: map[string][]string{"in": {"floor", "pushed"}, "out": {"floor"}}, Policies: map[string]attest.Policy{"pushed": &denying{id: "q", generation: "3"}}}
	w.e.Publish(back)
	w.stands(old, "")
	if s := w.e.Publish(back)(t.Context()); s.Judged != 2 || s.Refused != 1 {
		t.Errorf("%+v", s)
	}
	w.cut(old, attest.CodePlatformDenied)
	w.stands(other, stackID(w, "in"))
	if s := w.e.Apply(t.Context(), back); s.Judged != 0 {
		t.Errorf("again: %+v", s)
	}
	// Likewise where evidence is to be verified anew, which another change does not undo.
	w.hw.revoke("4", revoked)
	w.e.Publish(enforce.Change{Endorsements: true})
	w.stands(other, "")
	w.e.Replace(t.Context(), "pushed", &denying{id: "r", generation: "3"})
	w.cut(other, attest.CodeRevoked)
}

// Evidence grows old, and rules begin, without a change of policy.
func TestSweepNow(t *testing.T) {
	w := newWorld(t)
	w.e.Replace(t.Context(), "pushed", &denying{id: "aging", most: time.Hour})
	old := w.open("in", 1)
	w.pass(50 * time.Minute)
	young := w.open("in", 1)
	w.pass(20 * time.Minute)
	before := w.e.Place("in").Epoch()
	s := w.e.Sweep(t.Context())
	if w.cut(old, attest.CodeEvidenceTooOld); s.Refused != 1 || w.e.Place("in").Epoch() != before {
		t.Errorf("%+v", s)
	}
	w.stands(young, "")
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.e = enforce.New(func(attest.Stack) *attest.Appraiser { return w.appraiser }, time.Now, nil)
		now := time.Now()
		w.now.Store(&now)
		begins := time.Now().Add(time.Hour)
		w.e.Apply(t.Context(), enforce.Change{
			Policies: map[string]attest.Policy{"p": &denying{id: "p", generation: "3", change: begins}}, Places: map[string][]string{"in": {"p"}},
		})
		p, q := w.open("in", 3), w.open("in", 4)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.e.Run(ctx)
		}()
		time.Sleep(59 * time.Minute)
		if w.stands(p, ""); w.e.Stats().Sweeps != 1 {
			t.Errorf("%d sweeps for nothing", w.e.Stats().Sweeps)
		}
		time.Sleep(time.Minute + 11*time.Second)
		w.cut(p, attest.CodePlatformDenied)
		w.stands(q, "")
		time.Sleep(time.Hour)
		if n := w.e.Stats().Sweeps; n != 2 {
			t.Errorf("%d sweeps", n)
		}
		cancel()
		<-done
	})
}

// A policy that panics has affirmed nobody, and a connection that panics when it is to end keeps no other one from ending.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	p, q := w.open("in", 3), w.open("out", 3)
	broken := w.open("in", 4)
	broken.Refuse(broken.Result()) // the next one panics
	w.e.Replace(t.Context(), "pushed", &denying{id: "e", before: func() { panic("no") }})
	w.cut(p, attest.CodeInternal)
	w.stands(q, "")
	if n := len(w.e.Standing()); n != 1 {
		t.Errorf("%d are left", n)
	}
}

// Everything at once: whoever is on the list in the end was judged by the last policy.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	var work sync.WaitGroup
	var mu sync.Mutex
	var stand []*peer
	stop := make(chan struct{})
	for g := range uint64(4) {
		work.Go(func() {
			for n := g; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				p, began := w.appraise("in", n%9)
				if !p.Result().Affirmed() {
					continue
				}
				var refused *attest.Result
				if p.standing, refused = w.e.Place("in").Admit(t.Context(), began, "", p); refused != nil {
					continue
				}
				if n%3 == 0 { // attests anew
					again, began := w.appraise("in", n%9)
					if again.Result().Affirmed() {
						p.result.Store(again.Result())
						if r := p.standing.Recheck(t.Context(), began); r != nil {
							continue
						}
					}
				}
				mu.Lock()
				if n%2 == 0 || len(stand) > 300 {
					p.standing.Done()
				} else {
					stand = append(stand, p)
				}
				mu.Unlock()
			}
		})
	}
	for i := range 200 {
		w.e.Replace(t.Context(), "pushed", &denying{id: fmt.Sprint(i), generation: fmt.Sprint(i % 8)})
		if i%10 == 0 {
			w.e.Endorsed(t.Context())
		}
		w.e.Stats()
	}
	close(stop)
	work.Wait()
	last := stackID(w, "in")
	open := w.e.Standing()
	for _, o := range open {
		if o.Result.PolicyID() != last || o.Result.Claims().Generation == "7" {
			t.Fatalf("stands on %s with generation %s", o.Result.PolicyID(), o.Result.Claims().Generation)
		}
	}
	left := 0
	for _, p := range stand {
		if p.refused.Load() == nil {
			left++
		}
	}
	if left != len(open) {
		t.Errorf("%d were not told to end, and %d are on the list", left, len(open))
	}
}

// Who wants to know is told of every change.
func TestSwept(t *testing.T) {
	w := newWorld(t)
	n := len(w.swept)
	w.e.Replace(t.Context(), "pushed", &denying{id: "e"})
	w.e.Replace(t.Context(), "nobody's", &denying{id: "e"})
	w.e.Sweep(t.Context())
	if got := len(w.swept) - n; got != 1 {
		t.Errorf("told %d times", got)
	}
	w.open("in", 1)
	w.e.Sweep(t.Context())
	if got := len(w.swept) - n; got != 2 {
		t.Errorf("told %d times", got)
	}
	if w.e.Place("in").Epoch() == 0 || w.e.Policies()["pushed"] == nil {
		t.Error("nothing is in force")
	}
	same := w.e.Policies()["pushed"]
	before := w.e.Place("in").Epoch()
	w.e.Replace(t.Context(), "pushed", same) // changes nothing
	if w.e.Place("in").Epoch() != before {
		t.Error("the same policy is a change")
	}
}

// judgesAlike is a policy that says so, and counts how often it is asked.
type judgesAlike struct {
	denying
	asked atomic.Int64
}

func (p *judgesAlike) JudgesAlike() bool { return true }

func (p *judgesAlike) Judge(c *attest.Claims, s attest.Situation) attest.Judgement {
	p.asked.Add(1)
	return p.denying.Judge(c, s)
}

// Peers on many pieces of evidence, of few platforms, are judged by platform. What their evidence is worth is found for each.
func TestAlike(t *testing.T) {
	w := newWorld(t)
	a, b := &judgesAlike{denying: denying{id: "a", generation: "none"}}, &judgesAlike{denying: denying{id: "b", generation: "3"}}
	w.e.Apply(t.Context(), enforce.Change{Policies: map[string]attest.Policy{"floor": a, "pushed": a}})
	all := map[uint64]*peer{}
	for n := range uint64(200) {
		for _, kind := range []uint64{0, 1000, 2000} { // as it is, with another configuration, with other firmware
			all[kind+n] = w.open("in", kind+n)
		}
	}
	s := w.e.Replace(t.Context(), "pushed", b)
	if got := b.asked.Load(); s.Judged != 600 || s.Refused != 60 || got > 90 {
		t.Errorf("%d judged, %d refused, asked %d times", s.Judged, s.Refused, got)
	}
	id := stackID(w, "in")
	for n, p := range all {
		if n%10 == 3 {
			w.cut(p, attest.CodePlatformDenied)
		} else {
			w.stands(p, id)
		}
	}
	// A verification is of one piece of evidence.
	w.hw.revoke("7", revoked)
	if s := w.e.Endorsed(t.Context()); s.Judged != 540 || s.Verified != 540 || s.Refused != 60 {
		t.Errorf("%d judged, %d verified, %d refused", s.Judged, s.Verified, s.Refused)
	}
	for n, p := range all {
		switch n % 10 {
		case 3:
		case 7:
			w.cut(p, attest.CodeRevoked)
		default:
			w.stands(p, id)
		}
	}
}

// A sweep does not wait for others that keep the machine busy, however many kinds of platforms there are.
func TestSweepOnBusyMachine(t *testing.T) {
	w := newWorld(t)
	var all []*peer
	for n := range uint64(1000) {
		all = append(all, w.open("in", 2000*n+3)) // each with a firmware of its own
	}
	var stop atomic.Bool
	var busy sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for !stop.Load() {
			}
		})
	}
	s := w.e.Replace(t.Context(), "pushed", &denying{id: "p", generation: "3"})
	stop.Store(true)
	busy.Wait()
	if s.Refused != len(all) || s.Took > 5*time.Second {
		t.Errorf("%d refused, took %s", s.Refused, s.Took)
	}
}

// Ten thousand connections, of which few stand on the same evidence.
func BenchmarkReplace(b *testing.B) {
	for name, distinct := range map[string]uint64{"10 quotes": 10, "10000 quotes": 10000} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			first := map[uint64]*attest.Result{}
			for i := range uint64(10000) {
				p := w.open("in", i%distinct/10*10+i%9)
				if r := first[i%distinct]; r != nil {
					p.result.Store(r)
				}
				first[i%distinct] = p.Result()
			}
			for i := 0; b.Loop(); i++ {
				w.e.Replace(b.Context(), "pushed", &denying{id: fmt.Sprint(i), generation: "9"})
			}
		})
	}
}
