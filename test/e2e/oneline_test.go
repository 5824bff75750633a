package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// Vendor Q's generation R is vulnerable: nobody talks to Q/R; S, T, U and vendors P, M, N stay welcome. Simulated platforms
// all have the vendor sim, so their TEEs stand for vendors: SGX is Q, and SEV-SNP, TDX and Nitro are P, M and N.
func TestTheOneLine(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const line = "  deny: [{vendor: sim, tee: sgx, generation: coffee-lake, because: Q-SA-7}]"
	platforms := []struct{ spec, name, code string }{
		{"sim:snp:genoa", "P 1", ""},
		{"sim:snp:turin", "P 2", ""},
		{"sim:tdx:emerald-rapids", "M 1", ""},
		{"sim:nitro", "N 1", ""},
		{"sim:sgx:ice-lake", "Q S", ""},
		{"sim:sgx:sapphire-rapids", "Q T", ""},
		{"sim:sgx:granite-rapids", "Q U", ""},
		{"sim:sgx:coffee-lake", "Q R", "J503"},
		{"sim:sgx:emerald-rapids", "Q V, unheard of", "J507"},
	}
	back := l.page(nil)
	root := regexp.MustCompile(`root: "(sha256:[0-9a-f]{64})"`)
	addrs, allow, q := map[string]string{}, "", ""
	for _, p := range platforms {
		addr := l.start("serve", "--log", "json", "--tee", p.spec+",dir="+l.path("sim"), "--listen", "127.0.0.1:0", "--to", back).address()
		found := root.FindStringSubmatch(l.must(0, "policy", "init", addr).stdout)
		if found == nil {
			t.Fatalf("%s: no root proposed", p.spec)
		}
		addrs[p.spec] = addr
		_, platform, _ := strings.Cut(p.spec, ":")
		tee, generation, _ := strings.Cut(platform, ":")
		rule := "tee: " + tee
		if tee == "sgx" { // all of Q under one root, or it would not be the generation that decides
			if q != "" && q != found[1] {
				t.Fatalf("%s: the root is %s, that of its siblings %s", p.spec, found[1], q)
			}
			q = found[1]
			rule += ", generation: " + generation
		}
		if p.code != "J507" {
			allow += fmt.Sprintf("    - {vendor: sim, %s, root: %q}\n", rule, found[1])
		}
	}
	head := "policy: fleet\nplatforms:\n  allow:\n" + allow
	rest := "workload: {measurement: any, debug: off}\nbinding: key\n"
	before := l.write("before.yaml", head+rest)
	after := l.write("after.yaml", head+line+"\n"+rest)
	at := strings.Count(head, "\n") + 1
	for _, p := range platforms {
		var v struct {
			Verdict, Code string
			Simulated     bool
			Policy        struct{ Line int }
			Checks        []struct{ Code, Want string }
		}
		judge := func(policy string, code int) {
			if err := json.Unmarshal([]byte(l.must(code, "verify", "--json", "-p", policy, addrs[p.spec]).stdout), &v); err != nil {
				t.Fatal(err)
			}
		}
		if p.code == "" {
			judge(after, 0)
			if v.Verdict != "affirmed" || !v.Simulated {
				t.Errorf("%s (%s): %+v", p.name, p.spec, v)
			}
			continue
		}
		judge(after, 6)
		if v.Verdict != "refused" || v.Code != p.code {
			t.Errorf("%s (%s): %+v", p.name, p.spec, v)
		}
		if p.code != "J503" {
			continue
		}
		reason := ""
		for _, c := range v.Checks {
			if c.Code == p.code {
				reason = c.Want
			}
		}
		if v.Policy.Line != at || !strings.Contains(reason, "Q-SA-7") {
			t.Errorf("%s (%s): line %d, want %d; because %q", p.name, p.spec, v.Policy.Line, at, reason)
		}
		judge(before, 0) // the one line decides, and nothing else
	}
}
