// Package arch holds the rules of the house: who may import whom, and why.
package arch

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the list of dependencies")

const (
	module = "github.com/jurat-tls/jurat"
	root   = "../.."
	anyone = ""
)

type pkg struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Standard,GoFiles,Imports,Deps"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the shipped build
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// inside reports whether the import path p is path or lies below it. A pattern ending in "$" means path alone.
func inside(p, path string) bool {
	if exact, ok := strings.CutSuffix(path, "$"); ok {
		return p == exact
	}
	return p == path || strings.HasPrefix(p, path+"/")
}

func TestImports(t *testing.T) {
	ours := func(p string) string { return module + "/" + p }
	bans := []struct {
		from   string   // packages in question, which may import one another
		to     string   // what they may not import
		except []string // but these may be imported
		why    string
	}{
		{ours("attest$"), module, nil, "the central words depend on nothing of ours, or everything depends on everything"},
		{ours("attest$"), "third party", nil, "whoever reads a Result must not have to trust a library for it"},
		{ours("attest"), ours("ratls"), nil, "arrows go downwards: appraisal does not know what carries the evidence"},
		{ours("attest"), ours("proxy"), nil, "arrows go downwards"},
		{ours("attest"), ours("xds"), nil, "arrows go downwards"},
		{ours("attest/snp"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/nitro"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/cca"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/sim"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/tsm"), "crypto/tls", nil, "collecting knows nothing of TLS"},
		{ours("attest/tsm"), ours("attest"), []string{ours("attest$")}, "collecting does not know what it collects"},
		{ours("attest/eventlog"), ours("attest"), []string{ours("attest$")}, "a log is decoded alike for every TEE"},
		{ours("attest/eventlog"), "third party", nil, "decoding what nobody signed takes no more than bytes"},
		{ours("attest/strictyaml"), module, []string{ours("attest$")}, "reading YAML strictly knows nothing of what is in it"},
		{ours("attest/strictjson"), module, nil, "reading JSON strictly knows nothing of what is in it"},
		{ours("attest/dcap"), ours("attest"), []string{ours("attest$"), ours("attest/strictjson")}, "what SGX and TDX have in common knows neither"},
		{ours("attest/tdx"), ours("attest"), []string{ours("attest$"), ours("attest/dcap"), ours("attest/eventlog"), ours("attest/tsm")}, "a TEE stands alone but for Intel's common core"},
		{ours("attest/sgx"), ours("attest"), []string{ours("attest$"), ours("attest/dcap")}, "a TEE stands alone but for Intel's common core"},
		{ours("attest/dcap"), "third party", nil, "what decides over Intel's TEEs is the standard library and what can be read here"},
		{ours("attest/dcap"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/tdx"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/sgx"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/tpm"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/azure"), "crypto/tls", nil, "a TEE knows nothing of TLS"},
		{ours("attest/tpm"), ours("attest"), []string{ours("attest$"), ours("attest/eventlog"), ours("attest/strictjson")}, "a TEE stands alone: one can be read, and dropped, without the others"},
		{ours("attest/azure"), ours("attest"), []string{ours("attest$"), ours("attest/tpm"), ours("attest/strictjson")}, "two hops: the TPM is known, the hardware's verifier is handed in"},
		{ours("attest/snp"), ours("attest"), []string{ours("attest$"), ours("attest/tsm")}, "a TEE stands alone: one can be read, and dropped, without the others"},
		{ours("attest/sgx/collect"), ours("attest"), []string{ours("attest$")}, "an attester does not judge what it collects"},
		{ours("attest/sgx/ego"), ours("attest"), []string{ours("attest$"), ours("attest/sgx/collect")}, "an attester does not judge what it collects"},
		{ours("attest/sim"), ours("attest"), []string{ours("attest$"), ours("attest/snp"), ours("attest/dcap"), ours("attest/tdx"), ours("attest/sgx"), ours("attest/nitro"), ours("attest/cca"), ours("attest/cose"), ours("attest/strictcbor"), ours("attest/tpm"), ours("attest/azure")}, "a simulated platform runs the real verifiers and needs no more"},
		{ours("attest/nitro"), ours("attest"), []string{ours("attest$"), ours("attest/cose"), ours("attest/strictcbor"), ours("attest/tsm")}, "a TEE stands alone: one can be read, and dropped, without the others"},
		{ours("attest/cca"), ours("attest"), []string{ours("attest$"), ours("attest/cose"), ours("attest/strictcbor"), ours("attest/tsm")}, "a TEE stands alone: one can be read, and dropped, without the others"},
		{ours("attest/policy"), ours("attest"), []string{ours("attest$"), ours("attest/strictyaml"), ours("attest/strictcbor")}, "policy judges normalised claims, whoever made them"},
		{ours("attest/evlog"), ours("attest"), []string{ours("attest$"), ours("attest/merkle")}, "a log holds bytes, whatever they are"},
		{ours("attest/merkle"), module, nil, "a hash tree knows nothing of its leaves"},
		{ours("attest/ear"), ours("attest"), []string{ours("attest$"), ours("attest/cose"), ours("attest/strictcbor"), ours("attest/strictjson")}, "a result is about any TEE"},
		{ours("attest/record"), ours("attest"), []string{ours("attest$"), ours("attest/strictjson")}, "a record holds bytes of any TEE"},
		{ours("internal/durable"), module, nil, "a file is replaced, whatever is in it"},
		{ours("internal/durable"), "third party", nil, "what a restart depends on can be read here"},
		{ours("attest/seal"), module, []string{ours("attest$"), ours("internal/durable")}, "sealing does not know whose secret it is"},
		{ours("attest/seal"), "third party", nil, "what keeps a secret can be read here"},
		{ours("attest/endorse"), ours("attest"), []string{ours("attest$")}, "fetching does not know what it fetches"},
		{ours("attest/strictcbor"), ours("attest"), nil, "encoding does not know what it encodes"},
		{ours("attest/cose"), ours("attest"), []string{ours("attest$"), ours("attest/strictcbor")}, "a signed message is read alike, whatever TEE it is of"},
		{ours("ratls"), ours("attest"), []string{ours("attest$"), ours("attest/strictcbor"), ours("attest/strictjson"), ours("attest/merkle")}, "binding does not know vendors"},
		{ours("ratls/dialect"), ours("ratls"), []string{ours("ratls/cmw")}, "what others present is read without knowing who asks for it"},
		{ours("ratls/dialect"), "third party", nil, "what strangers present is read by what can be read here"},
		{ours("ratls/dialect"), "net$", nil, "no I/O"},
		{ours("ratls/batch"), "crypto/tls", nil, "a batch holds hashes, whatever they bind"},
		{ours("ratls/batch"), ours("ratls"), nil, "a batch holds hashes, whatever they bind"},
		{ours("ratls"), ours("proxy"), nil, "arrows go downwards"},
		{ours("ratls/wellknown"), ours("ratls"), []string{ours("ratls/cmw"), ours("ratls/ea"), ours("ratls/session")}, "a document is read alike, whoever asked for it and over what"},
		{ours("ratls/wellknown"), "crypto/tls", nil, "who opens connections is handed in"},
		{ours("ratls"), ours("xds"), nil, "arrows go downwards"},
		{ours("proxy"), ours("attest"), []string{ours("attest$")}, "the data plane knows a Result, not TEEs"},
		{ours("proxy"), ours("xds"), nil, "arrows go downwards"},
		{ours("proxy/message"), module, nil, "what a message means has to do with nothing else"},
		{ours("proxy/h1"), module, []string{ours("proxy/message")}, "bytes in, bytes out: reading HTTP/1 needs no more than what a message means"},
		{ours("proxy/h1"), "third party", nil, "what decides where a message ends can be read here"},
		{ours("proxy/h1"), "net/http", nil, "its leniency is what the tests hold ours against"},
		{ours("proxy/h1"), "net$", nil, "no I/O"},
		{ours("proxy/h1"), "io", nil, "no I/O"},
		{ours("proxy/h1"), "os", nil, "no I/O"},
		{ours("proxy/h1"), "time", nil, "no clock"},
		{ours("proxy/h1"), "unsafe", nil, "what is kept of a head is a copy"},
		{ours("proxy/h2"), module, []string{ours("proxy/message")}, "a state machine knows neither sockets nor what it is used for"},
		{ours("proxy/h2"), "net", nil, "a state machine does no I/O"},
		{ours("proxy/route"), module, []string{ours("attest$"), ours("proxy/message"), ours("proxy/pattern")}, "a table decides over heads, whoever carries them"},
		{ours("proxy/route"), "third party", nil, "what is matched and forwarded is decided by what can be read here"},
		{ours("proxy/route"), "net$", nil, "a table does no I/O"},
		{ours("proxy/trace"), module, []string{ours("attest$"), ours("proxy/message")}, "a span is of a request, whoever carries it and whoever gets it"},
		{ours("proxy/trace"), "third party", nil, "what is done on event loops, and read of strangers there, can be read here"},
		{ours("proxy/trace"), "net$", nil, "who sends spans on is handed in"},
		{ours("proxy/proxyproto"), module, nil, "a header says where a connection comes from, whatever it carries"},
		{ours("proxy/proxyproto"), "third party", nil, "what is believed about an address is decided by what can be read here"},
		{ours("proxy/clienthello"), module, nil, "bytes in, a name out"},
		{ours("proxy/clienthello"), "third party", nil, "what strangers send first is read by what can be read here"},
		{ours("proxy/clienthello"), "crypto/tls", nil, "it is what the tests hold ours against"},
		{ours("proxy/clienthello"), "net", nil, "no I/O but a reader"},
		{ours("proxy/chain"), module, []string{ours("attest$"), ours("proxy/clienthello")}, "connections are told apart by what is known of them, whoever has them and whatever becomes of them"},
		{ours("proxy/chain"), "third party", nil, "what decides who is served how can be read here"},
		{ours("proxy/chain"), "net$", nil, "a table does no I/O"},
		{ours("proxy/config"), module, []string{ours("attest$"), ours("proxy/chain"), ours("proxy/connect"), ours("proxy/route"), ours("proxy/upstream")}, "what a proxy does is said without knowing what carries it out, or who says it"},
		{ours("proxy/config"), "third party", nil, "what is let through can be read here"},
		{ours("proxy/otlp"), module, []string{ours("attest$"), ours("proxy/trace")}, "sending telemetry knows no data plane"},
		{ours("proxy/upstream"), module, []string{ours("attest$")}, "choosing an endpoint knows neither routes nor connections"},
		{ours("proxy/upstream"), "third party", nil, "choosing an endpoint takes no library"},
		{ours("proxy/handover"), module, nil, "sockets are passed on, whatever for"},
		{ours("proxy/upstream"), "net$", nil, "who dials, probes and resolves is handed in"},
		{ours("proxy/accesslog"), module, []string{ours("attest$")}, "a line is about a request, whoever carried it"},
		{ours("proxy/accesslog"), "third party", nil, "what keeps secrets and forged lines out of a log can be read here"},
		{ours("proxy/histogram"), module, nil, "counting does not know what it counts"},
		{ours("proxy/histogram"), "third party", nil, "counting takes no library"},
		{ours("proxy/tally"), module, []string{ours("attest$"), ours("proxy/histogram")}, "counting does not know who asks"},
		{ours("proxy/tally"), "third party", nil, "counting takes no library"},
		{ours("proxy/metrics"), module, []string{ours("attest$"), ours("proxy$"), ours("proxy/accesslog"), ours("proxy/histogram"), ours("proxy/tally"), ours("proxy/upstream"), ours("ratls/batch"), ours("ratls/enforce")}, "it shows what others count"},
		{ours("ratls/enforce"), module, []string{ours("attest$")}, "a policy holds for a connection, whatever that is"},
		{ours("ratls/pins"), module, []string{ours("attest$"), ours("ratls$"), ours("ratls/enforce")}, "keys are kept, whoever compares them"},
		{ours("ratls/grpccreds"), module, []string{ours("attest$"), ours("ratls$")}, "credentials are a handshake, whatever is called over it"},
		{anyone, ours("ratls/grpccreds"), nil, "it is for programs of others: what is served here is bounded, which a server of gRPC that takes credentials alone is not"},
		{ours("ratls/pins"), "third party", nil, "whose key is taken is decided by what can be read here"},
		{ours("ratls/pins"), "net$", nil, "how a peer is reached is handed in"},
		{ours("ratls/enforce"), "third party", nil, "who may go on is decided by what can be read here"},
		{ours("ratls/enforce"), "net$", nil, "how a connection ends is handed in"},
		{ours("proxy/redact"), module, nil, "what is not to be shown is told by its name, whoever shows it"},
		{ours("proxy/redact"), "third party", nil, "what keeps secrets from being shown can be read here"},
		{ours("proxy/pattern"), module, nil, "an expression is bounded, whatever is looked for"},
		{ours("proxy/pattern"), "third party", nil, "what bounds a stranger's work can be read here"},
		{ours("proxy/admin"), module, []string{ours("attest$"), ours("proxy/pattern"), ours("proxy/redact"), ours("proxy/upstream")}, "what it shows and does is handed in"},
		{ours("proxy/admin"), "net/http/pprof", nil, "it registers itself at the default mux"},
		{ours("proxy$"), ours("proxy/metrics"), nil, "the data plane does not know who asks for its numbers"},
		{ours("proxy$"), ours("proxy/admin"), nil, "the data plane does not know its administrator"},
		{ours("proxy/connect"), module, []string{ours("attest$"), ours("proxy/h1"), ours("proxy/message")}, "what a client asks for knows nothing of how to get there"},
		{ours("proxy/connect"), "third party", nil, "where a client gets to is decided by what can be read here"},
		{ours("proxy/public"), module, []string{ours("attest$")}, "certificates are got and kept, whoever shows them, and whatever seals them"},
		{ours("proxy/public/share"), module, []string{ours("attest$")}, "values are shared, whatever they are, over connections that are handed in"},
		{ours("proxy/public/share"), "third party", nil, "what hands out private keys can be read here"},
		{ours("proxy/public/share"), "crypto/tls", nil, "what protects a connection is handed in"},
		{ours("proxy$"), ours("proxy/public"), nil, "the data plane does not know where certificates come from"},
		{ours("proxy/transparent"), module, []string{ours("attest$")}, "where a connection was going has nothing to do with what it carries"},
		{ours("xds/guard"), module, []string{ours("attest$"), ours("attest/policy"), ours("attest/strictjson"), ours("proxy/config"), ours("proxy/route"), ours("proxy/upstream")}, "what a control plane may do is decided without knowing what it said, or how"},
		{ours("xds/agent"), module, []string{ours("attest$"), ours("attest/policy"), ours("proxy/config"), ours("xds/api"), ours("xds/client"), ours("xds/envoy"), ours("xds/guard"), ours("xds/resource")}, "what becomes of a configuration knows neither what carries it here nor what carries it out"},
		{ours("xds/agent"), "google.golang.org/grpc", nil, "what carries messages is handed in"},
		{ours("xds/guard"), "third party", nil, "what bounds a control plane can be read here"},
		{ours("xds"), ours("attest"), []string{ours("attest$"), ours("attest/policy"), ours("attest/strictyaml"), ours("attest/strictjson")}, "configuration knows policies, not TEEs"},
		{ours("xds/attested"), module, []string{ours("attest$"), ours("ratls$")}, "what carries messages does not know what they say"},
		{ours("xds/sds"), module, []string{ours("attest$"), ours("xds/attested"), ours("xds/internal/request"), ours("xds/resource")}, "secrets are handed out, whoever made them"},
		{ours("xds/sds"), "google.golang.org/grpc", nil, "what carries messages is handed in"},
		{ours("xds/sds"), "net$", nil, "what carries messages is handed in"},
		{ours("xds/inspect"), module, []string{ours("proxy/redact"), ours("xds/attested"), ours("xds/envoy"), ours("xds/internal/request"), ours("xds/resource")}, "what is shown is handed in"},
		{ours("xds/inspect"), "github.com/envoyproxy", nil, "the messages of Envoy's admin API bring its whole bootstrap with them"},
		{ours("xds/inspect"), "google.golang.org/grpc", nil, "what carries messages is handed in"},
		{ours("xds/inspect"), "net$", nil, "what carries messages is handed in"},
		{ours("xds/short"), module, []string{ours("attest$"), ours("attest/strictyaml"), ours("proxy/config"), ours("proxy/route"), ours("proxy/upstream"), ours("xds/api$"), ours("xds/envoy"), ours("xds/resource")}, "one form of configuration is turned into another, whoever runs it"},
		{ours("xds/control"), ours("proxy"), nil, "a control plane runs no data plane"},
		{ours("xds/control"), ours("xds/client"), nil, "the two ends of the protocol share no code: one's mistake is not to be the other's"},
		{ours("xds/control"), "google.golang.org/grpc", nil, "what carries messages is handed in"},
		{ours("xds/api"), module, []string{ours("attest$"), ours("xds/internal")}, "messages are read and written, whoever sends them and whatever becomes of them"},
		{ours("xds/api"), "net$", nil, "no I/O"},
		{ours("xds/api"), "google.golang.org/grpc", nil, "a message does not know how it travels"},
		{ours("xds/api"), "github.com/envoyproxy", nil, "our messages refer to none of Envoy's"},
		{ours("xds/internal/bound"), module, nil, "bytes are counted, whatever they are"},
		{ours("xds/internal/request"), module, []string{ours("proxy/pattern"), ours("xds/internal/bound"), ours("xds/resource")}, "what is asked is read, whoever answers"},
		{ours("xds/envoy"), module, []string{ours("attest$"), ours("attest/strictyaml"), ours("proxy/chain"), ours("proxy/config"), ours("proxy/redact"), ours("proxy/route"), ours("proxy/upstream"), ours("xds/api"), ours("xds/internal"), ours("xds/resource")}, "translating knows neither streams nor a data plane"},
		{ours("xds/envoy"), "net/http", nil, "a translation does no I/O"},
		{ours("xds/envoy"), "os", nil, "a translation does no I/O"},
		{ours("xds/resource"), module, nil, "bytes with a name, whoever sends them and whatever they mean"},
		{ours("xds/resource"), "net", nil, "no I/O"},
		{ours("xds/client/protocol"), module, []string{ours("attest$"), ours("xds/resource")}, "what is said, and when, has to do with neither streams nor configuration"},
		{ours("xds/client/protocol"), "third party", nil, "what decides what a control plane can do can be read here"},
		{ours("xds/client/protocol"), "net", nil, "a state machine does no I/O"},
		{ours("xds/client/protocol"), "context", nil, "a state machine waits for nothing"},
		{ours("xds/client/protocol"), "sync", nil, "a state machine has no goroutines"},
		{ours("xds/client/protocol"), "math/rand", nil, "randomness is handed in"},
		{ours("xds/client$"), module, []string{ours("attest$"), ours("xds/resource"), ours("xds/client/protocol")}, "a library for anybody: it knows neither proxies nor evidence"},
		{ours("xds/client$"), "third party", nil, "who opens streams is handed in"},
		{ours("xds/client$"), "net", nil, "who opens streams is handed in"},
		{ours("xds/client/grpcads"), module, []string{ours("attest$"), ours("xds/resource"), ours("xds/client")}, "a stream carries what it carries; what protects it is handed in"},
		{ours("xds/client/grpcads"), "crypto/tls", nil, "what protects a connection is handed in"},
		{ours("xds/client/grpcads"), "github.com/envoyproxy", nil, "generated code allocates what a server says before anything can be looked at"},
		{anyone, ours("cmd"), []string{ours("cmd/internal")}, "nothing depends on the wiring"},
		{ours("cmd/internal/judge"), module, []string{ours("attest"), ours("ratls")}, "judging what is at hand knows neither a data plane nor text"},
		{ours("cmd/internal/judge"), "os", nil, "what is judged is handed in"},
		{ours("cmd/libjurat"), module, []string{ours("attest"), ours("ratls$"), ours("cmd/internal/judge")}, "a library in other people's programs opens no connection"},
		{ours("cmd/libjurat"), "net/http", nil, "a library in other people's programs opens no connection"},
		{ours("cmd/libjurat"), "os", nil, "another program's files, signals and environment are its own"},
		{anyone, ours("test"), nil, "nothing that ships depends on test code"},
		{anyone, "testing", nil, "the testing package registers flags and does not belong into a measured binary"},
	}
	// Each library lives in one room, so that it can be replaced and its faults have one wall around them.
	rooms := map[string]string{
		"github.com/fxamacker/cbor":        ours("attest/strictcbor"),
		"github.com/edgelesssys/ego":       ours("attest/sgx/ego"),
		"github.com/google/go-sev-guest":   ours("attest/snp"),
		"github.com/google/go-tpm":         ours("attest/tpm"),
		"go.yaml.in/yaml":                  ours("attest/strictyaml"),
		"cel.dev/cel-go":                   ours("attest/policy/expr"),
		"github.com/go-jose/go-jose":       ours("attest/ear"),
		"github.com/caddyserver/certmagic": ours("proxy/public"),
		"github.com/mholt/acmez":           ours("proxy/public"),
		"github.com/miekg/dns":             ours("proxy/public"),
		"go.uber.org/zap":                  ours("cmd/jurat") + " " + ours("proxy/public"), // certmagic wants a logger of it, that says nothing
		"golang.org/x/net/http2":           ours("proxy/h2"),
		"github.com/coreos/go-systemd":     ours("cmd/jurat"),
		"github.com/prometheus":            ours("proxy/metrics"),
		"go.opentelemetry.io":              ours("proxy/otlp"),
	}
	for _, p := range append(list(t, "./..."), list(t, "-tags", "ego", "./...")...) {
		if inside(p.ImportPath, module+"/test") {
			continue // test code may see everything
		}
		for _, imp := range p.Imports {
			third := strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !inside(imp, module)
			for _, b := range bans {
				hit := inside(imp, b.to) || b.to == "third party" && third
				concerned := b.from == anyone || inside(p.ImportPath, b.from)
				allowed := inside(imp, b.from) || slices.ContainsFunc(b.except, func(e string) bool { return inside(imp, e) })
				if hit && concerned && !allowed {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, b.why)
				}
			}
			for lib, room := range rooms {
				if inside(imp, lib) && !slices.Contains(strings.Fields(room), p.ImportPath) {
					t.Errorf("%s imports %s, which lives in %s", p.ImportPath, imp, room)
				}
			}
		}
	}
}

