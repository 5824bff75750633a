package policy_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
)

var update = flag.Bool("update", false, "rewrite testdata/transcripts.txt, to be read line by line")

func transcript(j attest.Judgement) string {
	var b strings.Builder
	for _, c := range j.Checks {
		fmt.Fprintf(&b, "  %s %s", c.Status, c.ID)
		if c.Code != "" {
			fmt.Fprintf(&b, " (%s)", c.Code)
		}
		fmt.Fprintf(&b, ", line %d, %s: %s", c.Line, c.Source, c.Text)
		for _, part := range []struct{ label, text string }{{"got", c.Got}, {"want", c.Want}, {"nearest", c.Nearest}} {
			if part.text != "" {
				fmt.Fprintf(&b, "; %s %s", part.label, part.text)
			}
		}
		b.WriteString("\n")
	}
	for _, n := range j.NotChecked {
		fmt.Fprintf(&b, "  not checked: %s\n", n)
	}
	// Registers are told apart by their beginning and their end.
	return strings.NewReplacer(launch, "LAUNCH", other, "OTHER", strings.Repeat("77", 48), "SEVENS", strings.Repeat("88", 48), "EIGHTS").Replace(b.String())
}

const full = `policy: full
platforms:
  allow: [{vendor: intel, tee: tdx, generation: sapphire-rapids}]
  deny: [{vendor: intel, tee: sgx, because: SGX-1}]
tcb:
  status: {any_of: [UpToDate, SWHardeningNeeded], because: ST-1}
  date: {min: 2026-01-01, because: D-1}
  evaluation: {min: 20}
  advisories_deny: [INTEL-SA-1, INTEL-SA-2]
  bits: {smt: {is: on, because: B-1}, alias_check: on}
  per:
    - {platforms: [intel tdx], pce: {min: 13, because: P-1}, tdx1: 7, because: SCOPE-1}
workload:
  sets:
    - {name: v1, registers: {launch: ` + launch + `, rtmr1: 777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777}}
    - {name: v0, registers: {launch: ` + other + `, rtmr1: 888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888}}
  registers: {rtmr2: {any_of: [777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777]}}
  numbers: {isv_svn: {min: 3}, isv_prod_id: 7}
  config: {any_of: [abababababababababababababababababababababababababababababababab]}
  debug: off
  privilege: 1
binding: key
freshness: {evidence: 36h, endorsements: 30d}
rules:
  - {name: smt, when: claims.platform.smt, effect: require}
  - {name: young, when: 'age > duration("2m")', effect: warn}
  - {name: vendor, when: 'claims.vendor == "amd"', effect: deny}
`

