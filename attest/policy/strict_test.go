package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
)

// dice writes random policies and claims over few words, so that they meet.
type dice struct {
	*rand.Rand
	sparse bool // few demands, so that many claims are accepted
}

func (d dice) chance(percent int) bool {
	if d.sparse {
		percent /= 4
	}
	return d.IntN(100) < percent
}

func (d dice) one(words ...string) string  { return words[d.IntN(len(words))] }
func (d dice) some(words ...string) string { return strings.Join(d.pick(words...), ", ") }
func (d dice) pick(words ...string) (l []string) {
	for len(l) == 0 {
		for _, w := range words {
			if d.IntN(2) == 0 {
				l = append(l, w)
			}
		}
	}
	return l
}

// terms are those of a rule, often none.
func (d dice) terms() string {
	s := ""
	if d.chance(10) {
		s += ", from: " + d.one("2026-01-01", "2026-11-01", "2026-12-01")
	}
	if d.chance(10) {
		s += ", until: " + d.one("2026-12-15", "2027-01-01")
	}
	if d.chance(8) {
		s += ", shadow: true"
	}
	return s
}

func (d dice) pattern(terms func() string) string {
	if d.chance(50) {
		return d.one("amd *", "amd milan", "amd genoa", "amd genoa+", "amd milan+", "amd snp", "intel tdx", "intel *", "amd snp turin")
	}
	s := "{vendor: " + d.one("amd", "intel")
	if d.chance(40) {
		s += ", tee: " + d.one("snp", "tdx")
	}
	if d.chance(20) {
		s += ", stepping: " + d.one("B0", "B1")
	}
	if d.chance(20) {
		s += ", chip_ids: [" + d.some("aa", "bb") + "]"
	}
	if d.chance(10) {
		s += ", csp: [" + d.one("aws", `"*"`, "aws, azure") + "]"
	}
	if d.chance(10) {
		s += ", fmspc: [" + d.some(`"00806f050000"`, `"00a06d080000"`) + "]"
	}
	return s + terms() + "}"
}