// gRPC is a second network stack beside the one that is looked at here. Exporters of telemetry bring it in even where they
// speak HTTP.
func TestNoGRPC(t *testing.T) {
	for _, p := range list(t, "-deps", "./attest/...", "./ratls", "./ratls/batch", "./ratls/cmw", "./ratls/ea", "./ratls/enforce", "./ratls/pins", "./ratls/session", "./proxy/...", "./xds/resource", "./xds/client", "./xds/client/protocol") {
		if inside(p.ImportPath, "google.golang.org/grpc") || inside(p.ImportPath, "github.com/envoyproxy") {
			t.Errorf("%s is linked", p.ImportPath)
		}
	}
}

// A C compiler is needed for the one thing that is for C.
func TestCgo(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", "{{if .CgoFiles}}{{.ImportPath}}{{end}}", "./...")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, []string{module + "/cmd/libjurat"}) {
		t.Errorf("import \"C\" is in %v (%v)", got, err)
	}
}

// The list of everything that is linked into the binary is committed: growth of what a verifier has to trust shows in a
// diff. Run with -update after a change that is meant.
func TestDependencyList(t *testing.T) {
	var got bytes.Buffer
	for _, p := range list(t, "-deps", "./cmd/jurat") {
		if !p.Standard {
			got.WriteString(p.ImportPath + "\n")
		}
	}
	lines := strings.Split(strings.TrimSpace(got.String()), "\n")
	slices.Sort(lines)
	text := strings.Join(lines, "\n") + "\n"
	file := filepath.Join(root, "cmd/jurat/deps.txt")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("cmd/jurat/deps.txt is not what is linked; if that is meant: go test ./test/arch -update\n%s", text)
	}
}

