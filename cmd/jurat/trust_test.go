package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

// What a child trusts is what was written last, each leaf once; and nobody where there is none.
func TestTrust(t *testing.T) {
	platform, err := sim.New(sim.Config{Product: "genoa"})
	if err != nil {
		t.Fatal(err)
	}
	leaf := func() *x509.Certificate {
		id, err := ratls.NewIdentity(t.Context(), platform, []string{"127.0.0.1"}, [32]byte{1}, ratls.IdentityOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(id.Close)
		return id.Leaf().Certificate
	}
	dir := t.TempDir()
	trust, err := newTrust(dir)
	if err != nil {
		t.Fatal(err)
	}
	certificates := func() (all []*x509.Certificate) {
		raw, err := os.ReadFile(trust.file("leaf.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, cert)
		}
		return all
	}
	pinned := func(pins ...string) {
		t.Helper()
		for _, name := range []string{".curlrc", "gitconfig"} {
			raw, err := os.ReadFile(trust.file(name))
			if err != nil || !strings.Contains(string(raw), strings.Join(pins, ";")) || strings.Count(string(raw), "sha256//") != len(pins) {
				t.Errorf("%s has\n%s, want %v", name, raw, pins)
			}
		}
	}
	a, b := leaf(), leaf()
	for _, leaves := range [][]*x509.Certificate{{a}, {a, b}, {b}} {
		var ders [][]byte
		var pins []string
		for _, c := range leaves {
			ders = append(ders, c.Raw, c.Raw)
			pins = append(pins, ratls.Pin(c))
		}
		if err := trust.write(ders); err != nil {
			t.Fatal(err)
		}
		got := certificates()
		if len(got) != len(leaves) || !got[0].Equal(leaves[0]) || !got[len(got)-1].Equal(leaves[len(leaves)-1]) {
			t.Errorf("%d certificates, want %d", len(got), len(leaves))
		}
		pinned(pins...)
	}
	if err := trust.write(nil); err != nil {
		t.Fatal(err)
	}
	nobody := certificates()
	if len(nobody) != 1 || nobody[0].NotAfter.After(time.Unix(1, 0)) || nobody[0].Subject.CommonName != "nobody" {
		t.Fatalf("%v is trusted", nobody)
	}
	pinned(ratls.Pin(nobody[0]))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 7 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := trust.write([][]byte{{1}}); err == nil {
		t.Error("what is no certificate was written")
	}
	if err := trust.write([][]byte{a.Raw}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(trust.file(".new"), 0o700); err != nil { // nothing can be written any more
		t.Fatal(err)
	}
	if err := trust.write(nil); err == nil {
		t.Error("it was written all the same")
	}
	if err := trust.withdraw(); err != nil {
		t.Fatal(err)
	}
	if got := certificates(); len(got) != 1 || !got[0].Equal(nobody[0]) {
		t.Errorf("%v is trusted after all was withdrawn", got)
	}
	if _, err := os.Stat(trust.file("truststore.p12")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Java still trusts somebody")
	}
	if _, err := newTrust(dir + "/a\"b"); err == nil {
		t.Error("a quote in the path")
	}
}
