// Package redact tells what must not be shown to whoever may look at a configuration. It is the second line: that there are no secrets in what
// is shown is for whoever makes it, and this is for the day on which a field is added there and nobody thinks of it.
package redact

import "strings"

// Hidden stands in place of a secret, as it does in Envoy's admin API.
const Hidden = "[redacted]"

// Named reports whether what is called name is a secret: "private_key", "privateKey", "Proxy-Authorization", "api_token".
func Named(name string) bool {
	name = strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "", " ", "").Replace(name))
	for _, end := range []string{
		"privatekey", "password", "passwd", "passphrase", "secret", "token", "authorization", "credential", "credentials", "apikey", "accesskey", "psk", "sharedkey", "ticketkey",
		"ticketkeys", "setcookie",
	} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return name == "cookie"
}

// Text reports whether a text holds a private key in PEM, under whatever name it is kept.
func Text(s string) bool { return strings.Contains(s, "PRIVATE KEY-----") }

// Value hides what is named like a secret in v, and private keys in PEM: v is what encoding/json reads into an any. It changes v, and answers it.
func Value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		// A header, or whatever else is a name and a value, or what one is compared with.
		named := false
		for k := range v {
			if text, ok := v[k].(string); ok && (strings.EqualFold(k, "name") || strings.EqualFold(k, "key")) {
				named = named || Named(text)
			}
		}
		for k := range v {
			if Named(k) || named && ofName(k, v[k]) {
				v[k] = Hidden
			} else {
				v[k] = Value(v[k])
			}
		}
	case []any:
		for i := range v {
			v[i] = Value(v[i])
		}
	case string:
		if Text(v) {
			return Hidden
		}
	}
	return v
}

// ofName reports whether a field holds the value of the name beside it, or what that is compared with.
func ofName(field string, v any) bool {
	switch field = strings.ReplaceAll(strings.ToLower(field), "_", ""); v.(type) {
	case bool, nil: // whether it is there
		return false
	default:
		return field == "value" || field == "rawvalue" || field == "string" || strings.HasSuffix(field, "match") && field != "match"
	}
}
