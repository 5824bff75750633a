package endorse_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/test/fakepcs"
)

func entries(t testing.TB) []endorse.Entry {
	var all []endorse.Entry
	for ref, list := range answers(pcs(t)) { // in no particular order
		all = append(all, endorse.Entry{Ref: ref, Fetched: now, Endorsements: list})
	}
	return all
}

func encode(t testing.TB, entries ...endorse.Entry) []byte {
	t.Helper()
	raw, err := (&endorse.Bundle{Entries: entries}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBundle(t *testing.T) {
	t.Parallel()
	all := entries(t)
	raw := encode(t, all...)
	older := slices.Clone(all)
	for i := range older {
		older[i].Fetched = now.Add(-time.Hour)
	}
	elsewhere := slices.Clone(all)
	for i := range elsewhere {
		elsewhere[i].Fetched = now.In(time.FixedZone("x", 3600))
	}
	slices.Reverse(elsewhere)
	if again := encode(t, append(older, elsewhere...)...); !bytes.Equal(raw, again) {
		t.Error("the order of entries, or an older answer, shows")
	}
	b, err := endorse.DecodeBundle(raw)
	if err != nil || len(b.Entries) != len(all) {
		t.Fatal(err)
	}
	for _, e := range b.Entries {
		if want := answers(pcs(t))[e.Ref]; !same(e.Endorsements, want) || !e.Fetched.Equal(now) {
			t.Errorf("%v", e.Ref)
		}
	}
	if _, err := (&endorse.Bundle{Entries: []endorse.Entry{{Ref: tcbRef, Fetched: now}}}).Encode(); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
		t.Errorf("an empty entry was written: %v", err)
	}
}

func TestDecodeBundleRefuses(t *testing.T) {
	t.Parallel()
	p := pcs(t)
	entry := func(change func(map[string]any)) []byte {
		var doc map[string]any
		if err := json.Unmarshal(encode(t, endorse.Entry{Ref: tcbRef, Fetched: now, Endorsements: answers(p)[tcbRef]}), &doc); err != nil {
			t.Fatal(err)
		}
		change(doc["entries"].([]any)[0].(map[string]any))
		return toJSON(t, doc)
	}
	endorsements := func(list ...any) []byte {
		return entry(func(e map[string]any) { e["endorsements"] = list })
	}
	one := func(kind attest.Kind, raw []byte) map[string]any { return map[string]any{"kind": kind, "raw": raw} }
	info := one(attest.KindTCBInfo, []byte(p.Body(tcbRef.Path)))
	if _, err := endorse.DecodeBundle(endorsements(info)); err != nil {
		t.Fatal(err)
	}
	many := make([]any, 17)
	for i := range many {
		many[i] = info
	}
	big := []byte(strings.Replace(p.Body(tcbRef.Path), "{", "{"+strings.Repeat(" ", attest.MaxEndorsement), 1))
	for name, raw := range map[string][]byte{
		"empty":              nil,
		"no version":         []byte(`{"entries":[]}`),
		"unknown member":     entry(func(e map[string]any) { e["trusted"] = true }),
		"no endorsement":     endorsements(),
		"too many":           endorsements(many...),
		"oversized":          endorsements(one(attest.KindTCBInfo, big)),
		"public key":         endorsements(info, one(attest.KindPublicKey, spki(t))),
		"unknown kind":       endorsements(info, one("manifest", []byte("x"))),
		"junk certificate":   endorsements(info, one(attest.KindCertificate, []byte("x"))),
		"list of another":    endorsements(info, one(attest.KindCRL, p.Root)),
		"another document":   endorsements(one(attest.KindTCBInfo, []byte(p.Body(identityRef.Path)))),
		"nothing of the ask": endorsements(one(attest.KindCertificate, p.Root)),
		"no base64":          entry(func(e map[string]any) { e["endorsements"] = []any{map[string]any{"kind": "crl", "raw": "$"}} }),
		"no time":            entry(func(e map[string]any) { e["fetched"] = "then" }),
		"bytes after it":     append(encode(t, entries(t)...), '{'),
		"too many entries":   []byte(`{"jurat_endorsements":1,"entries":[` + strings.Repeat(`{},`, 1024) + `{}]}`),
		"too large":          append(encode(t, entries(t)...), bytes.Repeat([]byte(" "), endorse.MaxBundle)...),
	} {
		if _, err := endorse.DecodeBundle(raw); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := endorse.DecodeBundle([]byte(`{"jurat_endorsements":1,"entries":[` + strings.Repeat(`{},`, 1024) + `{}]}`))
	if err == nil || !strings.Contains(err.Error(), "1025 entries") {
		t.Errorf("the number of entries is not looked at first: %v", err)
	}
}

// A bundle says itself when it was fetched: one that says so of the future must not keep out all that come after it.
func TestImportAfterALie(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	lie := &endorse.Bundle{Entries: entries(t)}
	for i := range lie.Entries {
		lie.Entries[i].Fetched = now.AddDate(100, 0, 0)
	}
	if taken, err := lie.Import(dir, now); err != nil || len(taken) != 7 {
		t.Fatalf("%d taken, %v", len(taken), err)
	}
	if taken, err := (&endorse.Bundle{Entries: entries(t)}).Import(dir, now); err != nil || len(taken) != 7 {
		t.Errorf("%d taken, %v", len(taken), err)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	dir := filepath.Join(t.TempDir(), "cache")
	old, err := fakepcs.New(now.AddDate(0, 0, -40), 30*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b := &endorse.Bundle{Entries: entries(t)}
	b.Entries = append(b.Entries, endorse.Entry{Ref: crlRef, Fetched: now, Endorsements: []attest.Endorsement{list(old.RootCRL)}}, endorse.Entry{Ref: chainRef})
	taken, err := b.Import(dir, now)
	if err != nil || len(taken) != 7 {
		t.Fatalf("%d taken, %v", len(taken), err)
	}
	k := s.kds(t, dir, clock)
	for ref, want := range answers(pcs(t)) {
		if got, err := k.Fetch(t.Context(), ref); err != nil || !same(got.Endorsements, want) || !got.Fetched.Equal(now) {
			t.Errorf("%s: %v", ref.Path, err)
		}
	}
	if _, err := k.Endorse(t.Context(), crlRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
		t.Errorf("an expired entry was imported: %v", err)
	}
	// A later answer stays.
	for i := range b.Entries {
		b.Entries[i].Fetched = now.Add(-time.Hour)
	}
	if taken, err := b.Import(dir, now); err != nil || len(taken) != 0 {
		t.Errorf("%d taken over later ones, %v", len(taken), err)
	}
	for i := range b.Entries {
		b.Entries[i].Fetched = now.Add(time.Hour)
	}
	if taken, err := b.Import(dir, now); err != nil || len(taken) != 7 {
		t.Errorf("%d taken over earlier ones, %v", len(taken), err)
	}
	// An answer from the future is no reason to look for no newer one.
	before := s.requests.Load()
	if got, err := s.kds(t, dir, clock).Endorse(t.Context(), tcbRef); err != nil || !same(got, answers(pcs(t))[tcbRef]) || s.requests.Load() != before+1 {
		t.Errorf("%v after %d requests", err, s.requests.Load()-before)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 7 {
		t.Fatal(len(files), err)
	}
	for _, f := range files { // a disk that does not take it
		name := filepath.Join(dir, f.Name())
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if taken, err := b.Import(dir, now); attest.CodeOf(err) != attest.CodeConfigValue || len(taken) != 0 {
		t.Errorf("%d taken, %v", len(taken), err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Import(filepath.Join(file, "x"), now); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	if _, err := endorse.New(endorse.Hosts{}, filepath.Join(file, "x")); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
}
