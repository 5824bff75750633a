package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

func (a *api) configDump(w http.ResponseWriter, _ *http.Request) {
	v, err := a.source.ConfigDump()
	var shown any
	if err == nil {
		shown, err = redacted(v)
	}
	if err != nil {
		code := attest.CodeOf(err)
		fail(w, http.StatusInternalServerError, code.Title()+" ("+string(code)+")")
		return
	}
	writeJSON(w, map[string]any{"configs": shown})
}

const hidden = "[redacted]"

// redacted is v without what looks like a secret. That nothing secret is in v is for whoever makes it; this is for the day on
// which a field is added there and nobody thinks of it.
func redacted(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		return nil, err
	}
	return hide(plain), nil
}

func hide(v any) any {
	switch v := v.(type) {
	case map[string]any:
		// A header, or whatever else is a name and a value.
		name, _ := v["name"].(string)
		if name == "" {
			name, _ = v["key"].(string)
		}
		for k := range v {
			if secret(k) || k == "value" && secret(name) {
				v[k] = hidden
			} else {
				v[k] = hide(v[k])
			}
		}
	case []any:
		for i := range v {
			v[i] = hide(v[i])
		}
	case string:
		if strings.Contains(v, "PRIVATE KEY-----") {
			return hidden
		}
	}
	return v
}

// secret reports whether what is called name is one: "private_key", "privateKey", "Proxy-Authorization", "api_token".
func secret(name string) bool {
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
