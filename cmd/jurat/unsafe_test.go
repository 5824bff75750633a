package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest/strictyaml"
)

// TestUnsafeChoices: whatever is chosen under a name that begins with unsafe_ is found, and what it means is known.
func TestUnsafeChoices(t *testing.T) {
	const file = `
listen:
  - {address: ":1", unsafe_to: true, to: "10.0.0.1:1", public: {cert: a, unsafe_key_file: b}}
  - address: ":2"
    plain: true
    unsafe_listen: true
    http: {virtual_hosts: [{name: v, domains: ["*"], routes: []}], unsafe_keep_escaped_slashes: true}
    chains: [{match: {}, unsafe_to: true, to: "10.0.0.1:1"}]
clusters:
  - {name: a, unsafe_plain: true, endpoints: [{address: "10.0.0.1:1"}]}
  - {name: b, original_destination: {unsafe_plain: true}}
upstreams: [{listen: "0.0.0.0:3", unsafe_listen: true, target: a, require: p}]
admin: {address: ":4", unsafe_listen: true}
tracing: {endpoint: "http://a", sample: 1, unsafe_plain: true}
sds: {address: "unix:/a", identities: [{name: a, unsafe_give_private_key_to_envoy: true}]}
xds:
  server: a:1
  require: p
  node: {cluster: a}
  limits:
    floor: p
    longest_outage: 1h
    targets: [{name: a, to: [a.example], plain: true, unsafe_plain: true}]
    listeners: [{address: ":5", clients: plain, unsafe_listen: true, to: [a]}]
`
	root, err := strictyaml.Parse("f.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	var f fileConfig
	if err := strictyaml.Decode(root, &f); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range unsafeChoices("", reflect.ValueOf(f)) {
		got = append(got, c.at)
		if c.means == "" {
			t.Errorf("nothing is said of %s", c.at)
		}
	}
	slices.Sort(got)
	want := []string{
		"admin.unsafe_listen", "clusters[0].unsafe_plain", "clusters[1].original_destination.unsafe_plain", "listen[0].public.unsafe_key_file",
		"listen[0].unsafe_to", "listen[1].chains[0].unsafe_to", "listen[1].http.unsafe_keep_escaped_slashes", "listen[1].unsafe_listen",
		"sds.identities[0].unsafe_give_private_key_to_envoy", "tracing.unsafe_plain", "upstreams[0].unsafe_listen",
		"xds.limits.listeners[0].unsafe_listen", "xds.limits.targets[0].unsafe_plain",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if keys := regexp.MustCompile(`"unsafe_\w+": \{`).FindAll(fileSchema(), -1); len(keys) != len(want) {
		t.Errorf("the file does not have all of the %d keys of the schema: %s", len(keys), keys)
	}
}

// TestUnsafeIsSaid: what a file or the flags choose like that is in the log, by its place and with what it means.
func TestUnsafeIsSaid(t *testing.T) {
	a := testApp()
	file := filepath.Join(t.TempDir(), "jurat.yaml")
	if err := os.WriteFile(file, []byte("upstreams: []\nlisten: [{address: \"127.0.0.1:0\", plain: true, unsafe_to: true, to: \"10.0.0.1:1\"}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := new(serveConfig)
	if err := a.loadConfig(file, loaded); err != nil {
		t.Fatal(err)
	}
	flags := &serveConfig{Proxy: loaded.Proxy, Lifetime: loaded.Lifetime}
	if err := flags.complete(a, func(err error) error { return err }); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*serveConfig{"file": loaded, "flags": flags} {
		var said bytes.Buffer
		if _, err := a.newGeneration(t.Context(), c, nil, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
			t.Fatal(err)
		}
		if text := said.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "UNSAFE: the service may be another machine") || !strings.Contains(text, "key=listen[0].unsafe_to") {
			t.Errorf("%s: got %q", name, text)
		}
	}
}
