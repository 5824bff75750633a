package attest_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Claims that differ in anything a policy may look at are not of one Kind. A field that is new is one of those until it is said here that it
// belongs to one piece of evidence alone.
func TestKind(t *testing.T) {
	evidence := []string{"ReportData", "Made", "Folded", "Checks", "NotChecked"}
	var walk func(path string, at func(*attest.Claims) reflect.Value, typ reflect.Type)
	set := func(path string, at func(*attest.Claims) reflect.Value, values ...any) {
		a, b := new(attest.Claims), new(attest.Claims)
		for _, value := range values {
			at(b).Set(reflect.ValueOf(value).Convert(at(b).Type()))
			if want := slices.Contains(evidence, path); (a.Kind() == b.Kind()) != want {
				t.Errorf("%s: %v and %v are of one kind: %v", path, at(a), at(b), !want)
			}
			if at(a).Set(reflect.ValueOf(value).Convert(at(a).Type())); a.Kind() != b.Kind() {
				t.Errorf("%s: the same %v is of another kind", path, value)
			}
		}
	}
	one, two, three, four := uint64(1), uint64(2), 3, 4
	walk = func(path string, at func(*attest.Claims) reflect.Value, typ reflect.Type) {
		switch reflect.Zero(typ).Interface().(type) {
		case attest.Provenance, attest.Revocation:
			for i := range typ.NumField() {
				walk(typ.Field(i).Name, func(c *attest.Claims) reflect.Value { return at(c).Field(i) }, typ.Field(i).Type)
			}
		case string:
			set(path, at, "x", "y")
		case bool:
			set(path, at, true)
		case int:
			set(path, at, 1, 2)
		case attest.Flag:
			set(path, at, attest.On, attest.Off)
		case time.Time:
			set(path, at, now, now.Add(1))
		case attest.HexBytes:
			set(path, at, attest.HexBytes{1}, attest.HexBytes{2}, attest.HexBytes{2, 1})
		case attest.ReportData:
			set(path, at, attest.ReportData{1}, attest.ReportData{2})
		case []string:
			set(path, at, []string{"a"}, []string{"b"}, []string{"b", "a"})
		case []attest.Check:
			set(path, at, []attest.Check{pass("a")})
		case attest.TCB:
			set(path, at, attest.TCB{"a": 1}, attest.TCB{"a": 2}, attest.TCB{"b": 2})
		case map[string]uint64:
			set(path, at, map[string]uint64{"a": 1}, map[string]uint64{"a": 2}, map[string]uint64{"b": 2})
		case map[string]attest.Flag:
			set(path, at, map[string]attest.Flag{"a": attest.On}, map[string]attest.Flag{"a": attest.Off}, map[string]attest.Flag{"b": attest.Off})
		case map[string]attest.HexBytes:
			set(path, at, map[string]attest.HexBytes{"a": {1}}, map[string]attest.HexBytes{"a": {2}}, map[string]attest.HexBytes{"b": {2}})
		case *uint64:
			set(path, at, &one, &two)
		case *int:
			set(path, at, &three, &four)
		case *attest.Error:
			set(path, at, &attest.Error{Code: attest.CodeRevoked}, &attest.Error{Code: attest.CodeDebug})
		default:
			t.Errorf("%s is of a type that nothing is known about: %s", path, typ)
		}
	}
	typ := reflect.TypeFor[attest.Claims]()
	for i := range typ.NumField() {
		walk(typ.Field(i).Name, func(c *attest.Claims) reflect.Value { return reflect.ValueOf(c).Elem().Field(i) }, typ.Field(i).Type)
	}
	if none := (*attest.Claims)(nil); none.Kind() != [32]byte{} || new(attest.Claims).Kind() == [32]byte{} {
		t.Error("no claims are of a kind")
	}
	a, b := uint64(5), uint64(5)
	if (&attest.Claims{Evaluation: &a}).Kind() != (&attest.Claims{Evaluation: &b}).Kind() {
		t.Error("numbers are compared by where they are")
	}
	// What is next to each other is not one thing.
	if (&attest.Claims{Vendor: "ab", TEE: "c"}).Kind() == (&attest.Claims{Vendor: "a", TEE: "bc"}).Kind() || (&attest.Claims{TCB: attest.TCB{"a": 1}}).Kind() == (&attest.Claims{Numbers: map[string]uint64{"a": 1}}).Kind() {
		t.Error("claims that say other things are of one kind")
	}
}