func (d dice) patterns(terms func() string) string {
	n := 1 + d.IntN(3)
	if d.sparse {
		n += 2
	}
	all := make([]string, n)
	for i := range all {
		all[i] = d.pattern(terms)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func (d dice) firmware() string {
	var s []string
	floor := func(name string, most int) {
		if d.chance(40) {
			if d.chance(25) {
				s = append(s, fmt.Sprintf("%s: {min: %d%s}", name, d.IntN(most), d.terms()))
				return
			}
			s = append(s, fmt.Sprintf("%s: %d", name, d.IntN(most)))
		}
	}
	floor("snp", 4)
	floor("tdx1", 4)
	if d.chance(25) {
		s = append(s, "status: ["+d.some("UpToDate", "SWHardeningNeeded", "OutOfDate")+"]")
	} else if d.chance(10) {
		s = append(s, "status: {any_of: ["+d.some("UpToDate", "OutOfDate")+"]"+d.terms()+"}")
	}
	if d.chance(15) {
		s = append(s, "date: "+d.one("2025-01-01", "2026-01-01"))
	}
	if d.chance(15) {
		s = append(s, fmt.Sprintf("evaluation: %d", 18+d.IntN(3)))
	}
	if d.chance(15) {
		s = append(s, "advisories_deny: ["+d.some("SA-1", "SA-2")+"]")
	}
	if d.chance(15) {
		s = append(s, "advisories_tolerate: ["+d.some("SA-1", "SA-2")+"]")
	}
	if d.chance(25) {
		s = append(s, "bits: {smt: "+d.one("on", "off", "{is: off"+d.terms()+"}")+"}")
	}
	return strings.Join(s, ", ")
}

var values = []string{strings.Repeat("11", 48), strings.Repeat("22", 48), strings.Repeat("33", 48)}

func (d dice) references() string {
	var all []string
	for _, v := range d.pick(values...) {
		all = append(all, `{value: "`+v+`"`+d.terms()+"}")
	}
	return "{any_of: [" + strings.Join(all, ", ") + "]}"
}

// policy writes a policy.
func (d dice) policy() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("policy: p")
	say("platforms:\n  allow: %s", d.patterns(d.terms))
	if d.chance(50) {
		say("  deny: %s", d.patterns(d.terms))
	}
	if d.chance(70) {
		tcb := d.firmware()
		if d.chance(30) {
			var per []string
			for range 1 + d.IntN(2) {
				if demands := d.firmware(); demands != "" {
					per = append(per, "{platforms: "+d.patterns(func() string { return "" })+d.terms()+", "+demands+"}")
				} else {
					per = append(per, "{platforms: "+d.patterns(func() string { return "" })+d.terms()+", any: true}")
				}
			}
			if tcb != "" {
				tcb += ", "
			}
			tcb += "per: [" + strings.Join(per, ", ") + "]"
		}
		say("tcb: {%s}", tcb)
	}
	say("workload:")
	switch d.IntN(4) {
	case 0, 1:
		say("  measurement: any")
	case 2:
		say("  measurement: %s", d.references())
	default:
		say("  sets:\n    - {name: a, registers: {launch: %q, rtmr1: %q}%s}", d.one(values...), d.one(values...), d.terms())
	}
	if d.chance(25) {
		say("  registers: {rtmr1: %s}", d.references())
	}
	if d.chance(20) {
		say("  numbers: {isv_svn: %s}", d.one("1", "2", "{min: 1}", "{min: 2"+d.terms()+"}"))
	}
	if d.chance(15) {
		say("  config: {any_of: [%q]}", d.one(strings.Repeat("ab", 32), strings.Repeat("cd", 32)))
	}
	say("  debug: %s", d.one("off", "off", "any", "{is: any"+d.terms()+"}", "{is: off"+d.terms()+"}"))
	if d.chance(40) {
		say("  migration: %s", d.one("off", "any", "{is: any"+d.terms()+"}"))
	}
	if d.chance(40) {
		say("  privilege: %s", d.one("0", "1", "2", "{max: 1"+d.terms()+"}"))
	}
	if d.chance(80) {
		say("binding: %s", d.one("session", "key", "none", "{min: key"+d.terms()+"}", "{min: session"+d.terms()+"}"))
	}
	if d.chance(50) {
		say("freshness: {evidence: %s, endorsements: %s%s}", d.one("1h", "10m"), d.one("1d", "30d"), d.one("", "", ", reconnect: off", ", reconnect: 5m", ", reconnect: 30m", ", reconnect: 2h"))
	}
	if d.chance(40) {
		say("revocation: %s", d.one("required", "unchecked", "{is: unchecked"+d.terms()+"}", "{is: required"+d.terms()+"}"))
	}
	if d.chance(25) {
		say("rules:\n  - {when: '%s', effect: %s%s}", d.one("claims.version > 1", `claims.tee == "snp"`), d.one("deny", "require", "warn"), d.terms())
	}
	return b.String()
}

func (d dice) claims() (*attest.Claims, attest.Situation) {
	now := time.Date(2026, time.Month(10+d.IntN(4)), 1+d.IntN(27), 0, 0, 0, 0, time.UTC)
	flag := func() attest.Flag {
		return []attest.Flag{attest.Off, attest.Off, attest.Off, attest.On, attest.Absent}[d.IntN(5)]
	}
	c := &attest.Claims{
		Vendor: d.one("amd", "amd", "intel"), Generation: d.one("milan", "genoa", "turin", "venice", ""), Stepping: d.one("B0", "B1", ""),
		TCB: attest.TCB{}, Platform: map[string]attest.Flag{}, Measured: map[string]attest.HexBytes{}, Numbers: map[string]uint64{},
		Debug: flag(), Migratable: flag(), Version: 1 + d.IntN(2),
		Revocation: attest.Revocation{Issued: now.Add(-time.Duration(d.IntN(40)) * 24 * time.Hour), Expires: now.AddDate(0, 1, 0)},
	}
	c.TEE = map[string]string{"amd": "snp", "intel": "tdx"}[c.Vendor]
	if d.chance(5) {
		c.TEE = ""
	}
	if d.chance(80) {
		c.TCB[d.one("snp", "tdx1")] = uint64(d.IntN(5))
		c.TCB[d.one("snp", "tdx1")] = uint64(d.IntN(5))
	}
	if d.chance(40) {
		c.TCBStatus = d.one("UpToDate", "UpToDate", "SWHardeningNeeded", "OutOfDate")
		c.TCBDate = now.AddDate(-d.IntN(3), 0, 0)
		c.TCBJudged = now.AddDate(0, 0, -d.IntN(35))
		n := uint64(17 + d.IntN(5))
		c.Evaluation = &n
		if d.chance(40) {
			c.Advisories = d.pick("SA-1", "SA-2", "SA-3")
		}
	}
	if d.chance(60) {
		c.Platform["smt"] = attest.FlagOf(d.chance(50))
	}
	for _, r := range []string{"launch", "rtmr1"} {
		if d.chance(85) {
			v := attest.HexBytes{}
			b := []byte{0x11, 0x22, 0x33}[d.IntN(3)]
			for range 48 {
				v = append(v, b)
			}
			c.Measured[r] = v
		}
	}
	if d.chance(60) {
		c.Numbers["isv_svn"] = uint64(d.IntN(4))
	}
	if d.chance(50) {
		c.Provenance.ChipID = attest.HexBytes{[]byte{0xaa, 0xbb, 0xcc}[d.IntN(3)]}
	}
	if d.chance(30) {
		c.Provenance.CSP = d.one("aws", "azure")
	}
	if d.chance(30) {
		c.FMSPC = attest.HexBytes{0, 0x80, 0x6f, 5, 0, 0}
	}
	if d.chance(60) {
		n := d.IntN(3)
		c.Privilege = &n
	}
	if d.chance(10) {
		c.Revocation = attest.Revocation{}
	}
	s := attest.Situation{Level: attest.Level(d.one("session", "session", "key", "none")), Made: now.Add(-time.Duration(d.IntN(90)) * time.Minute), Now: now}
	if d.IntN(3) == 0 {
		s.Reconnect, s.Made = true, now.Add(-time.Duration(d.IntN(70)-3)*time.Minute)
	}
	if s.Level == attest.LevelNone && d.chance(50) {
		s.Made = time.Time{}
	}
	switch d.IntN(3) {
	case 0:
		for i := range s.Config {
			s.Config[i] = 0xab
		}
	case 1:
		for i := range s.Config {
			s.Config[i] = 0xcd
		}
	}
	return c, s
}

func accepts(p *policy.Policy, c *attest.Claims, s attest.Situation) bool {
	j := p.Judge(c, s)
	for _, check := range j.Checks {
		if check.Status != attest.StatusPass && check.Status != attest.StatusWarn {
			return false
		}
	}
	return len(j.Checks) > 0
}

// Whenever Looser finds nothing, no claims are accepted by the policy and refused by the floor. Every pair out of some
// hundred policies is compared, over claims of which each is accepted by some policy. A third of the policies are copies
// of others with a line changed, so that pairs that differ little are frequent.
func TestLooserIsSound(t *testing.T) {
	d := dice{Rand: rand.New(rand.NewPCG(2026, 11))}
	const number = 360
	policies := make([]*policy.Policy, 0, number)
	texts := make([]string, 0, number)
	for len(policies) < number {
		d.sparse = len(policies)%3 != 0
		text := d.policy()
		if len(texts) > 10 && d.chance(60) {
			// The same but for some lines, taken from another policy with the same key.
			lines := strings.Split(texts[d.IntN(len(texts))], "\n")
			for n := range 1 + d.IntN(2) {
				other := strings.Split(d.policy(), "\n")
				i := d.IntN(len(lines))
				key, _, _ := strings.Cut(lines[i], ":")
				for _, l := range other {
					if strings.HasPrefix(l, key+":") && !strings.HasSuffix(lines[i], ":") && !strings.HasSuffix(l, ":") || n == 0 && l == "" {
						lines[i] = l
					}
				}
			}
			text = strings.Join(lines, "\n")
		}
		p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
		if err != nil {
			continue // a window that ends before it begins, a scope without demands
		}
		policies, texts = append(policies, p), append(texts, text)
	}
	type facts struct {
		c *attest.Claims
		s attest.Situation
	}
	var cases []facts
	verdicts := make([][]bool, number)
	d.sparse = false
	for range 60_000 {
		c, s := d.claims()
		var row [number]bool
		any := false
		for i, p := range policies {
			row[i] = accepts(p, c, s)
			any = any || row[i]
		}
		if any {
			cases = append(cases, facts{c, s})
			for i := range row {
				verdicts[i] = append(verdicts[i], row[i])
			}
		}
		if len(cases) >= 600 {
			break
		}
	}
	pairs, yes, careful, accepted, telling := 0, 0, 0, 0, 0
	for i, p := range policies {
		for j, floor := range policies {
			if texts[i] == texts[j] {
				continue
			}
			pairs++
			looser := p.Looser(floor)
			example, some := -1, 0
			for k := range cases {
				if verdicts[i][k] {
					accepted, some = accepted+1, some+1
				}
				if verdicts[i][k] && !verdicts[j][k] {
					example = k
					break
				}
			}
			switch {
			case looser == nil && example >= 0:
				c := cases[example]
				t.Fatalf("no looser, and yet it accepts %+v in %+v\n--- policy\n%s\n--- floor\n%s\nfloor says %v", *c.c, c.s, texts[i], texts[j], codes(floor.Judge(c.c, c.s)))
			case looser == nil:
				yes++
				if some > 0 {
					telling++
				}
			case example < 0:
				careful++
			}
		}
	}
	t.Logf("%d pairs, %d claims, %d proofs (%d of policies that accept some of the claims), %d without a proof and without a counterexample, %d acceptances", pairs, len(cases), yes, telling, careful, accepted)
	if pairs < 100_000 || telling < 500 || len(cases) < 300 {
		t.Fatalf("the test is too thin: %d pairs, %d proofs, %d claims", pairs, telling, len(cases))
	}
}

// Each loosening is named.
func TestLooser(t *testing.T) {
	strict := strings.Replace(base, "binding: key\n", "binding: session\nrules:\n  - {when: claims.version > 1, effect: require}\n", 1)
	strict = strings.Replace(strict, "  debug: off", "  debug: off\n  registers: {rtmr0: {any_of: ["+other+"]}}\n  numbers: {isv_svn: {min: 2}}\n  config: {any_of: ["+strings.Repeat("ab", 32)+"]}", 1)
	strict = strings.Replace(strict, "tcb: {snp: 23}", "  deny: [amd turin]\ntcb: {snp: 23, date: 2026-01-01, evaluation: 19, status: [UpToDate], advisories_deny: [SA-1], bits: {smt: off}}", 1)
	if list := parse(t, strict).Looser(parse(t, strict)); list != nil {
		t.Errorf("than itself: %v", list)
	}
	if list := parse(t, strict+"# other file\n").Looser(parse(t, strict)); list != nil {
		t.Errorf("than its twin: %v", list)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"platform":      {"[amd genoa+]", "[amd milan+]", "allows amd milan+"},
		"denial":        {"  deny: [amd turin]\n", "", "which may be amd turin"},
		"floor":         {"snp: 23", "snp: 22", "tcb.snp at least 23"},
		"floor ends":    {"snp: 23", "snp: {min: 23, until: 2027-01-01}", "tcb.snp at least 23"},
		"floor shadow":  {"snp: 23", "snp: {min: 23, shadow: true}", "tcb.snp at least 23"},
		"date":          {"2026-01-01", "2025-01-01", "tcb.date"},
		"evaluation":    {"evaluation: 19", "evaluation: 18", "tcb.evaluation"},
		"status":        {"[UpToDate]", "[UpToDate, OutOfDate]", "tcb.status"},
		"advisory":      {"[SA-1]", "[SA-2]", "advisories_deny"},
		"bit":           {"smt: off", "smt: on", "tcb.bits.smt off"},
		"measurement":   {"value: " + launch, "value: " + other, "accepts 90be90be"},
		"any software":  {"{any_of: [{value: " + launch + ", name: v1}]}", "any", "measurement any"},
		"register":      {"  registers: {rtmr0: {any_of: [" + other + "]}}\n", "", "rtmr0 is not demanded"},
		"number":        {"min: 2", "min: 1", "isv_svn at least 2"},
		"config":        {strings.Repeat("ab", 32), strings.Repeat("cd", 32), "config"},
		"debug":         {"debug: off", "debug: any", "debug any"},
		"migration":     {"debug: off", "debug: off\n  migration: any", "migration any"},
		"privilege":     {"debug: off", "debug: off\n  privilege: 1", "privilege 1"},
		"binding":       {"binding: session", "binding: key", "binding key"},
		"evidence age":  {"evidence: 1h", "evidence: 2h", "freshness.evidence"},
		"undated":       {"endorsements: 30d", "endorsements: 30d, undated: true", "freshness.undated"},
		"endorsements":  {"endorsements: 30d", "endorsements: 31d", "freshness.endorsements"},
		"reconnect":     {"endorsements: 30d", "endorsements: 30d, reconnect: 11m", "freshness.reconnect 11m is longer than 10m"},
		"revocation":    {"binding: session", "revocation: unchecked\nbinding: session", "revocation"},
		"rule":          {"version > 1", "version > 0", "the rule"},
		"rule's effect": {"effect: require", "effect: warn", "the rule"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(strict, c.old, c.new, 1)
			if text == strict {
				t.Fatal("nothing replaced")
			}
			list := parse(t, text).Looser(parse(t, strict))
			if len(list) == 0 || !strings.Contains(strings.Join(list, "\n"), c.want) {
				t.Errorf("got %v, want %q", list, c.want)
			}
		})
	}
	if list := new(policy.Policy).Looser(parse(t, strict)); list == nil {
		t.Error("the zero policy is as strict as any")
	}
}

