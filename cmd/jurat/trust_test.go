package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
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
	for _, name := range []string{"a\"b", "a\\b", "a\nb", "a:b"} {
		other := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := newTrust(other); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A child that goes to another folder trusts the same.
func TestTrustIsAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("here", 0o700); err != nil {
		t.Fatal(err)
	}
	trust, err := newTrust("here")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"CURL_HOME", "SSL_CERT_DIR", "SSL_CERT_FILE", "WGETRC"} {
		for _, kv := range trust.environment(nil) {
			if value, ok := strings.CutPrefix(kv, name+"="); ok && !filepath.IsAbs(value) {
				t.Error(kv)
			}
		}
	}
}

// Of what was in the environment nothing is left that a tool could take for what it trusts, however the tool spells it.
func TestEnvironmentIsClosed(t *testing.T) {
	trust, err := newTrust(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_OPTIONS", "NODE_TLS_REJECT_UNAUTHORIZED", "GIT_CONFIG_PARAMETERS", "CURL_CA_BUNDLE",
		"PIP_TRUSTED_HOST", "PIP_trusted_host", "PIP_TRUSTED-HOST", "PIP_cert", "PIP_proxy", "GOINSECURE", "CLOUDSDK_AUTH_DISABLE_SSL_VALIDATION",
		"npm_config_strict-ssl", "NPM_CONFIG_CAFILE", "npm_config_ca", "npm_config_https-proxy", "npm_config_node-options",
		"grpc_proxy", "HTTPS_PROXY", "all_proxy", "wss_proxy", "CARGO_HTTP_PROXY", "YARN_HTTPS_PROXY", "AWS_CA_BUNDLE",
		"JAVA_OPTS", "MAVEN_OPTS", "GRADLE_OPTS", "SBT_OPTS", "OPENJ9_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS",
		"BUNDLE_SSL_VERIFY_MODE", "BUNDLE_SSL_CA_CERT", "PGSERVICE", "PGSSLMODE",
	} {
		for _, kv := range trust.environment([]string{name + "=careless", "KEPT=1"}) {
			if strings.HasSuffix(kv, "=careless") {
				t.Error(kv)
			}
		}
	}
	// Absent or empty, these would leave it to files in the user's home.
	env := trust.environment([]string{"KEPT=1"})
	for _, kv := range []string{"PIP_TRUSTED_HOST=nobody.invalid", "GOINSECURE=nobody.invalid", "CLOUDSDK_AUTH_DISABLE_SSL_VALIDATION=false", "KEPT=1"} {
		if !slices.Contains(env, kv) {
			t.Errorf("no %s", kv)
		}
	}
}
