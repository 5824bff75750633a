package main

import (
	"fmt"
	"reflect"
	"strings"
)

// unsafeChoice is a value of the configuration whose name says that it gives something up.
type unsafeChoice struct {
	at    string // its place, such as "listen[0].unsafe_to"
	means string // what docs/config.md says of it
}

// unsafeChoices finds those in a part of the configuration that is at a place; "" is all of it.
func unsafeChoices(at string, v reflect.Value) []unsafeChoice {
	var all []unsafeChoice
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return unsafeChoices(at, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, unsafeChoices(fmt.Sprintf("%s[%d]", at, i), v.Index(i))...)
		}
	case reflect.Struct:
		owner := v.Type().String()
		for f, v := range v.Fields() {
			key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case !f.IsExported(), key == "-", key == "" && options != "inline":
			case !strings.HasPrefix(key, "unsafe_"):
				all = append(all, unsafeChoices(strings.Trim(at+"."+key, "."), v)...)
			case !v.IsZero():
				all = append(all, unsafeChoice{at: at + "." + key, means: comments[owner+"."+f.Name]})
			}
		}
	}
	return all
}
