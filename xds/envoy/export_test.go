package envoy

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoregistry"
)

// Fields is the table, for tests: by message, then by field.
type Fields map[string]map[string]string // "handled", "ignored" or "noted"

// Table answers the table.
func Table() Fields {
	out := Fields{}
	for name, m := range messages() {
		of := map[string]string{}
		for _, f := range strings.Fields(m.handled) {
			of[f] = "handled"
		}
		for _, f := range strings.Fields(m.ignored) {
			of[f] = "ignored"
		}
		for f := range m.noted {
			of[f] = "noted"
		}
		out[string(name)] = of
	}
	return out
}

// Types answers the types that are known.
func Types() *protoregistry.Types { return types() }

// TranslateWithout translates as if a field were not in the table.
func TranslateWithout(in Input, message, field string) *Translation {
	return translate(in, func(t *translator) {
		t.table = newTable() // one of its own
		for name, fields := range t.table.fields {
			for f := range fields {
				if string(name) == message && string(f) == field {
					delete(fields, f)
				}
			}
		}
	})
}

// TranslateWithin translates as if all resources may be made of so many messages.
func TranslateWithin(in Input, most int) *Translation {
	return translate(in, func(t *translator) { t.most = most })
}
