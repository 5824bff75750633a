package enforce_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// says verifies evidence that stands for claims.
type says []*attest.Claims

func (s says) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	return s[int(ev.Raw[0])<<8|int(ev.Raw[1])], nil
}

// anything affirms.
type anything struct{}

func (anything) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "anything", Checks: []attest.Check{{ID: "x", Status: attest.StatusPass}}}
}

// somewhere is a platform that policies of someRules tell from others, or do not.
func somewhere(t *rapid.T) *attest.Claims {
	few := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	level := rapid.IntRange(0, 2).Draw(t, "privilege")
	c := &attest.Claims{
		Vendor: "amd", TEE: "snp", Product: "EPYC", Generation: few("generation", "milan", "genoa", "genoa", "turin"), Root: "sha256:00", Version: rapid.IntRange(2, 3).Draw(t, "version"),
		TCB: attest.TCB{"snp": rapid.Uint64Range(21, 23).Draw(t, "snp"), "microcode": 84}, Debug: rapid.SampledFrom([]attest.Flag{attest.Off, attest.Off, attest.On}).Draw(t, "debug"), Migratable: attest.Off, Privilege: &level,
		Platform: map[string]attest.Flag{"smt": rapid.SampledFrom([]attest.Flag{attest.Off, attest.On}).Draw(t, "smt")},
		Measured: map[string]attest.HexBytes{"launch": append(make(attest.HexBytes, 47), byte(rapid.IntRange(1, 2).Draw(t, "launch")))},
		Revocation: attest.Revocation{
			Issued: noon.Add(-time.Duration(rapid.IntRange(1, 48).Draw(t, "issued")) * time.Hour), Expires: noon.Add(time.Duration(rapid.IntRange(-1, 48).Draw(t, "expires")) * time.Hour),
		},
	}
	c.ChipID, c.CSP = attest.HexBytes(few("chip", "", "a", "b")), few("csp", "", "Azure")
	return c
}

