package expr_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy/expr"
)

func facts(change func(*attest.Claims)) expr.Facts {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	level, evaluation := 1, uint64(20)
	c := &attest.Claims{
		Vendor: "intel", TEE: "tdx", Generation: "sapphire-rapids", TCB: attest.TCB{"tdx1": 5}, TCBStatus: "UpToDate", TCBDate: now.AddDate(-1, 0, 0),
		Evaluation: &evaluation, Advisories: []string{"INTEL-SA-00001"}, Debug: attest.Off, Privilege: &level, Version: 4,
		Platform: map[string]attest.Flag{"smt": attest.On, "odd": attest.Absent}, Measured: map[string]attest.HexBytes{"rtmr0": {0xab}},
		Numbers: map[string]uint64{"isv_svn": 3, "huge": 1<<64 - 1},
	}
	if change != nil {
		change(c)
	}
	return expr.NewFacts(c, attest.Situation{Level: attest.LevelKey, Made: now.Add(-time.Hour), Now: now})
}

func TestEval(t *testing.T) {
	compiler, err := expr.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"claims.platform.smt":                               "true",
		`claims.vendor == "amd"`:                            "false",
		`claims.vendor == "intel" && claims.tcb.tdx1 >= 5`:  "true",
		`claims.measurements["rtmr0"] == "ab"`:              "true",
		`"INTEL-SA-00001" in claims.advisories`:             "true",
		`claims.advisories.exists(a, a.startsWith("X"))`:    "false",
		`claims.evaluation > 19 && claims.version == 4`:     "true",
		`age < duration("2h") && binding == "key"`:          "true",
		`now - claims.tcb_date > duration("1000h")`:         "true",
		`claims.numbers.huge > 9000000000000000000`:         "true",
		`claims.privilege == 1 && !claims.debug`:            "true",
		`claims.migratable`:                                 "no result", // absent is neither on nor off
		`claims.platform.alias_check`:                       "no result",
		`claims.platform.odd`:                               "no result",
		`claims.csp == "aws"`:                               "no result",
		`claims.tcb.snp < 3`:                                "no result",
		`has(claims.tcb.snp) && claims.tcb.snp < 3`:         "false",
		`claims.simulated`:                                  "false",
		`claims.tcb_status in ["UpToDate", "SWHardening"]`:  "true",
		`claims.generation.matches("^(sapphire|emerald)-")`: "true",
	} {
		p, err := compiler.Compile(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		got, err := p.Eval(facts(nil))
		switch {
		case err != nil && want != "no result", err == nil && map[bool]string{true: "true", false: "false"}[got] != want:
			t.Errorf("%s: got %v, %v; want %s", source, got, err, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	compiler, err := expr.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"":                        "",
		"claims.platfrom.smt":     "undeclared reference",
		"claims.tcb.snp":          "type int",
		`claims.vendor > 3`:       "no matching overload",
		`claims.tcb.snp > "23"`:   "no matching overload",
		"claims.debug && ":        "Syntax error",
		strings.Repeat("(", 60):   "",
		strings.Repeat("a", 5000): "5000 bytes",
		"claims":                  "undeclared reference",
		`claims.advisories.all(a, claims.advisories.all(b, claims.advisories.all(c, a + b != c)))`: "it may cost",
	} {
		if p, err := compiler.Compile(source); err == nil || !strings.Contains(err.Error(), want) || p != nil {
			t.Errorf("%.80s: got %v, want %q", source, err, want)
		}
	}
}

// The estimate assumes sizes; claims beyond them end by the limit at run time, as a refusal.
func TestCostLimit(t *testing.T) {
	compiler, err := expr.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	p, err := compiler.Compile(`claims.advisories.all(a, a != "x")`)
	if err != nil {
		t.Fatal(err)
	}
	many := facts(func(c *attest.Claims) { c.Advisories = make([]string, 20_000) })
	if _, err := p.Eval(many); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("got %v", err)
	}
}

// A time is the same wherever it was written down: claims that say the same are judged alike, and so is the same moment on two machines.
func TestZone(t *testing.T) {
	compiler, err := expr.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 1, 23, 30, 0, 0, time.FixedZone("", 9*3600))
	for _, source := range []string{`string(now) == "2026-11-01T14:30:00Z"`, `string(claims.tcb_date).startsWith("2026-11-01T14")`} {
		p, err := compiler.Compile(source)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Eval(expr.NewFacts(&attest.Claims{TCBDate: at}, attest.Situation{Now: at})); !got || err != nil {
			t.Errorf("%s: %v, %v", source, got, err)
		}
	}
}
