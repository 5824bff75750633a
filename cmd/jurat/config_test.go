package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls"
)

func testApp() *app {
	return &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }, now: time.Now}
}

// policyText is a policy whose evidence may be 90m old, so that peers attest anew every 45m or more often.
const policyText = "policy: p\nplatforms: {allow: [amd genoa+]}\nworkload: {measurement: any, debug: off}\nfreshness: {evidence: 90m}\n"

// load reads a configuration beside which there are the policies p.yaml and q.yaml.
func load(t *testing.T, text string) (*serveConfig, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"f.yaml": text, "p.yaml": policyText, "q.yaml": strings.Replace(policyText, "policy: p", "policy: q", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := new(serveConfig)
	return c, testApp().loadConfig(filepath.Join(dir, "f.yaml"), c)
}

// Files from before clusters mean what they meant.
func TestLoadOldFile(t *testing.T) {
	c, err := load(t, `
identity: {tee: sim, names: [pay.example, 127.0.0.1, pay.example], lifetime: 30m}
session: {profile: expat-03, extension: 65280}
listen:
  - {address: "127.0.0.1:0", to: "127.0.0.1:8080"}
  - {address: "unix:/tmp/x.sock", to: "127.0.0.1:8081", tcp: true, require: p.yaml, reattest: 1m}
upstreams:
  - {name: ledger, listen: "127.0.0.1:9000", target: "ledger:8443", require: p.yaml, reattest: 2m}
  - {listen: "0.0.0.0:9001", target: "https://ledger", require: q.yaml, unsafe_listen: true}
  - {listen: "127.0.0.1:9002", target: "ledger:https", require: ./p.yaml}
  - {name: ledger, listen: "127.0.0.1:9003", target: "[::1]", require: p.yaml}
drain: 10s
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.TEE != "sim" || c.Lifetime != 30*time.Minute || c.drain != 10*time.Second || c.Session != (sessionConfig{"expat-03", 65280}) || !slices.Equal(c.Names, []string{"127.0.0.1", "pay.example"}) {
		t.Errorf("got %+v", c)
	}
	var names, targets []string
	for _, cl := range c.Proxy.Clusters {
		names, targets = append(names, cl.Name), append(targets, cl.Endpoints[0].Address)
	}
	if !slices.Equal(names, []string{"ledger", "https://ledger", "ledger:https", "ledger#2"}) || !slices.Equal(targets, []string{"ledger:8443", "ledger:443", "ledger:443", "[::1]:443"}) {
		t.Errorf("got %q, %q", names, targets)
	}
	want := config.Cluster{
		Config:    upstream.Config{Name: "ledger", CircuitBreakers: upstream.CircuitBreakers{MaxConnections: -1, MaxPendingRequests: -1, MaxRequests: -1}},
		Attested:  &config.Attested{Require: "p.yaml", Reattest: 2 * time.Minute},
		Endpoints: []upstream.EndpointConfig{{Identity: upstream.Identity{Address: "ledger:8443"}}},
	}
	if !reflect.DeepEqual(c.Proxy.Clusters[0], want) {
		t.Errorf("got %+v", c.Proxy.Clusters[0])
	}
	if l := c.Proxy.Listeners[3]; !reflect.DeepEqual(l, config.Listener{Address: "0.0.0.0:9001", UnsafeListen: true, Serving: config.Serving{Plain: true, TCP: true, Cluster: "https://ledger"}}) {
		t.Errorf("got %+v", l)
	}
	if len(c.policies) != 3 || c.policies["p.yaml"].ID() != c.policies["./p.yaml"].ID() || c.policies["p.yaml"].ID() == c.policies["q.yaml"].ID() {
		t.Errorf("got %v", c.policies)
	}
}

// Flags and a file that say the same are the same.
func TestFlagsAreAFile(t *testing.T) {
	file, err := load(t, "identity: {tee: sim, names: [a]}\nupstreams: [{listen: \"127.0.0.1:1\", target: a, require: p.yaml, reattest: 1m}]\n")
	if err != nil {
		t.Fatal(err)
	}
	l, cl, err := (&upstreamConfig{Name: "a", Listen: "127.0.0.1:1", Target: "a", Require: filepath.Join(file.dir, "p.yaml"), Reattest: time.Minute}).compile()
	if err != nil {
		t.Fatal(err)
	}
	flags := &serveConfig{TEE: "sim", Names: []string{"a"}, Lifetime: ratls.DefaultLifetime, Proxy: config.Config{Listeners: []config.Listener{l}, Clusters: []config.Cluster{cl}}}
	if err := flags.complete(testApp(), flagged(nil)); err != nil {
		t.Fatal(err)
	}
	a, err := file.digest()
	b, bad := flags.digest()
	if err != nil || bad != nil || a != b {
		t.Errorf("got %x and %x, %v, %v", a, b, err, bad)
	}
}

func TestDefaults(t *testing.T) {
	for text, want := range map[string]string{
		`listen: [{address: ":1", to: "[::1]:1"}]`:                                                                                              "auto",
		`{listen: [{address: ":1", to: "[::1]:1"}], identity: {}}`:                                                                              "auto",
		`{listen: [{address: ":1", to: "[::1]:1"}], identity: {tee: sim}}`:                                                                      "sim",
		`upstreams: [{listen: "127.0.0.1:1", target: a, require: p.yaml}]`:                                                                      "",
		`{upstreams: [{listen: "127.0.0.1:1", target: a, require: p.yaml}], identity: {names: [a]}}`:                                            "auto",
		`{listen: [{address: "127.0.0.1:1", plain: true, cluster: c}], clusters: [{name: c, endpoints: [{address: "[::1]:1"}]}]}`:               "",
		`{listen: [{address: ":1", passthrough: [{server_names: [a], cluster: c}]}], clusters: [{name: c, endpoints: [{address: "[::1]:1"}]}]}`: "",
	} {
		c, err := load(t, text)
		if err != nil || c.TEE != want || c.Lifetime != ratls.DefaultLifetime || c.drain != defaultDrain {
			t.Errorf("%s: got %+v, %v", text, c, err)
		}
		if err == nil && (len(c.Names) > 0) != (want != "") {
			t.Errorf("%s: names %q", text, c.Names)
		}
	}
}

func TestProcess(t *testing.T) {
	c, err := load(t, `
listen: [{address: "127.0.0.1:8443", to: "127.0.0.1:8080"}]
admin: {address: "127.0.0.1:9901", pprof: true, hosts: [admin.example]}
access_log: {path: logs/access, format: json}
tracing: {endpoint: "https://collector.example:4318", sample: 0, headers_file: /etc/jurat/headers}
`)
	want := processConfig{
		Admin:     &adminConfig{Address: "127.0.0.1:9901", PProf: true, Hosts: []string{"admin.example"}},
		AccessLog: &accessLogConfig{Path: "logs/access", Format: "json"},
		Tracing:   &tracingConfig{Endpoint: "https://collector.example:4318", HeadersFile: "/etc/jurat/headers"},
	}
	if err != nil || !reflect.DeepEqual(c.Process, want) {
		t.Fatalf("got %+v, %v", c.Process, err)
	}
	if got := c.file(c.Process.AccessLog.Path); got != filepath.Join(c.dir, "logs/access") {
		t.Errorf("got %s", got)
	}
	if got := c.file(c.Process.Tracing.HeadersFile); got != "/etc/jurat/headers" {
		t.Errorf("got %s", got)
	}
	c.Process = want
	for _, text := range []string{
		`tracing: {endpoint: "http://127.0.0.1:4318", sample: 1}`, `tracing: {endpoint: "http://localhost", sample: 0.5}`, `tracing: {endpoint: "http://[::1]:4318/a", sample: 0.5}`,
		`tracing: {endpoint: "http://a", sample: 0.5, unsafe_plain: true}`, `admin: {address: "systemd:admin", unsafe_listen: true}`, `admin: {address: "unix:/run/a"}`, `admin: {address: ":9901", unsafe_listen: true}`,
		`access_log: {path: "-"}`, "upstreams: [{listen: \"systemd:a\", unsafe_listen: true, target: a, require: p.yaml}]\nadmin: {address: \"systemd:a\", unsafe_listen: true}", `admin: {address: "127.0.0.1:0"}`,
	} {
		if _, err := load(t, "listen: [{address: \"127.0.0.1:0\", to: \":80\"}]\n"+text+"\n"); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Every mistake has the place in the file where it was made, whatever became of it since.
func TestLoadNamesTheLine(t *testing.T) {
	const listen = "listen:\n  - {address: \":1\", to: \":80\"}\n"
	const up = listen + "upstreams:\n  - {listen: \"127.0.0.1:1\", target: a, require: p.yaml}\n  - "
	for text, want := range map[string]string{
		"drain: 0s\n" + listen:                                                                                 "f.yaml:1:8: .*drain.*J703",
		"identity: {names: [a, b c]}\n" + listen:                                                               "f.yaml:1:23: .*J703",
		"identity: {tee: nothing}\n" + listen:                                                                  "f.yaml:1:17: .*nothing.*J705",
		"identity: {lifetime: 1s}\n" + listen:                                                                  "f.yaml:1:22: .*J703",
		"session: {extension: 0}\n" + listen:                                                                   "f.yaml:1:22: .*J703",
		"session: {extension: 13}\n" + listen:                                                                  "f.yaml:1:22: .*another extension's.*J703",
		"admin: {}\n" + listen:                                                                                 "f.yaml:1:8: .*admin.address.*J704",
		"admin: {address: \":2\"}\n" + listen:                                                                  "f.yaml:1:18: .*other machines.*J703",
		"admin: {address: a}\n" + listen:                                                                       "f.yaml:1:18: .*host:port.*J703",
		"admin: {address: \":1\", unsafe_listen: true}\n" + listen:                                             "f.yaml:1:18: .*no listener has.*J703",
		"admin: {address: \"127.0.0.1:2\", hosts: [\"*\"]}\n" + listen:                                         "f.yaml:1:41: .*J703",
		"access_log: {}\n" + listen:                                                                            "f.yaml:1:13: .*path.*J704",
		"access_log: {path: a, format: xml}\n" + listen:                                                        "f.yaml:1:31: .*text, json.*J703",
		"tracing: {endpoint: \"https://a\"}\n" + listen:                                                        "f.yaml:1:10: .*sample.*J704",
		"tracing: {endpoint: \"a:1\", sample: 1}\n" + listen:                                                   "f.yaml:1:21: .*J703",
		"tracing: {endpoint: \"https://u@a\", sample: 1}\n" + listen:                                           "f.yaml:1:21: .*J703",
		"tracing: {endpoint: \"https://a?b\", sample: 1}\n" + listen:                                           "f.yaml:1:21: .*J703",
		"tracing: {endpoint: \"http://a.example\", sample: 1}\n" + listen:                                      "f.yaml:1:21: .*another machine.*J703",
		"tracing: {endpoint: \"https://a\", sample: 1.5}\n" + listen:                                           "f.yaml:1:42: .*0 to 1.*J703",
		up + "{listen: \":2\", target: a, require: p.yaml}\n":                                                  "f.yaml:5:14: .*upstreams.1..listen: :2, which other machines.*J703",
		up + "{listen: \"127.0.0.1:1\", target: a, require: p.yaml}\n":                                         "f.yaml:5:14: .*no other listener has.*J703",
		up + "{listen: \"127.0.0.1:2\", target: \"a b\", require: p.yaml}\n":                                   "f.yaml:5:37: .*a b.*HOST.*J703",
		up + "{listen: \"127.0.0.1:2\", target: \"a\\0\", require: p.yaml}\n":                                  "f.yaml:5:37: .*upstreams.1..target.*J703",
		up + "{listen: \"127.0.0.1:2\", target: a, require: p.yaml, reattest: 1ms}\n":                          "f.yaml:5:67: .*upstreams.1..reattest.*at least 1s.*J703",
		up + "{listen: \"127.0.0.1:2\", target: a, require: p.yaml, reattest: 46m}\n":                          "f.yaml:5:67: .*upstreams.1..reattest.*at most 45m.*J703",
		up + "{listen: \"127.0.0.1:2\", target: a}\n":                                                          "f.yaml:5:5: .*upstreams.1..require.*J704",
		listen + "  - {address: \":2\", to: \":80\", require: p.yaml, reattest: 46m}\n":                        "f.yaml:3:59: .*listen.1..reattest.*at most 45m.*J703",
		listen + "  - {address: \":2\", chains: [{match: {}, to: \":80\", require: p.yaml, reattest: 46m}]}\n": "f.yaml:3:80: .*listen.1..chains.0..reattest.*at most 45m.*J703",
		listen + "  - {address: \":2\", chains: [{match: {}, to: \":80\", require: missing.yaml}]}\n":          "missing.yaml",
		listen + "  - {address: \":2\", chains: [{match: {server_names: [a]}, to: \":80\"}, {match: {server_names: [b, A]}, to: \":80\"}]}\n": "f.yaml:3:79: .*chains.1..match: .*chains.0. is for.*J703",
		listen + "clusters: [{name: c, attested: {require: p.yaml, reattest: 46m}, endpoints: [{address: \"a:1\"}]}]\n":                       "f.yaml:3:60: .*at most 45m.*J703",
		listen + "clusters: [{name: c, endpoints: [{address: \"a\"}]}]\n":                                                                     "f.yaml:3:44: .*clusters.0..endpoints.0..address.*J703",
		up + "{listen: \"127.0.0.1:2\", target: \"a:nosuchservice\", require: p.yaml}\n":                                                      "f.yaml:5:37: .*a:nosuchservice.*J703",
		"upstreams: [{listen: \"127.0.0.1:2\", target: a, require: p.yaml, reattest: 1ms}]\n":                                                 "f.yaml:1:75: .*upstreams.0..reattest.*at least 1s.*J703",
		"upstreams: [{listen: \":2\", target: a, require: p.yaml, reattest: 1ms}]\n":                                                          "f.yaml:1:22: .*other machines.*; .*f.yaml:1:66: .*at least 1s.*J703",
		"tracing: {endpoint: \"https://a#b\", sample: 1}\n" + listen:                                                                          "f.yaml:1:21: .*J703",
		"tracing: {endpoint: \"ftp://a:1\", sample: 1}\n" + listen:                                                                            "f.yaml:1:21: .*J703",
		"tracing: {endpoint: \"https://:4318\", sample: 1}\n" + listen:                                                                        "f.yaml:1:21: .*J703",
		"tracing: {endpoint: \"https://%zz\", sample: 1}\n" + listen:                                                                          "f.yaml:1:21: .*J703",
		"xds: {server: a, require: p.yaml, node: {metadata: {LABELS: \"{x\"}}, limits: {}}\n" + listen:                                        "f.yaml:1:.*xds.node.metadata.LABELS.*JSON.*J703",
		"listen: [":               "f.yaml.*J701",
		"{}":                      "f.yaml:1:1: .*listen.*J704",
		listen + "upstream: []\n": "f.yaml:3:1: .*J702",
	} {
		_, err := load(t, text)
		if err == nil || !regexp.MustCompile(want).MatchString(strings.ReplaceAll(err.Error(), "\n", "; ")) {
			t.Errorf("%s\ngot %v, want %s", text, err, want)
		}
	}
	if _, err := load(t, listen[:len(listen)-2]+", require: \"-\"}\n"); attest.CodeOf(err) != attest.CodeUsage {
		t.Errorf("standard input as a policy: %v", err)
	}
	if _, err := load(t, listen[:len(listen)-2]+", require: absent.yaml}\n"); attest.CodeOf(err) != attest.CodeConfigValue || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("a policy that is not there: %v", err)
	}
	if err := testApp().loadConfig("absent.yaml", new(serveConfig)); attest.CodeOf(err) != attest.CodeUsage {
		t.Errorf("a file that is not there: %v", err)
	}
	// What a policy lacks is said of the policy.
	c := new(serveConfig)
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	for name, text := range map[string]string{file: listen[:len(listen)-2] + ", require: bad.yaml}\n", filepath.Join(dir, "bad.yaml"): "polcy: p\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := testApp().loadConfig(file, c); err == nil || !strings.Contains(err.Error(), "bad.yaml:1:1") {
		t.Errorf("got %v", err)
	}
}

// TestDigestCoversEverything: two configurations that differ in anything have different digests. Other policies under the
// same names make them differ as well, and the same ones under other names don't.
func TestDigestCoversEverything(t *testing.T) {
	parse := func(name, text string) *policy.Policy {
		p, err := policy.Parse(name, []byte(text), policy.NoFiles)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p, q := parse("p.yaml", policyText), parse("q.yaml", strings.Replace(policyText, "policy: p", "policy: q", 1))
	c := &serveConfig{policies: map[string]*policy.Policy{"p": p, "q": q}}
	var leaves []leaf
	fill(t, reflect.ValueOf(c).Elem(), "", &leaves)
	if len(leaves) < 150 {
		t.Errorf("only %d values: is everything filled?", len(leaves))
	}
	digest := func() [32]byte {
		d, err := c.digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	whole := digest()
	seen := map[[32]byte]string{whole: "the whole"}
	for _, l := range leaves {
		old := reflect.New(l.Type()).Elem()
		old.Set(l.Value)
		l.change()
		d := digest()
		if other, ok := seen[d]; ok {
			t.Errorf("%s: the digest is that of %s", l.path, other)
		}
		seen[d] = l.path
		l.Set(old)
	}
	if digest() != whole {
		t.Fatal("what was changed has not been changed back")
	}
	c.policies = map[string]*policy.Policy{"p": q, "q": p}
	if digest() == whole {
		t.Error("another policy under the same name makes no difference")
	}
	c.policies = map[string]*policy.Policy{"p": parse("elsewhere.yaml", policyText)}
	if digest() != whole {
		t.Error("the same policy from another file makes a difference")
	}
	c.policies = nil
	if _, err := c.digest(); attest.CodeOf(err) != attest.CodeInternal {
		t.Errorf("a policy that was not read: %v", err)
	}
}

type leaf struct {
	reflect.Value
	path string
}

func (l leaf) change() {
	switch l.Kind() {
	case reflect.String:
		l.SetString("q")
	case reflect.Bool:
		l.SetBool(!l.Bool())
	case reflect.Pointer, reflect.Slice, reflect.Map:
		l.SetZero()
	default:
		switch {
		case l.CanInt():
			l.SetInt(l.Int() + 1)
		case l.CanUint():
			l.SetUint(l.Uint() + 1)
		default:
			l.SetFloat(l.Float() + 0.5)
		}
	}
}

// fill sets everything exported, and collects what can be changed.
func fill(t *testing.T, v reflect.Value, path string, leaves *[]leaf) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				fill(t, v.Field(i), path+"."+f.Name, leaves)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), path, leaves)
		*leaves = append(*leaves, leaf{v, path})
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), path+"[0]", leaves)
		*leaves = append(*leaves, leaf{v, path})
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"p": "p"}))
		*leaves = append(*leaves, leaf{v, path})
	case reflect.String:
		v.SetString("p")
		*leaves = append(*leaves, leaf{v, path})
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint32, reflect.Float64:
		*leaves = append(*leaves, leaf{v, path})
	default:
		t.Fatalf("%s is a %s", path, v.Kind())
	}
}

// Where evidence may be bound more weakly than the policy says is part of who is let in.
func TestUnsafeBindingIsMeasured(t *testing.T) {
	a, b := &serveConfig{}, &serveConfig{Binding: "key"}
	x, err := a.digest()
	y, bad := b.digest()
	if err != nil || bad != nil || x == y {
		t.Errorf("got %x and %x, %v, %v", x, y, err, bad)
	}
}

func TestExamplesAreTested(t *testing.T) {
	script, err := os.ReadFile("testdata/examples.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	policies, _ := filepath.Glob("../../docs/examples/policies/*.yaml")
	if err != nil || len(files) < 8 || len(policies) < 2 {
		t.Fatalf("got %v, %v, %v", files, policies, err)
	}
	for _, f := range files {
		if !bytes.Contains(script, []byte("jurat serve -c "+filepath.Base(f)+" --check\n")) {
			t.Errorf("%s is not tested", f)
		}
		raw, err := os.ReadFile(f)
		if err != nil || !bytes.HasPrefix(raw, []byte("# yaml-language-server: $schema=../config.schema.json\n# ")) {
			t.Errorf("%s does not begin with what it is: %v", f, err)
		}
	}
	for _, f := range policies {
		if !bytes.Contains(script, []byte("jurat policy check policies/"+filepath.Base(f)+"\n")) {
			t.Errorf("%s is not tested", f)
		}
	}
}

// What the page shows is right, and so is the unit file's configuration.
func TestPages(t *testing.T) {
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	shown, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("the page shows no file")
	}
	dir := t.TempDir()
	deployed, err := os.ReadFile("../../deploy/systemd/jurat.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"shown.yaml": shown, "deployed.yaml": string(deployed), "clients.yaml": policyText, "ledger.yaml": policyText} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"shown.yaml", "deployed.yaml"} {
		if err := testApp().loadConfig(filepath.Join(dir, name), new(serveConfig)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Everything that a file can say is described, and what the types say of keys that are gone is not kept.
func TestCommentsAreComplete(t *testing.T) {
	used := map[string]bool{}
	schema := fileSchema()
	var walk func(v reflect.Type)
	walk = func(v reflect.Type) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(v.Elem())
		case reflect.Struct:
			name := v.String() // main.fileConfig, route.Route
			used[name] = true
			for i := range v.NumField() {
				f := v.Field(i)
				key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
				if key == "-" {
					continue
				}
				if options != "inline" {
					used[name+"."+f.Name] = true
					if comments[name+"."+f.Name] == "" {
						t.Errorf("%s.%s has no comment", name, f.Name)
					}
				}
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[fileConfig]())
	for name := range comments {
		if !used[name] {
			t.Errorf("there is a comment on %s, which no file has", name)
		}
	}
	for name, text := range comments {
		if strings.Count(name, ".") == 2 && !bytes.Contains(schema, []byte(strings.Trim(quoted(text), `"`))) {
			t.Errorf("the schema does not say what %s is: %q", name, text)
		}
	}
}

func quoted(s string) string {
	var b bytes.Buffer
	_ = writeJSON(&b, s)
	return strings.TrimSpace(b.String())
}

// FuzzLoad: whatever is in a file, it is refused with a code and a place, or its digest can be taken.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("identity: {tee: sim}\nlisten: [{address: \":1\", to: \":80\"}]\nupstreams: [{listen: \"127.0.0.1:1\", target: a, require: p}]\n"))
	f.Add([]byte("listen: [{address: \":1\", cluster: c}]\nclusters: [{name: c, endpoints: [{address: \"a:1\"}]}]\nadmin: {address: \"127.0.0.1:1\"}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := testApp()
		a.stdin = bytes.NewReader(raw)
		c := new(serveConfig)
		err := a.loadConfig("-", c)
		var coded *attest.Error
		switch {
		case err == nil:
			if _, err := c.digest(); err != nil {
				t.Fatal(err)
			}
		case errors.Is(err, flag.ErrHelp):
		case !errors.As(err, &coded) || coded.Code == attest.CodeInternal:
			t.Fatalf("got %v", err)
		}
	})
}