// someRules is a policy of every kind of rule.
func someRules(t *rapid.T, name string) *policy.Policy {
	one := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	dated := "from: 2026-11-01, until: " + one("until", "2026-11-30", "2026-12-01", "2026-12-02")
	text := "policy: " + name + "\nplatforms:\n  allow: " + one("allow", "[amd *]", "[amd genoa+]", "[amd genoa+, {vendor: amd, generation: milan, "+dated+"}]", "[{vendor: amd, tee: snp}]") + "\n" +
		one("deny", "", "  deny: [amd milan]\n", "  deny: [{vendor: amd, generation: genoa, "+dated+"}]\n") +
		"tcb: " + one("tcb", "{snp: 21}", "{snp: 23}", "{snp: 21, per: [{platforms: [amd genoa+], snp: 23}]}", "{snp: {min: 23, "+dated+"}}", "{snp: 21, bits: {smt: off}}") + "\n" +
		"workload:\n  measurement: " + fmt.Sprintf("{any_of: [{value: %096x}%s]}\n", 1, one("second", "", fmt.Sprintf(", {value: %096x}", 2), fmt.Sprintf(", {value: %096x, %s}", 2, dated))) +
		"  debug: " + one("debug", "off", "{is: off, "+dated+"}") + "\n" + one("privilege", "", "  privilege: {max: 1}\n") +
		"binding: " + one("binding", "session", "key", "{min: session, "+dated+"}") + "\n" +
		one("revocation", "", "revocation: required\n") +
		"freshness: {evidence: " + one("evidence", "10m", "1h") + ", endorsements: " + one("endorsements", "1d", "30d") + one("reconnect", "", ", reconnect: 5m", ", reconnect: 30m") + "}\n" +
		one("rules", "", "rules:\n- {when: \"claims.platform.smt && claims.generation == 'genoa'\", effect: deny, name: r}\n", "rules:\n- {when: \"size(claims.chip_id) > 0\", effect: deny, name: r}\n",
			"rules:\n- {when: \"age < duration('6m')\", effect: deny, name: r}\n", "rules:\n- {when: \"binding == 'session' && claims.csp == 'Azure'\", effect: warn, name: r}\n",
			"rules:\n- {when: \"claims.version > 2\", effect: deny, name: r, "+dated+"}\n")
	p, err := policy.Parse(name, []byte(text), policy.NoFiles)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// Whatever connections there are and whatever is demanded, each gets what it would get alone: none goes on, or ends, for another one.
func TestJudgedAsIfAlone(t *testing.T) {
	affirmed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		platforms := rapid.SliceOfN(rapid.Custom(somewhere), 1, 3).Draw(t, "platforms")
		n := rapid.IntRange(2, 30).Draw(t, "connections")
		var verifier says
		for i := range n {
			c := *platforms[rapid.IntRange(0, len(platforms)-1).Draw(t, "platform")]
			if rapid.IntRange(0, 4).Draw(t, "odd") == 0 {
				other := somewhere(t)
				rapid.SampledFrom([]func(){
					func() { c = *other }, func() { c.Generation = other.Generation }, func() { c.TCB = other.TCB }, func() { c.Debug = other.Debug }, func() { c.Platform = other.Platform },
					func() { c.Measured = other.Measured }, func() { c.Privilege = other.Privilege }, func() { c.Version = other.Version }, func() { c.Revocation = other.Revocation },
					func() { c.ChipID = other.ChipID }, func() { c.CSP = other.CSP },
				}).Draw(t, "in what")()
			}
			c.ReportData[0], c.ReportData[1], c.ReportData[2] = byte(i>>8), byte(i), 1
			c.Checks, c.NotChecked = []attest.Check{{ID: fmt.Sprint("c", i), Status: attest.StatusPass}}, []string{fmt.Sprint("n", i)}
			verifier = append(verifier, &c)
		}
		now := noon
		a := attest.NewAppraiser(attest.NoEndorser{}, verifier)
		e := enforce.New(func(attest.Stack) *attest.Appraiser { return a }, func() time.Time { return now }, func(*enforce.Sweep) {})
		ctx := context.Background()
		e.Apply(ctx, enforce.Change{Policies: map[string]attest.Policy{"floor": anything{}, "pushed": anything{}}, Places: map[string][]string{"in": {"floor", "pushed"}, "out": {"pushed"}}})
		peers, before, places := make([]*peer, n), make([]*attest.Result, n), make([]string, n)
		for i := range n {
			from := rapid.IntRange(0, n-1).Draw(t, "evidence")
			ev := &attest.Evidence{Raw: []byte{byte(from >> 8), byte(from), 1}}
			var data attest.ReportData
			copy(data[:], ev.Raw)
			made := noon.Add(-time.Duration(rapid.SampledFrom([]int{-1, 1, 4, 5, 9, 10, 11, 59, 60, 61}).Draw(t, "made")) * time.Minute)
			if rapid.IntRange(0, 19).Draw(t, "undated") == 0 {
				made = time.Time{}
			}
			level := rapid.SampledFrom([]attest.Level{attest.LevelKey, attest.LevelSession, attest.LevelSession}).Draw(t, "level")
			r := a.Appraise(ctx, ev, attest.Expect(data, level, made).WithConfig([32]byte{byte(rapid.IntRange(0, 1).Draw(t, "config"))}), anything{}, noon)
			if level == attest.LevelSession && rapid.Bool().Draw(t, "reconnects") {
				r = r.Reconnect(anything{}, noon.Add(-time.Duration(rapid.IntRange(0, 3).Draw(t, "ago"))*time.Minute), attest.Check{ID: "proof", Status: attest.StatusPass})
			}
			p := &peer{evidence: ev}
			p.result.Store(r)
			if !r.Affirmed() {
				t.Fatal(r.Err())
			}
			places[i] = rapid.SampledFrom([]string{"in", "in", "out"}).Draw(t, "place")
			var no *attest.Result
			if p.standing, no = e.Place(places[i]).Admit(ctx, e.Place(places[i]).Epoch(), "peer", p); no != nil {
				t.Fatal(no.Err())
			}
			peers[i], before[i] = p, p.Result()
		}
		now = noon.Add(rapid.SampledFrom([]time.Duration{0, time.Minute, 24 * time.Hour}).Draw(t, "later"))
		change := enforce.Change{Policies: map[string]attest.Policy{"floor": someRules(t, "floor"), "pushed": someRules(t, "pushed")}}
		e.Apply(ctx, change)
		for i, p := range peers {
			stack := attest.Stack{{Name: "pushed", Policy: change.Policies["pushed"]}}
			if places[i] == "in" {
				stack = attest.Stack{{Name: "floor", Policy: change.Policies["floor"]}, stack[0]}
			}
			alone, got := before[i].Rejudge(stack, now), p.refused.Load()
			if got == nil {
				got = p.Result()
			}
			// Of connections that are all refused, however old their evidence is, the age of each is not looked at.
			if got.Affirmed() != alone.Affirmed() || got.PolicyID() != alone.PolicyID() || got.Warned() != alone.Warned() || got.Level() != alone.Level() || got.Reconnected() != alone.Reconnected() ||
				got.Config() != alone.Config() || got.EvidenceDigest() != alone.EvidenceDigest() || !got.EvidenceTime().Equal(alone.EvidenceTime()) || got.Claims() != alone.Claims() ||
				transcript(got, alone.Affirmed()) != transcript(alone, alone.Affirmed()) {
				t.Fatalf("connection %d at %s: %v, alone %v\n%s\n%s", i, places[i], got.Err(), alone.Err(), transcript(got, true), transcript(alone, true))
			}
			if alone.Affirmed() {
				affirmed++
			} else {
				refused++
			}
			p.standing.Done()
		}
	})
	if affirmed == 0 || refused == 0 {
		t.Errorf("%d affirmed, %d refused", affirmed, refused)
	}
}

// transcript is what was checked, with or without ages.
func transcript(r *attest.Result, ages bool) (text string) {
	for _, c := range r.Checks() {
		if ages || c.ID != "binding.freshness" && c.ID != "binding.reconnect" {
			text += fmt.Sprintln(c.ID, c.Status, c.Code, c.Policy, c.Line)
		}
	}
	return text
}
