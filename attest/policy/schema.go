package policy

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Schema is the JSON Schema (draft 2020-12) of a policy file, for editors. The parser refuses more than it does: both are
// made of the same grammar, and only the parser knows the vendors' words.
func Schema() []byte {
	root := schemaOf(shapePolicy)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "jurat appraisal policy"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(root) // maps of text, numbers and the like
	return b.Bytes()
}

type object = map[string]any

func schemaOf(s *shape) object {
	out := object{}
	if s.doc != "" {
		out["description"] = s.doc
	}
	switch s.kind {
	case isText:
		out["type"], out["minLength"] = "string", 1
	case isWord:
		// YAML reads off and on as booleans where it follows its version 1.1; editors may, the parser does not.
		words := []any{}
		for _, c := range s.choices {
			words = append(words, c)
			switch c {
			case "on":
				words = append(words, true)
			case "off":
				words = append(words, false)
			}
		}
		out["enum"] = words
	case isHex:
		out["type"], out["pattern"] = []string{"string", "integer"}, "^([0-9a-fA-F]{2})+$"
	case isNumber:
		out["type"], out["minimum"] = "integer", 0
	case isBool:
		out["type"] = "boolean"
	case isDate:
		out["type"], out["pattern"] = "string", `^\d{4}-\d{2}-\d{2}$`
	case isDuration:
		out["type"], out["pattern"] = "string", `^(\d+d|(\d+(\.\d+)?(h|m|s|ms))+)$`
	case isList:
		out["type"], out["items"], out["minItems"] = "array", schemaOf(s.elem), 1
	case isOwnMap:
		out["type"], out["additionalProperties"] = "object", schemaOf(s.elem)
	case isMap:
		properties, required := object{}, []string{}
		for _, k := range s.keys {
			properties[k.name] = schemaOf(k.shape)
			if k.required {
				required = append(required, k.name)
			}
		}
		if s.components {
			out["patternProperties"] = object{"^(" + strings.Join(components, "|") + ")$": schemaOf(shapeFloor)}
		}
		out["type"], out["properties"], out["additionalProperties"] = "object", properties, false
		if len(required) > 0 {
			out["required"] = required
		}
	case isForms:
		forms := []object{}
		for _, f := range s.forms {
			forms = append(forms, schemaOf(f))
		}
		out["anyOf"] = forms
	}
	return out
}
