package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
)

var update = flag.Bool("update", false, "rewrite the golden transcripts")

// specimen is one refusal and what provokes it.
type specimen struct {
	code   attest.Code
	policy string // judged over claims, changed by change; empty: a refusal before a policy is asked
	change func(*attest.Claims, *attest.Situation)
	got    string
	want   string
}

// stub verifies evidence of its own format: the claims are ours.
type stub struct{ claims *attest.Claims }

func (s stub) Verify(context.Context, *attest.Evidence, attest.Endorser, time.Time) (*attest.Claims, error) {
	return s.claims, nil
}

// situated tells a policy another situation than the appraisal's.
type situated struct {
	*policy.Policy
	change func(*attest.Claims, *attest.Situation)
}

func (p situated) Judge(c *attest.Claims, s attest.Situation) attest.Judgement {
	p.change(c, &s)
	return p.Policy.Judge(c, s)
}

const (
	specimenPolicy = `policy: specimen
platforms:
  allow: [intel tdx]
  deny: [{vendor: intel, generation: emerald-rapids, because: Q-SA-7}]
tcb: {pce: 13, advisories_deny: [INTEL-SA-00001], bits: {smt: off}}
workload:
  measurement: {any_of: [{value: ` + specimenLaunch + `, name: payments v1}]}
  numbers: {isv_svn: {min: 3}}
  config: {any_of: [abababababababababababababababababababababababababababababababab]}
  debug: off
binding: key
freshness: {evidence: 1h, endorsements: 30d}
rules: [{when: claims.version > 9, effect: deny, name: a version from the future}]
`
	specimenLaunch = "55d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d0"
)

var specimenTime = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func specimenClaims() *attest.Claims {
	level := 0
	return &attest.Claims{
		Vendor: "intel", TEE: "tdx", Product: "Xeon", Generation: "sapphire-rapids", TCB: attest.TCB{"pce": 13}, TCBStatus: "UpToDate", TCBJudged: specimenTime.AddDate(0, 0, -3),
		Debug: attest.Off, Migratable: attest.Off, Privilege: &level, Platform: map[string]attest.Flag{"smt": attest.Off},
		Measured: map[string]attest.HexBytes{"launch": bytes.Repeat([]byte{0x55, 0xd0}, 24)}, Numbers: map[string]uint64{"isv_svn": 3},
		ReportData: attest.ReportData{1},
		Revocation: attest.Revocation{Issued: specimenTime.Add(-24 * time.Hour), Expires: specimenTime.Add(24 * time.Hour)},
	}
}

