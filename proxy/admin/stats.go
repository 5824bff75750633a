package admin

import (
	"math"
	"net/http"
	"runtime/metrics"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/proxy/pattern"
)

func (a *api) stats(w http.ResponseWriter, r *http.Request) {
	kind, ok := format(w, r, "text", "json", "prometheus")
	if !ok {
		return
	}
	if kind == "prometheus" {
		if a.source.Metrics == nil {
			fail(w, http.StatusNotFound, "not here; see /help")
			return
		}
		a.source.Metrics.ServeHTTP(w, r)
		return
	}
	query := r.URL.Query()
	filter := query.Get("filter")
	matches, _, err := pattern.Compile(filter, false, pattern.Most)
	if err != nil {
		fail(w, http.StatusBadRequest, "filter is "+err.Error())
		return
	}
	type stat struct {
		Name  string   `json:"name"`
		Value *float64 `json:"value"` // null for what JSON has no number for
	}
	all := []stat{}
	used := query.Has("usedonly")
	a.source.Stats(func(name string, value float64) {
		if !matches.MatchString(name) || used && value == 0 {
			return
		}
		s := stat{Name: name}
		if !math.IsNaN(value) && !math.IsInf(value, 0) {
			s.Value = &value
		}
		all = append(all, s)
	})
	if kind == "json" {
		writeJSON(w, map[string]any{"stats": all})
		return
	}
	var b strings.Builder
	for _, s := range all {
		value := "-"
		if s.Value != nil {
			value = strconv.FormatFloat(*s.Value, 'f', -1, 64)
		}
		b.WriteString(printable(s.Name) + ": " + value + "\n")
	}
	writeText(w, b.String())
}

func (a *api) prometheus(w http.ResponseWriter, r *http.Request) { a.source.Metrics.ServeHTTP(w, r) }

// memory has Envoy's names. Reading it stops nothing.
func (a *api) memory(w http.ResponseWriter, _ *http.Request) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/total:bytes"},
	}
	metrics.Read(samples)
	n := make([]uint64, len(samples))
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			n[i] = s.Value.Uint64()
		}
	}
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	writeJSON(w, map[string]string{
		"allocated": text(n[0]), "heap_size": text(n[0] + n[1] + n[2]), "pageheap_free": text(n[2]), "pageheap_unmapped": text(n[3]),
		"total_physical_bytes": text(n[4] - n[3]),
	})
}
