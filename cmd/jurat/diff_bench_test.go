package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

// BenchmarkPolicyDiff1000 runs "policy diff" over a thousand recorded peers, each with a leaf and a report of its own.
func BenchmarkPolicyDiff1000(b *testing.B) {
	const peers = 1000
	dir := b.TempDir()
	platform, err := sim.New(sim.Config{Product: "genoa"})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	for i := range peers {
		name := fmt.Sprintf("peer%d.example", i)
		id, err := ratls.NewIdentity(b.Context(), platform, []string{name}, [32]byte{1}, ratls.IdentityOptions{})
		if err != nil {
			b.Fatal(err)
		}
		raw, err := record.Encode(&record.Record{Time: now, Target: name + ":443", ServerName: name, Chain: [][]byte{id.Leaf().Certificate.Raw}})
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".jurat"), raw, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	text := fmt.Sprintf("policy: p\nplatforms: {allow: [{vendor: sim, root: %q}]}\nworkload: {measurement: any, debug: off}\nbinding: key\n", platform.Root())
	old, next := filepath.Join(dir, "old.yaml"), filepath.Join(dir, "new.yaml")
	for file, content := range map[string]string{old: text, next: strings.Replace(text, "workload:", "tcb: {snp: 99}\nworkload:", 1)} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := policy.Parse(old, []byte(text), policy.NoFiles); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, getenv: os.Getenv, now: time.Now}
		if err := a.policy(b.Context(), []string{"diff", old, next, dir}); err != nil {
			b.Fatal(err)
		}
		if !strings.Contains(out.String(), "1000 of 1000 verdicts change") || !strings.Contains(out.String(), string(attest.CodeTCBBelowFloor)) {
			b.Fatalf("got %.300s", out.String())
		}
	}
}