// The age for a reconnect is compared as it counts: off is below every age, and evidence bounds it.
func TestLooserReconnect(t *testing.T) {
	with := func(freshness string) *policy.Policy {
		return parse(t, strings.Replace(base, "evidence: 1h", freshness, 1))
	}
	for _, c := range []struct{ p, floor, want string }{
		{"evidence: 1h", "evidence: 1h, reconnect: 10m", ""},
		{"evidence: 1h, reconnect: 10m", "evidence: 1h", ""},
		{"evidence: 1h, reconnect: off", "evidence: 1h", ""},
		{"evidence: 1h, reconnect: off", "evidence: 1h, reconnect: off", ""},
		{"evidence: 1h", "evidence: 1h, reconnect: off", "freshness.reconnect 10m is longer than off"},
		{"evidence: 1h", "evidence: 1h, reconnect: 9m", "freshness.reconnect 10m is longer than 9m"},
		{"evidence: 5m", "evidence: 1h, reconnect: 5m", ""},
		{"evidence: 5m, reconnect: 20m", "evidence: 1h, reconnect: 5m", ""},
		{"evidence: 1h, reconnect: 1h", "evidence: 1h, reconnect: 2h", ""},
	} {
		if got := strings.Join(with(c.p).Looser(with(c.floor)), "\n"); got != c.want {
			t.Errorf("%s over %s: got %q, want %q", c.p, c.floor, got, c.want)
		}
	}
}