// words that may not stand in code that ships, outside the files named.
var words = []struct {
	word, why string
	except    []string
}{
	{"VerifyPeerCertificate:", "it is skipped on resumption; VerifyConnection is the only hook", nil},
	{"VerifyPeerCertificate =", "it is skipped on resumption; VerifyConnection is the only hook", nil},
	{"InsecureSkipVerify", "only where VerifyConnection does all of the verification", []string{"ratls/conn.go"}},
	{"KeyLogWriter", "a key log undoes the protection", nil},
	{"\tDirector:", "ReverseProxy.Director lets a client strip headers through Connection:", nil},
	// What protoc-gen-go writes registers the descriptors of our own messages, as every message of protobuf does. Whoever links them does
	// so for the messages, and nothing else is set in motion.
	{"func init()", "nothing registers itself; wiring is in cmd", []string{"xds/api/jurat/config/v1alpha1/attestation.pb.go"}},
}

func TestSource(t *testing.T) {
	for _, p := range list(t, "-tags", "ego", "./...") {
		if inside(p.ImportPath, module+"/test") {
			continue
		}
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, ".pb.go") {
				continue // what protoc makes of our messages, which api wraps
			}
			rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") + "/" + name
			generated := p.ImportPath == module+"/xds/api/jurat/config/v1alpha1" // messages of protobuf have its methods
			for _, w := range words {
				if bytes.Contains(src, []byte(w.word)) && !slices.Contains(w.except, rel) {
					t.Errorf("%s has %q: %s", rel, w.word, w.why)
				}
			}
			if !generated && p.ImportPath != module+"/ratls/grpccreds" { // what it makes are gRPC's own
				exported(t, rel, src)
			}
		}
	}
}

