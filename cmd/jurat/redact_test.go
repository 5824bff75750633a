package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/redact"
)

// What /config_dump shows of the file has no credential in it that is put into requests, or that requests are compared with.
func TestCredentialsAreNotShown(t *testing.T) {
	c, err := load(t, `
identity: {tee: sim, names: [a.example]}
listen:
  - address: "127.0.0.1:1"
    http:
      request_headers: {set: [{name: Authorization, value: hidden-1}, {name: X-Kept, value: kept-1}]}
      virtual_hosts:
      - name: kept-token
        domains: ["kept.example"]
        response_headers: {set: [{name: Set-Cookie, value: hidden-2}]}
        routes:
        - match:
            prefix: /kept
            headers: [{name: x-api-key, string_match: {exact: hidden-3}}, {name: x-kept, string_match: {exact: kept-2}}]
            query_parameters: [{name: token, string_match: {prefix: hidden-4}}]
          route: {cluster: kept}
clusters:
  - {name: kept, endpoints: [{address: "127.0.0.1:1"}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(redact.Value(v))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"hidden-1", "hidden-2", "hidden-3", "hidden-4"} {
		if !strings.Contains(string(raw), s) || strings.Contains(string(shown), s) {
			t.Errorf("%s: %s", s, shown)
		}
	}
	for _, s := range []string{"kept-1", "kept-2", "kept-token", "kept.example", `"/kept"`} {
		if !strings.Contains(string(shown), s) {
			t.Errorf("%s is not shown: %s", s, shown)
		}
	}
}
