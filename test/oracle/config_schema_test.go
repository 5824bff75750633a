package oracle_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/test/yamltext"
)

func configSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := os.ReadFile("../../docs/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(t *testing.T, schema *jsonschema.Schema, text string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return schema.Validate(v)
}

// Every example is valid, and what the published schema marks in an editor the loader refuses as well.
func TestConfigSchema(t *testing.T) {
	schema := configSchema(t)
	jurat := filepath.Join(t.TempDir(), "jurat")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", jurat, "./cmd/jurat").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../docs/examples")); err != nil {
		t.Fatal(err)
	}
	loads := func(text string) bool {
		file := filepath.Join(dir, "changed.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return exec.Command(jurat, "serve", "-c", file, "--check").Run() == nil
	}
	wrong := [][2]string{
		{"listen:\n", "listne:\n"},
		{"address:", "adress:"},
		{"plain: true", "plain: yes please"},
		{"plain: true", "plain: [true]"},
		{"cluster: ledger}", "cluster: {name: ledger}}"},
		{"clusters:\n", "clusters: {}\nx:\n"},
		{"name: ledger\n", "title: ledger\n"},
		{"require: policies/ledger.yaml", "required: policies/ledger.yaml"},
		{"timeout: 5s", "timeout: 5"},
		{"timeout: 5s", "timeout: 0"},
		{"timeout: 5s", "timeout: soon"},
		{"timeout: never", "timeout: Never"},
		{"tunnel_idle: never", "tunnel_idle: -1s"},
		{"connections: 500", "connections: 0"},
		{"connections: 500", "connections: many"},
		{"connections: 500", "connections: -1"},
		{"weight: 5\n", "weight: -5\n"},
		{"weight: 5\n", "weight: 0.5\n"},
		{"weight: 95", "wait: 95"},
		{"num_retries: 2", "num_retries: 0"},
		{"lb_policy: least_request", "lb_policy: LEAST_REQUEST"},
		{"kind: http", "kind: https"},
		{"retry_on: [5xx", "retry_on: [6xx"},
		{"proxy_protocol: v2", "proxy_protocol: 2"},
		{"max_connections: unlimited", "max_connections: never"},
		{"success_rate_minimum_hosts: off", "success_rate_minimum_hosts: on"},
		{"ttl: session", "ttl: never"},
		{"port: 8443", "port: 65536"},
		{"destination_ports: [8443]", "destination_ports: [0]"},
		{"destination_ports: [8443]", "destination_port: [8443]"},
		{"match: {server_names: [", "match: {server_name: ["},
		{"original_destination: {}", "original_destination: true"},
		{"priority: 1", "priority: first"},
		{"status: 403", "status: [403]"},
		{"match: {prefix: /}", "matches: {prefix: /}"},
		{"sample: 0.05", "sample: often"},
		{", sample: 0.05", ""},
		{"format: json", "format: xml"},
		{"tee: auto", "tee: {auto: true}"},
		{"names: [", "named: ["},
		{"domains: [", "domain: ["},
		{"append_action: overwrite", "append_action: replace"},
	}
	used := make([]int, len(wrong))
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		if err := validate(t, schema, text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if !loads(text) {
			t.Errorf("%s: not loaded", file)
		}
		for i, c := range wrong {
			changed := strings.Replace(text, c[0], c[1], 1)
			if changed == text || used[i] > 0 {
				continue
			}
			used[i]++
			if validate(t, schema, changed) == nil {
				t.Errorf("%s: the schema accepts %q in place of %q", file, c[1], c[0])
			}
			if loads(changed) {
				t.Errorf("%s: the loader accepts %q in place of %q", file, c[1], c[0])
			}
		}
	}
	for i, c := range wrong {
		if used[i] == 0 {
			t.Errorf("no example has %q", c[0])
		}
	}
}

// The schema marks nothing that the decoder reads.
func TestConfigSchemaAcceptsWhatIsRead(t *testing.T) {
	schema := configSchema(t)
	rapid.Check(t, func(rt *rapid.T) {
		var c config.Config
		yamltext.Draw(rt, &c)
		text := yamltext.Write(c)
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			rt.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			rt.Fatalf("%s: %v", text, err)
		}
	})
}