// specimens are refusals by a policy. All other codes refuse before one is asked.
func specimens() []specimen {
	claim := func(f func(*attest.Claims)) func(*attest.Claims, *attest.Situation) {
		return func(c *attest.Claims, _ *attest.Situation) { f(c) }
	}
	replace := func(old, with string) string { return strings.Replace(specimenPolicy, old, with, 1) }
	p := specimenPolicy
	return []specimen{
		{attest.CodeEvidenceTooOld, p, func(_ *attest.Claims, s *attest.Situation) { s.Made = s.Now.Add(-2 * time.Hour) }, "", ""},
		{attest.CodeBindingTooWeak, p, func(_ *attest.Claims, s *attest.Situation) { s.Level = attest.LevelPinned }, "", ""},
		{attest.CodeReconnectRefused, p, func(_ *attest.Claims, s *attest.Situation) { s.Reconnect, s.Made = true, s.Now.Add(-20*time.Minute) }, "", ""},
		{attest.CodePlatformNotAllowed, p, claim(func(c *attest.Claims) { c.TEE = "sgx" }), "", ""},
		{attest.CodeMeasurement, p, claim(func(c *attest.Claims) { c.Measured["launch"][40] = 0 }), "", ""},
		{attest.CodePlatformDenied, p, claim(func(c *attest.Claims) { c.Generation = "emerald-rapids" }), "", ""},
		{attest.CodeDebug, p, claim(func(c *attest.Claims) { c.Debug = attest.On }), "", ""},
		{attest.CodeTCBBelowFloor, p, claim(func(c *attest.Claims) { c.TCB["pce"] = 11 }), "", ""},
		{attest.CodeClaimAbsent, p, claim(func(c *attest.Claims) { c.Debug = attest.Absent }), "", ""},
		{attest.CodeSimulated, p, claim(func(c *attest.Claims) { c.Simulated = true }), "", ""},
		{attest.CodeMigratable, p, claim(func(c *attest.Claims) { c.Migratable = attest.On }), "", ""},
		{attest.CodePrivilege, p, claim(func(c *attest.Claims) { *c.Privilege = 2 }), "", ""},
		{attest.CodeTCBStatus, p, claim(func(c *attest.Claims) { c.TCBStatus, c.Advisories = "OutOfDate", []string{"INTEL-SA-00002"} }), "", ""},
		{attest.CodeNoFloor, replace("tcb: {", "tcb: {per: [{platforms: [amd *], any: true}], "), claim(func(*attest.Claims) {}), "", ""},
		{attest.CodeAdvisory, p, claim(func(c *attest.Claims) { c.Advisories = []string{"INTEL-SA-00001"} }), "", ""},
		{attest.CodePlatformBit, p, claim(func(c *attest.Claims) { c.Platform["smt"] = attest.On }), "", ""},
		{attest.CodeNumber, p, claim(func(c *attest.Claims) { c.Numbers["isv_svn"] = 2 }), "", ""},
		{attest.CodeConfigDigest, p, func(_ *attest.Claims, s *attest.Situation) { s.Config = [32]byte{1} }, "", ""},
		{attest.CodeRule, p, claim(func(c *attest.Claims) { c.Version = 10 }), "", ""},
		{attest.CodeEndorsementMissing, p, claim(func(c *attest.Claims) { c.Revocation = attest.Revocation{} }), "", ""},
		{attest.CodeEndorsementExpired, p, claim(func(c *attest.Claims) { c.Revocation.Expires = specimenTime.Add(-time.Hour) }), "", ""},
		{attest.CodeEndorsementTooOld, p, claim(func(c *attest.Claims) { c.Revocation.Issued = specimenTime.AddDate(0, -2, 0) }), "", ""},
		{attest.CodeEndorserUnreachable, p, claim(func(c *attest.Claims) {
			c.Revocation = attest.Revocation{Problem: &attest.Error{Code: attest.CodeEndorserUnreachable, Want: "amd-kds/vcek/v1/Genoa/crl", Err: errors.New("connection refused")}}
		}), "", ""},
	}
}

func (s specimen) result(t *testing.T) *attest.Result {
	if s.policy == "" {
		return attest.RefusedResult(&attest.Error{Code: s.code, Check: "specimen.check", Got: s.got, Want: s.want}, specimenTime)
	}
	p, err := policy.Parse("policy.yaml", []byte(s.policy), policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	want := attest.Expect(attest.ReportData{1}, attest.LevelKey, specimenTime.Add(-time.Minute)).WithConfig([32]byte(bytes.Repeat([]byte{0xab}, 32)))
	ev := &attest.Evidence{Format: "specimen", Raw: []byte("specimen")}
	return attest.NewAppraiser(attest.NoEndorser{}, stub{specimenClaims()}).Appraise(t.Context(), ev, want, situated{p, s.change}, specimenTime)
}

// Every code has a transcript that people and programs rely on: its text and its JSON are golden.
func TestGoldenTranscripts(t *testing.T) {
	list := specimens()
	byPolicy := map[attest.Code]bool{}
	for _, s := range list {
		byPolicy[s.code] = true
	}
	for _, code := range attest.Codes() {
		if !byPolicy[code] {
			list = append(list, specimen{code: code, got: "what was found", want: "what was expected"})
		}
	}
	seen := map[attest.Code]bool{}
	for _, s := range list {
		r := s.result(t)
		if r.Code() != s.code || r.Affirmed() {
			t.Errorf("%s: refused by %q", s.code, r.Code())
			continue
		}
		v := verdictOf(&appraisal{target: "pay.example:443", result: r})
		var text, asJSON bytes.Buffer
		transcript(&text, v, "policy.yaml")
		if err := writeJSON(&asJSON, v); err != nil {
			t.Fatal(err)
		}
		for suffix, got := range map[string][]byte{".txt": text.Bytes(), ".json": asJSON.Bytes()} {
			if !bytes.Contains(got, []byte(s.code)) {
				t.Errorf("%s%s does not name its code", s.code, suffix)
			}
			file := filepath.Join("testdata", "transcripts", string(s.code)+suffix)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if golden, err := os.ReadFile(file); err != nil || !bytes.Equal(golden, got) {
				t.Errorf("%s differs (%v): if that is meant, go test ./cmd/jurat -update\n%s", file, err, got)
			}
		}
		seen[s.code] = true
	}
	for _, code := range attest.Codes() {
		if !seen[code] {
			t.Errorf("no transcript of %s", code)
		}
	}
}
