package envoy_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/xds/envoy"
)

// render is a translation as text: what is not zero.
func render(t *envoy.Translation) string {
	var b strings.Builder
	value(&b, "", reflect.ValueOf(t.Config))
	short := func(k envoy.Key) string { return k.Type[strings.LastIndexByte(k.Type, '.')+1:] + " " + k.Name }
	for _, typ := range slices.Sorted(maps.Keys(t.Needs)) {
		fmt.Fprintf(&b, "needs %s: %q\n", typ[strings.LastIndexByte(typ, '.')+1:], t.Needs[typ])
	}
	for _, name := range slices.Sorted(maps.Keys(t.Policies)) {
		fmt.Fprintf(&b, "policy %s: serial %d\n", name, t.Policies[name].Serial)
	}
	for _, name := range slices.Sorted(maps.Keys(t.References)) {
		fmt.Fprintf(&b, "references %s: serial %d\n", name, t.References[name].Serial)
	}
	for _, k := range keys(t.Warming) {
		fmt.Fprintf(&b, "warming %s\n", short(k))
		for _, w := range t.Warming[k] {
			fmt.Fprintf(&b, "  for %s\n", short(w))
		}
	}
	for _, k := range keys(t.Notes) {
		fmt.Fprintf(&b, "notes on %s\n  %s\n", short(k), strings.Join(t.Notes[k], "\n  "))
	}
	for _, k := range keys(t.Problems) {
		fmt.Fprintf(&b, "problem with %s\n  %s\n", short(k), strings.ReplaceAll(t.Problems[k].Error(), "\n", "\n  "))
	}
	return b.String()
}

func keys[V any](m map[envoy.Key]V) []envoy.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b envoy.Key) int {
		return strings.Compare(a.Type+"\x00"+a.Name, b.Type+"\x00"+b.Name)
	})
}

func value(b *strings.Builder, indent string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		value(b, indent, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			switch {
			case f.IsZero():
			case v.Type().Field(i).Anonymous:
				value(b, indent, f)
			case f.Kind() == reflect.Slice && f.Len() == 0:
				fmt.Fprintf(b, "%s%s: none\n", indent, name)
			case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
				for j := range f.Len() {
					fmt.Fprintf(b, "%s%s %d\n", indent, name, j)
					value(b, indent+"  ", f.Index(j))
				}
			case f.Kind() == reflect.Struct, f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
				fmt.Fprintf(b, "%s%s\n", indent, name)
				value(b, indent+"  ", f)
			case f.Kind() == reflect.Pointer:
				fmt.Fprintf(b, "%s%s: %v\n", indent, name, f.Elem().Interface())
			case f.Type() == reflect.TypeFor[time.Duration]():
				fmt.Fprintf(b, "%s%s: %s\n", indent, name, f.Interface())
			case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.String, f.Kind() == reflect.String:
				fmt.Fprintf(b, "%s%s: %q\n", indent, name, f.Interface())
			default:
				fmt.Fprintf(b, "%s%s: %v\n", indent, name, f.Interface())
			}
		}
	default:
		fmt.Fprintf(b, "%s%v\n", indent, v.Interface())
	}
}

// load reads resources for a test.
func load(t testing.TB, text string) envoy.Set {
	t.Helper()
	docs, err := envoy.Load("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	set := envoy.Set{}
	for _, d := range docs {
		set.Add(d.Resource)
	}
	return set
}
