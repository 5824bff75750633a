package oracle_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/jurat-tls/jurat/attest/policy"
)

const whole = `policy: payments
platforms:
  allow: [amd milan+, intel tdx, {vendor: aws, until: "2027-06-01"}, {vendor: amd, chip_ids: ["0a0b"], csp: ["*"]}]
  deny:
    - {vendor: amd, generation: milan, because: AMD-SB-3045, shadow: true}
tcb:
  status: [UpToDate, SWHardeningNeeded]
  snp: 22
  per:
    - {platforms: [amd *], microcode: {min: 84, from: "2026-12-01"}, bits: {smt: off}}
    - {platforms: [intel tdx], evaluation: ">=20", date: "2025-01-01", advisories_deny: [INTEL-SA-00001]}
    - {platforms: [aws *], any: true}
workload:
  sets: [{name: v1, registers: {launch: "55d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d0"}}]
  registers: {rtmr1: {any_of: ["1111111111111111111111111111111111111111111111111111111111111111"]}}
  numbers: {isv_svn: {min: 3}}
  debug: off
  migration: {is: any}
binding: key
freshness: {evidence: 10m, endorsements: 30d}
rules:
  - {when: claims.platform.smt, effect: warn, name: hyper-threading}
`

// The published schema accepts what the parser accepts, and refuses what editors are to mark.
func TestPolicySchema(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(policy.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(text string) error {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(v)
	}
	parses := func(text string) error {
		_, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
		return err
	}
	if err := valid(whole); err != nil {
		t.Errorf("schema: %v", err)
	}
	if err := parses(whole); err != nil {
		t.Errorf("parser: %v", err)
	}
	for _, c := range [][2]string{
		{"tcb:", "tbc:"},
		{"smt: off", "smt: maybe"},
		{"status: [UpToDate", "status: [Fine"},
		{"debug: off", "debug: on"},
		{"binding: key", "binding: kye"},
		{"effect: warn", "effect: allow"},
		{"  debug: off\n", ""},
		{"policy: payments\n", ""},
		{"min: 84", "least: 84"},
		{"snp: 22", "spn: 22"},
		{"snp: 22", "snp: -1"},
		{"evidence: 10m", "evidence: soon"},
		{"2025-01-01", "last year"},
		{"rtmr1: {any_of", "rtmr1: {one_of"},
		{"vendor: aws, ", ""},
	} {
		text := strings.Replace(whole, c[0], c[1], 1)
		if text == whole {
			t.Fatalf("%v: nothing replaced", c)
		}
		if valid(text) == nil {
			t.Errorf("the schema accepts %q in place of %q", c[1], c[0])
		}
		if parses(text) == nil {
			t.Errorf("the parser accepts %q in place of %q", c[1], c[0])
		}
	}
}