// TestTranscripts compares whole transcripts: whatever a verdict rests on is told, and told right.
func TestTranscripts(t *testing.T) {
	type change = func(*attest.Claims, *attest.Situation)
	fullClaims := func() *attest.Claims {
		c := intelClaims()
		c.Platform["alias_check"] = attest.On
		c.Measured["rtmr2"] = bytes.Repeat([]byte{0x77}, 48)
		c.Numbers["isv_prod_id"] = 7
		return c
	}
	config := func(s *attest.Situation) { copy(s.Config[:], bytes.Repeat([]byte{0xab}, 32)) }
	in := func(text string, pairs ...string) string {
		changed := strings.NewReplacer(pairs...).Replace(text)
		if changed == text && len(pairs) > 0 {
			t.Fatalf("nothing replaced: %q", pairs)
		}
		return changed
	}
	revocation := func(r attest.Revocation) change {
		return func(c *attest.Claims, _ *attest.Situation) { c.Revocation = r }
	}
	tcb := func(text string) string { return in(intelBase, "tcb: {}", "tcb: {"+text+"}") }
	work := func(text string) string { return in(intelBase, "  measurement: any", text) }
	set := func(name, terms, value string) string {
		return "{name: " + name + terms + ", registers: {launch: " + value + "}}"
	}
	many := make([]string, 10)
	for i := range many {
		many[i] = fmt.Sprintf("{value: %02d%s, name: r%d}", i, other[2:], i)
	}
	simulated := in(intelBase, "[intel tdx]", `[{vendor: sim, root: "`+root+`"}], deny: [{vendor: sim, root: "`+strings.Replace(root, "1", "2", 1)+`"}]`)
	sim := func(c *attest.Claims, _ *attest.Situation) {
		c.Vendor, c.Simulated, c.TCBStatus, c.TCBJudged = "sim", true, "", time.Time{}
	}
	amd := func(c *attest.Claims, _ *attest.Situation) { *c = *claims() }
	var got strings.Builder
	for _, c := range []struct {
		name   string
		policy string
		change change
		bend   func(*policy.Policy) *policy.Policy
	}{
		{"all well", full, func(_ *attest.Claims, s *attest.Situation) { config(s) }, nil},
		{"all wrong", full, func(c *attest.Claims, s *attest.Situation) {
			c.Vendor, c.TEE, c.Generation, c.Stepping = "amd", "snp", "genoa", "B2"
			c.TCBStatus, c.Advisories = "OutOfDate", []string{"INTEL-SA-2", "INTEL-SA-3"}
			c.TCBDate = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
			*c.Evaluation, *c.Privilege = 19, 2
			c.Platform["smt"], c.Platform["alias_check"] = attest.Off, attest.Off
			c.Measured["rtmr1"], c.Measured["rtmr2"] = bytes.Repeat([]byte{0x88}, 48), bytes.Repeat([]byte{0x66}, 48)
			c.Numbers["isv_svn"], c.Numbers["isv_prod_id"] = 2, 8
			c.Debug, c.Migratable = attest.On, attest.On
			s.Config[0], s.Level, s.Made = 1, attest.LevelPinned, now.AddDate(0, 0, -4)
		}, nil},
		{"all absent", full, func(c *attest.Claims, s *attest.Situation) {
			c.TEE, c.Generation, c.Stepping = "", "", ""
			c.TCBStatus, c.TCBDate, c.Evaluation, c.TCB, c.Platform, c.Numbers, c.Measured = "", time.Time{}, nil, nil, nil, nil, nil
			c.Debug, c.Migratable, c.Privilege = attest.Absent, attest.Absent, nil
			s.Made = time.Time{}
		}, nil},
		{"below the scope's floors", full, func(c *attest.Claims, s *attest.Situation) {
			config(s)
			c.TCB["pce"], c.TCB["tdx1"] = 12, 6
		}, nil},
		{"not in force", in(intelBase,
			"allow: [intel tdx]", "allow: [{vendor: intel, until: 2026-01-01}, {vendor: intel, from: 2027-01-01}], deny: [{vendor: intel, until: 2026-01-01}]",
			"tcb: {}", "tcb: {date: {min: 2027-01-01, from: 2026-12-01}, evaluation: {min: 99, until: 2026-02-01}, bits: {smt: {is: off, from: 2026-12-01}}, pce: {min: 99, until: 2026-03-01}}",
			"measurement: any", "sets: ["+set("v1", ", until: 2026-11-01", launch)+"]\n  numbers: {isv_svn: {is: 2, until: 2026-01-01}}",
		) + "rules: [{name: r, when: 'true', effect: deny, until: 2026-01-01}]\n", nil, nil},
		{"in the shadow", in(intelBase,
			"allow: [intel tdx]", "allow: [{vendor: intel, shadow: true}]",
			"measurement: any", "sets: ["+set("v1", ", shadow: true", launch)+"]",
		) + "rules: [{name: w, when: 'true', effect: warn, because: W-1}, {name: ws, when: 'true', effect: warn, shadow: true}, {name: d, when: 'true', effect: deny, shadow: true}]\n", nil, nil},
		{"a status in a scope in the shadow", tcb("per: [{platforms: [intel *], status: [OutOfDate], shadow: true, because: S-1}, {platforms: [intel *], any: true}]"), func(c *attest.Claims, _ *attest.Situation) { c.TCBStatus = "OutOfDate" }, nil},
		{"scopes of which the last is in the shadow", tcb("per: [{platforms: [intel *], status: [OutOfDate]}, {platforms: [intel *], pce: 14, shadow: true, because: S-1}]"), func(c *attest.Claims, _ *attest.Situation) { c.TCBStatus, c.Advisories = "OutOfDate", []string{"X-1"} }, nil},
		{"a status of all that tolerates advisories", tcb("status: [OutOfDate], advisories_tolerate: [X-1]"), func(c *attest.Claims, _ *attest.Situation) { c.TCBStatus, c.Advisories = "OutOfDate", []string{"X-1"} }, nil},
		{"an advisory that is not tolerated", tcb("advisories_tolerate: [X-1]"), func(c *attest.Claims, _ *attest.Situation) { c.Advisories = []string{"X-1", "X-2"} }, nil},
		{"bare evidence", in(intelBase, "binding: key", "binding: none"), func(_ *attest.Claims, s *attest.Situation) { s.Level, s.Made = attest.LevelNone, time.Time{} }, nil},
		{"bare evidence with a time", in(intelBase, "binding: key", "binding: none"), func(_ *attest.Claims, s *attest.Situation) { s.Level, s.Made = attest.LevelNone, now.AddDate(-1, 0, 0) }, nil},
		{"made in the future", intelBase, func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(time.Hour) }, nil},
		{"a tolerated binding", intelBase, func(_ *attest.Claims, s *attest.Situation) { s.Level = attest.LevelPinned }, func(p *policy.Policy) *policy.Policy { return p.UnsafeBinding(attest.LevelPinned) }},
		{"one that is weaker than tolerated", intelBase, func(_ *attest.Claims, s *attest.Situation) { s.Level = attest.LevelNone }, func(p *policy.Policy) *policy.Policy { return p.UnsafeBinding(attest.LevelPinned) }},
		{"a binding that ended", in(intelBase, "binding: key", "binding: {min: key, because: B-1, until: 2026-01-01}"), nil, nil},
		{"unchecked", intelBase + "revocation: unchecked\n", revocation(attest.Revocation{}), nil},
		{"no list", intelBase, revocation(attest.Revocation{Problem: &attest.Error{Code: attest.CodeEndorsementMissing, Err: errors.New("no route")}}), nil},
		{"no list, with more to say", intelBase, revocation(attest.Revocation{Problem: &attest.Error{Code: attest.CodeEndorsementMissing, Got: "got", Want: "want", Err: errors.New("no route")}}), nil},
		{"no beginning", intelBase, revocation(attest.Revocation{Expires: now.Add(time.Hour)}), nil},
		{"no end", intelBase, revocation(attest.Revocation{Issued: now.Add(-time.Hour)}), nil},
		{"an old list", intelBase + "freshness: {endorsements: 36h}\n", revocation(attest.Revocation{Issued: now.AddDate(0, 0, -3), Expires: now.AddDate(0, 0, 3)}), nil},
		{"nothing judged, nothing asked", in(intelBase, "[intel tdx]", "[amd *]"), amd, nil},
		{"nothing judged, a floor", in(tcb("snp: 23"), "[intel tdx]", "[amd *]"), amd, nil},
		{"nothing judged, a scope", in(tcb("per: [{platforms: [amd *], any: true}]"), "[intel tdx]", "[amd *]"), amd, nil},
		{"judged, and when", intelBase, func(c *attest.Claims, _ *attest.Situation) { c.TCBStatus = "" }, nil},
		{"judged, nobody knows when", intelBase, func(c *attest.Claims, _ *attest.Situation) { c.TCBJudged = time.Time{} }, nil},
		{"one of many values", work("  measurement: {any_of: [" + strings.Join(many, ", ") + "]}"), nil, nil},
		{"as many values as are told", work("  measurement: {any_of: [" + strings.Join(many[:8], ", ") + "]}"), nil, nil},
		{"a value without a name", work("  measurement: {any_of: [" + other + "]}"), nil, nil},
		{"a slip at the end", work("  measurement: {any_of: [{value: " + launch[:94] + "d1, name: v9}]}"), nil, nil},
		{"a slip at the beginning", work("  measurement: {any_of: [{value: 56" + launch[2:] + ", name: v9}]}"), nil, nil},
		{"the nearer of two", work("  sets: [{name: a, registers: {launch: " + launch + ", rtmr1: " + other + "}}, {name: b, registers: {launch: " + other + ", rtmr1: " + other + "}}]"), nil, nil},
		{"a part of one value", work("  measurement: {any_of: [" + launch + "]}"), func(c *attest.Claims, _ *attest.Situation) { c.Measured["launch"] = c.Measured["launch"][:32] }, nil},
		{"a set that is near only as a whole", work("  sets: [{name: a, registers: {launch: " + launch + ", rtmr1: " + other + "}}]"), nil, nil},
		{"a number above", work("  measurement: any\n  numbers: {isv_svn: {min: 2}}"), nil, nil},
		{"anything", in(intelBase, "debug: off", "debug: any\n  migration: any"), func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.On }, nil},
		{"a register that is absent", work("  measurement: any\n  registers: {rtmr9: {any_of: [" + other + "]}}"), nil, nil},
		{"simulated", simulated, sim, nil},
		{"simulated by another root", simulated, func(c *attest.Claims, s *attest.Situation) { sim(c, s); c.Root = strings.Replace(root, "1", "3", 1) }, nil},
		{"simulated by a root that is denied", simulated, func(c *attest.Claims, s *attest.Situation) { sim(c, s); c.Root = strings.Replace(root, "1", "2", 1) }, nil},
		{"a provider", in(intelBase, "[intel tdx]", "[{vendor: intel, csp: [aws, azure]}]"), func(c *attest.Claims, _ *attest.Situation) { c.Provenance.CSP = "Azure" }, nil},
		{"denied for what is absent", in(intelBase, "[intel tdx]", "[intel *], deny: [{vendor: intel, stepping: C}]"), func(c *attest.Claims, _ *attest.Situation) { c.Stepping = "" }, nil},
		{"not denied for another stepping", in(intelBase, "[intel tdx]", "[intel *], deny: [{vendor: intel, stepping: C}]"), nil, nil},
		{"not allowed for what is absent", in(intelBase, "[intel tdx]", "[{vendor: intel, stepping: C}]"), func(c *attest.Claims, _ *attest.Situation) { c.Stepping = "" }, nil},
		{"a platform without a name", intelBase, func(c *attest.Claims, _ *attest.Situation) {
			c.Vendor, c.TEE, c.Generation, c.Stepping = "", "", "x", "y"
		}, nil},
	} {
		cl, s := fullClaims(), situation()
		if c.change != nil {
			c.change(cl, &s)
		}
		p, err := policy.Parse("p.yaml", []byte(c.policy), policy.NoFiles)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.bend != nil {
			p = c.bend(p)
		}
		fmt.Fprintf(&got, "%s\n%s\n", c.name, transcript(p.Judge(cl, s)))
	}
	floor := in(intelBase, "policy: p", "policy: corp", "tcb: {}", "tcb: {pce: 99}")
	p, err := policy.Parse("p.yaml", []byte(in(intelBase, "policy: p", "policy: p\nfloor: corp.yaml")), files(map[string]string{"corp.yaml": floor}))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&got, "a floor\n%s", transcript(p.Judge(intelClaims(), situation())))

	const file = "testdata/transcripts.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// One block a case, so that a difference names it.
	wanted, made := strings.Split(string(want), "\n\n"), strings.Split(got.String(), "\n\n")
	if len(wanted) != len(made) {
		t.Fatalf("%d transcripts, want %d", len(made), len(wanted))
	}
	for i := range made {
		if made[i] != wanted[i] {
			t.Errorf("got\n%s\nwant\n%s", made[i], wanted[i])
		}
	}
}
