package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/pattern"
	"github.com/jurat-tls/jurat/proxy/redact"
)

const (
	anyType    = "@type"
	structType = "type.googleapis.com/google.protobuf.Struct"
	adminTypes = "type.googleapis.com/envoy.admin.v3."
)

// elements are the repeated fields that ?resource= can name, with the type of what is in them.
var elements = map[string]string{
	"static_listeners": "ListenersConfigDump.StaticListener", "dynamic_listeners": "ListenersConfigDump.DynamicListener",
	"static_clusters": "ClustersConfigDump.StaticCluster", "dynamic_active_clusters": "ClustersConfigDump.DynamicCluster", "dynamic_warming_clusters": "ClustersConfigDump.DynamicCluster",
	"static_route_configs": "RoutesConfigDump.StaticRouteConfig", "dynamic_route_configs": "RoutesConfigDump.DynamicRouteConfig",
	"static_secrets": "SecretsConfigDump.StaticSecret", "dynamic_active_secrets": "SecretsConfigDump.DynamicSecret", "dynamic_warming_secrets": "SecretsConfigDump.DynamicSecret",
	"static_endpoint_configs": "EndpointsConfigDump.StaticEndpointConfig", "dynamic_endpoint_configs": "EndpointsConfigDump.DynamicEndpointConfig",
}

// configDump shows what Envoy would, and after that what runs in words of our own: as a Struct, which whoever reads a ConfigDump knows.
func (a *api) configDump(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	only, err := readSelection(query.Get("resource"), query.Get("mask"), query.Get("name_regex"))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if only.field != "" && elements[only.field] == "" {
		fail(w, http.StatusNotFound, "no field of a ConfigDump that repeats is called so: "+printable(only.field))
		return
	}
	configs, err := a.configs(only, query.Has("include_eds"))
	if err != nil {
		code := attest.CodeOf(err)
		fail(w, http.StatusInternalServerError, code.Title()+" ("+string(code)+")")
		return
	}
	writeJSON(w, map[string]any{"configs": configs})
}

func (a *api) configs(only *selection, endpoints bool) ([]any, error) {
	out := []any{}
	if a.source.Configs != nil {
		configs, err := a.source.Configs(endpoints)
		if err != nil {
			return nil, err
		}
		for _, raw := range configs {
			if only.all() {
				out = append(out, raw)
				continue
			}
			v, err := plain(raw)
			if err != nil {
				return nil, err
			}
			message, _ := v.(map[string]any)
			out = append(out, only.of(message)...)
		}
	}
	if !only.all() {
		return out, nil
	}
	own, err := a.source.ConfigDump()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	v, err := plain(raw)
	if err != nil {
		return nil, err
	}
	return append(out, map[string]any{anyType: structType, "value": map[string]any{"jurat": redact.Value(v)}}), nil
}

// plain is JSON as maps, lists and texts, with numbers as they are written.
func plain(raw []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}

// selection is what is asked for of a dump.
type selection struct {
	field string         // ?resource=
	mask  [][]string     // ?mask=, a google.protobuf.FieldMask
	name  *regexp.Regexp // ?name_regex=
}

func (s *selection) all() bool { return s.field == "" && s.mask == nil && s.name == nil }

type badQuery string

func (b badQuery) Error() string { return string(b) }

func readSelection(field, mask, name string) (*selection, error) {
	s := &selection{field: field}
	if mask != "" {
		for path := range strings.SplitSeq(mask, ",") {
			parts := strings.Split(path, ".")
			for _, p := range parts {
				if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
					return nil, badQuery("mask is a list of paths such as cluster.name, with commas between them")
				}
			}
			s.mask = append(s.mask, parts)
		}
	}
	if name != "" {
		re, _, err := pattern.Compile(name, true, pattern.Most)
		if err != nil {
			return nil, badQuery("name_regex is " + err.Error())
		}
		s.name = re
	}
	return s, nil
}

// of answers what is selected of a message: nothing where none of it is.
func (s *selection) of(message map[string]any) (out []any) {
	if s.field == "" {
		for field := range message {
			if list, ok := message[field].([]any); ok && s.name != nil {
				if message[field] = s.named(list); len(message[field].([]any)) == 0 {
					delete(message, field)
				}
			}
		}
		if kept := s.masked(message); len(kept) > 1 || s.mask == nil {
			out = append(out, kept)
		}
		return out
	}
	list, _ := message[s.field].([]any)
	for _, e := range s.named(list) {
		if e, ok := e.(map[string]any); ok {
			e[anyType] = adminTypes + elements[s.field]
			out = append(out, s.masked(e))
		}
	}
	return out
}

// named answers the elements whose name is asked for.
func (s *selection) named(list []any) []any {
	if s.name == nil {
		return list
	}
	kept := []any{}
	for _, e := range list {
		e, _ := e.(map[string]any)
		name, ok := e["name"].(string)
		for _, field := range []string{"cluster", "route_config", "endpoint_config"} {
			if inner, there := e[field].(map[string]any); there && !ok {
				if name, ok = inner["name"].(string); !ok {
					name, ok = inner["cluster_name"].(string)
				}
			}
		}
		if ok && s.name.MatchString(name) {
			kept = append(kept, e)
		}
	}
	return kept
}

// masked answers what a mask leaves of a message; its type stays.
func (s *selection) masked(message map[string]any) map[string]any {
	if s.mask == nil {
		return message
	}
	kept := map[string]any{}
	for _, path := range s.mask {
		copyPath(kept, message, path)
	}
	if typ, ok := message[anyType]; ok {
		kept[anyType] = typ
	}
	return kept
}

// copyPath copies what is at a path. It does not go through lists, as a FieldMask does not.
func copyPath(to, from map[string]any, path []string) {
	v, ok := from[path[0]]
	if !ok {
		return
	}
	inner, message := v.(map[string]any)
	if len(path) == 1 {
		to[path[0]] = v
		return
	}
	if !message {
		return
	}
	into, ok := to[path[0]].(map[string]any)
	if !ok {
		into = map[string]any{}
		if typ, ok := inner[anyType]; ok {
			into[anyType] = typ
		}
	}
	copyPath(into, inner, path[1:])
	to[path[0]] = into
}