// exported reports third-party types in exported signatures: a library could then not be replaced without breaking
// those who use ours.
func exported(t *testing.T, rel string, src []byte) {
	file, err := parser.ParseFile(token.NewFileSet(), rel, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	third := map[string]string{}
	for _, imp := range file.Imports {
		path := strings.Trim(imp.Path.Value, `"`)
		if !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") || inside(path, module) || inside(path, "golang.org/x") {
			continue
		}
		name := filepath.Base(path)
		if strings.HasPrefix(name, "v") && len(name) == 2 {
			name = filepath.Base(filepath.Dir(path))
		}
		if imp.Name != nil {
			name = imp.Name.Name
		}
		third[name] = path
	}
	look := func(where string, n ast.Node) {
		if n == nil {
			return
		}
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BlockStmt:
				return false
			case *ast.Field:
				if len(n.Names) > 0 && !slices.ContainsFunc(n.Names, func(i *ast.Ident) bool { return i.IsExported() }) && where == "struct" {
					return false
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && third[x.Name] != "" {
					t.Errorf("%s: %s.%s of %s in an exported signature", rel, x.Name, n.Sel.Name, third[x.Name])
				}
			}
			return true
		})
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && !ofOurOwn(d.Recv) {
				look("func", d.Type)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() {
					look("struct", ts.Type)
				}
			}
		}
	}
}

// ofOurOwn reports whether a method belongs to a type that is not exported: a library may demand its name.
func ofOurOwn(recv *ast.FieldList) bool {
	if recv == nil {
		return false
	}
	t := recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, ok := t.(*ast.Ident)
	return ok && !name.IsExported()
}

// Every code of the table has a test that provokes it.
func TestEveryCodeIsProvoked(t *testing.T) {
	src, err := os.ReadFile(filepath.Join(root, "attest/codes_gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	var tests bytes.Buffer
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".txtar") {
			raw, err := os.ReadFile(path)
			tests.Write(raw)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(src), "\n") {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " Code = ")
		if !ok {
			continue
		}
		code := strings.Trim(strings.Fields(rest)[0], `"`)
		name = strings.TrimSpace(name)
		if !bytes.Contains(tests.Bytes(), []byte("attest."+name)) && !bytes.Contains(tests.Bytes(), []byte(code)) {
			t.Errorf("no test provokes %s (%s)", code, name)
		}
	}
}
