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
	})
	want := map[string]any{
		"password": redact.Hidden, "list": []any{map[string]any{"name": "Cookie", "value": redact.Hidden, "kept": 1.0}, redact.Hidden}, "secret": redact.Hidden, "kept": "y",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}
