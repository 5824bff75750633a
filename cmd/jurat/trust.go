package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

// childTrust is a folder with what a child trusts, in the words of each of the usual tools.
type childTrust struct {
	dir    string
	nobody []byte
}

// newTrust makes one in an empty folder of the caller's.
func newTrust(dir string) (*childTrust, error) {
	dir, err := filepath.Abs(dir) // a child may go elsewhere
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, "\"\\\n:") { // SSL_CERT_DIR is a list: after a colon another folder of authorities would begin
		return nil, &attest.Error{Code: attest.CodeUsage, Check: "exec", Got: fmt.Sprintf("temporary directory %q", dir), Want: "a path without quotes and colons"}
	}
	nobody, err := nobodysCertificate()
	if err != nil {
		return nil, err
	}
	t := &childTrust{dir, nobody}
	if err := os.WriteFile(t.file("nobody.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: nobody}), 0o400); err != nil {
		return nil, err
	}
	return t, os.Mkdir(t.file("none"), 0o500)
}

// nobodysCertificate is one whose key is gone, and whose time is over. It stands where nobody is trusted: of an empty file gRPC makes
// its own list of authorities, and others an error or nothing.
func nobodysCertificate() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

func (t *childTrust) file(name string) string { return filepath.Join(t.dir, name) }

// withdraw has the child trust nobody, where write could not say whom it is to trust: it needs no room on a disk.
func (t *childTrust) withdraw() error {
	err := os.Rename(t.file("nobody.pem"), t.file("leaf.pem"))
	return errors.Join(err, os.Remove(t.file("truststore.p12")))
}

// write has the child trust the keys of leaves (DER) and nothing else from now on; nobody where there is none. A child that opens a
// file meanwhile gets it as it was or as it is. Some open two of them, one before and one after: a key that is added is trusted by both.
//
// Each tool needs its own words, and with some of them one setting alone leaves the system's authorities in force:
//   - OpenSSL, Go, Python and Node read SSL_CERT_DIR beside SSL_CERT_FILE;
//   - curl has a directory compiled in that no variable turns off, only a .curlrc does;
//   - git and wget likewise take a directory beside the file;
//   - NODE_EXTRA_CA_CERTS, and DENO_CERT alone, only add to what is built in;
//   - Java reads no PEM.
func (t *childTrust) write(leaves [][]byte) error {
	if len(leaves) == 0 {
		leaves = [][]byte{t.nobody}
	}
	var bundle bytes.Buffer
	var pins []string
	var certs []*x509.Certificate
	for _, der := range leaves {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(certs, cert.Equal) {
			continue
		}
		certs = append(certs, cert)
		if err := pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return err
		}
		if pin := ratls.Pin(cert); !slices.Contains(pins, pin) {
			pins = append(pins, pin)
		}
	}
	store, err := trustStore(certs)
	if err != nil {
		return err
	}
	leaf, none, keys := t.file("leaf.pem"), t.file("none"), strings.Join(pins, ";")
	for _, f := range []struct{ name, content string }{
		{"truststore.p12", string(store)},
		{".curlrc", fmt.Sprintf("cacert = \"%s\"\ncapath = \"%s\"\npinnedpubkey = \"%s\"\nproto = \"=https\"\nproto-redir = \"=https\"\n", leaf, none, keys)},
		{"wgetrc", fmt.Sprintf("ca_certificate = %s\nca_directory = %s\ncheck_certificate = on\nhttps_only = on\n", leaf, none)},
		// Unquoted, a semicolon begins a comment: the second key would be lost.
		{"gitconfig", fmt.Sprintf("[http]\n\tsslVerify = true\n\tsslCAInfo = \"%s\"\n\tsslCAPath = \"%s\"\n\tpinnedPubkey = \"%s\"\n", leaf, none, keys)},
		{"leaf.pem", bundle.String()}, // which says to who looks that all is there
	} {
		temporary := t.file(".new")
		if err := os.WriteFile(temporary, []byte(f.content), 0o400); err != nil {
			return err
		}
		if err := os.Rename(temporary, t.file(f.name)); err != nil {
			return err
		}
	}
	return nil
}

// environment is base, closed: what the usual tools trust is the folder's alone.
func (t *childTrust) environment(base []string) []string {
	leaf, none := t.file("leaf.pem"), t.file("none")
	set := map[string]string{
		"CURL_HOME": t.dir, "CURL_CA_BUNDLE": leaf,
		"SSL_CERT_FILE": leaf, "SSL_CERT_DIR": none, // OpenSSL, Go, Python, Ruby, .NET, redis-cli
		"REQUESTS_CA_BUNDLE": leaf, "PIP_CERT": leaf, "HTTPLIB2_CA_CERTS": leaf,
		// Where these are absent or empty, what files in the user's home say counts, and that may be that nothing is verified.
		"PIP_TRUSTED_HOST": "nobody.invalid", "GOINSECURE": "nobody.invalid", "CLOUDSDK_AUTH_DISABLE_SSL_VALIDATION": "false",
		"NODE_OPTIONS": "--use-openssl-ca",
		"DENO_CERT":    leaf, "DENO_TLS_CA_STORE": ",", // of no store
		"GIT_SSL_CAINFO": leaf, "GIT_SSL_CAPATH": none,
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "include.path", "GIT_CONFIG_VALUE_0": t.file("gitconfig"),
		"WGETRC": t.file("wgetrc"), "AWS_CA_BUNDLE": leaf, "CARGO_HTTP_CAINFO": leaf,
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": leaf, "GRPC_NOT_USE_SYSTEM_SSL_ROOTS": "1", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": leaf,
		"npm_config_cafile": leaf, "npm_config_strict_ssl": "true", "YARN_HTTPS_CA_FILE_PATH": leaf,
		"JAVA_TOOL_OPTIONS": fmt.Sprintf(`-Djavax.net.ssl.trustStore="%s" -Djavax.net.ssl.trustStoreType=PKCS12`, t.file("truststore.p12")),
		// libpq: a server of ours speaks TLS from the first byte on, and encryption by GSSAPI would take the place of TLS.
		"PGSSLROOTCERT": leaf, "PGSSLMODE": "verify-full", "PGSSLNEGOTIATION": "direct", "PGGSSENCMODE": "disable",
	}
	// Verification that is switched off would be none, and options of Java's that come later win.
	drop := []string{
		"NODE_EXTRA_CA_CERTS", "NODE_USE_SYSTEM_CA", "NODE_TLS_REJECT_UNAUTHORIZED", "PYTHONHTTPSVERIFY",
		"GIT_SSL_NO_VERIFY", "SSLKEYLOGFILE", "GIT_PROXY_SSL_CAINFO", "npm_config_ca", "npm_config_node_options",
		"YARN_ENABLE_STRICT_SSL", "PGREQUIRESSL", "PGSERVICE", "PGSERVICEFILE", "BUNDLE_SSL_VERIFY_MODE", "BUNDLE_SSL_CA_CERT",
		"JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS", "IBM_JAVA_OPTIONS",
		"JAVA_OPTS", "MAVEN_OPTS", "MAVEN_ARGS", "GRADLE_OPTS", "SBT_OPTS",
	}
	// pip and npm take a name in any case, and with "-" for "_"; of two such the one that comes last counts.
	canonical := func(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
	closed := map[string]bool{}
	for _, name := range slices.AppendSeq(drop, maps.Keys(set)) {
		closed[canonical(name)] = true
	}
	env := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		name = canonical(name)
		return closed[name] || strings.HasPrefix(name, "GIT_CONFIG_") || strings.HasSuffix(name, "_PROXY") // which would be a second party
	})
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}
