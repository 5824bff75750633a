package redact_test

import (
	"reflect"
	"testing"

	"github.com/jurat-tls/jurat/proxy/redact"
)

func TestNamed(t *testing.T) {
	for name, want := range map[string]bool{
		"private_key": true, "privateKey": true, "tls.Private-Key": true, "Proxy-Authorization": true, "api_token": true, "Cookie": true, "Set-Cookie": true, "PSK": true,
		"session_ticket_keys": true, "client secret": true,
		"": false, "secret_name": false, "token_bucket": false, "X-Cookie": false, "public_key": false, "keys": false,
	} {
		if got := redact.Named(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]bool{
		"-----BEGIN PRIVATE KEY-----\n": true, "a\n-----BEGIN EC PRIVATE KEY-----": true, "-----BEGIN CERTIFICATE-----": false, "PRIVATE KEY": false, "": false,
	} {
		if got := redact.Text(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestValue(t *testing.T) {
	got := redact.Value(map[string]any{
		"password": "x", "list": []any{map[string]any{"name": "Cookie", "value": "x", "kept": 1.0}, "-----BEGIN PRIVATE KEY-----"}, "secret": map[string]any{"a": "x"}, "kept": "y",
		"compared": []any{
			map[string]any{"Name": "X-Api-Key", "String": map[string]any{"Exact": "x"}, "Present": nil, "Invert": true},
			map[string]any{"name": "token", "string_match": map[string]any{"prefix": "x"}},
			map[string]any{"name": "x-kept", "exact_match": "y"},
			map[string]any{"name": "token", "present_match": true, "match": map[string]any{"prefix": "/"}},
			map[string]any{"KEY": "cookie", "raw_value": "x"},
		},
	})
	want := map[string]any{
		"password": redact.Hidden, "list": []any{map[string]any{"name": "Cookie", "value": redact.Hidden, "kept": 1.0}, redact.Hidden}, "secret": redact.Hidden, "kept": "y",
		"compared": []any{
			map[string]any{"Name": "X-Api-Key", "String": redact.Hidden, "Present": nil, "Invert": true},
			map[string]any{"name": "token", "string_match": redact.Hidden},
			map[string]any{"name": "x-kept", "exact_match": "y"},
			map[string]any{"name": "token", "present_match": true, "match": map[string]any{"prefix": "/"}},
			map[string]any{"KEY": "cookie", "raw_value": redact.Hidden},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}