// What was once called as strict and is not.
func TestLooserIsNot(t *testing.T) {
	simulated := `{vendor: sim, root: "` + root + `"}`
	for name, c := range map[string]struct{ floor, p string }{
		"the shadow of a status ends": {
			strings.Replace(base, "tcb: {snp: 23}", "tcb: {snp: 23, status: {any_of: [OutOfDate], shadow: true, until: 2027-01-01}}", 1),
			strings.Replace(base, "tcb: {snp: 23}", "tcb: {snp: 23, status: [OutOfDate]}", 1),
		},
		"the shadow of a status in a scope begins": {
			strings.Replace(base, "tcb: {snp: 23}", "tcb: {per: [{platforms: [amd genoa+], status: {any_of: [OutOfDate], shadow: true, from: 2027-01-01}}]}", 1),
			strings.Replace(base, "tcb: {snp: 23}", "tcb: {status: [OutOfDate]}", 1),
		},
		"a root in every scope": {
			strings.Replace(base, "[amd genoa+]", "["+simulated+"]", 1),
			strings.Replace(strings.Replace(base, "[amd genoa+]", "["+simulated+"]", 1), "tcb: {snp: 23}", "tcb: {per: [{platforms: [{vendor: sim}], snp: 23}, {platforms: ["+simulated+"], any: true}]}", 1),
		},
		"a star is no product": {
			strings.Replace(base, "[amd genoa+]", `[{vendor: amd, product: "*"}]`, 1),
			strings.Replace(base, "[amd genoa+]", `[{vendor: amd, product: EPYC}]`, 1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			floor, err1 := policy.Parse("floor.yaml", []byte(c.floor), policy.NoFiles)
			p, err2 := policy.Parse("p.yaml", []byte(c.p), policy.NoFiles)
			if err1 == nil && err2 == nil && p.Looser(floor) == nil {
				t.Error("called as strict")
			}
		})
	}
}
