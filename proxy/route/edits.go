package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

type editKind uint8

const (
	editAppend editKind = iota
	editAddIfAbsent
	editOverwrite
	editOverwriteIfExists
	editRemove
)

type edit struct {
	kind        editKind
	name, value string
	same        func(a, b string) bool // whether two names are the same
}

// edits are in the order in which they are made.
type edits struct{ request, response []edit }

// then answers the edits of e followed by those of outer.
func (e edits) then(outer edits) edits {
	return edits{slices.Concat(e.request, outer.request), slices.Concat(e.response, outer.response)}
}

// fixedNames belong to the message or the connection, and not to who configures routes.
var fixedNames = [...]string{"host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"}

func (c *compiler) edits(at string, request, response HeaderMutation) edits {
	if at != "" {
		at += "."
	}
	// A client must not get past an edit by another spelling, which the service takes for the same.
	return edits{c.mutation(at+"request_headers", request, message.Alike), c.mutation(at+"response_headers", response, message.Same)}
}

func (c *compiler) mutation(at string, m HeaderMutation, same func(a, b string) bool) []edit {
	var out []edit
	for i, name := range m.Remove {
		c.editable(fmt.Sprintf("%s.remove[%d]", at, i), name)
		out = append(out, edit{kind: editRemove, name: name, same: same})
	}
	for i, s := range m.Set {
		at := fmt.Sprintf("%s.set[%d]", at, i)
		c.editable(at+".name", s.Name)
		if !fieldValue(s.Value) {
			c.bad(at+".value", "control characters or spaces around", "a value of a header")
		}
		kind := editAppend
		switch s.Action {
		case "", "append":
		case "add_if_absent":
			kind = editAddIfAbsent
		case "overwrite":
			kind = editOverwrite
		case "overwrite_if_exists":
			kind = editOverwriteIfExists
		default:
			c.bad(at+".append_action", quote(s.Action), "append, add_if_absent, overwrite or overwrite_if_exists")
		}
		out = append(out, edit{kind: kind, name: s.Name, value: s.Value, same: same})
	}
	return out
}

// editable checks the name of a field that configuration wants to change.
func (c *compiler) editable(at, name string) {
	switch {
	case !token(name):
		c.bad(at, quote(name), "the name of a header")
	case message.Identifies(name):
		c.bad(at, quote(name), "a header that makes no statement about the client or the length: only the proxy itself does")
	case slices.ContainsFunc(fixedNames[:], func(fixed string) bool { return message.Same(name, fixed) }):
		c.bad(at, quote(name), "a header that does not belong to one connection, nor Host (host_rewrite_literal sets that)")
	}
}

// fieldValue reports whether s can be the value of a field.
func fieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return strings.Trim(s, " \t") == s
}

// apply makes the edits in f's memory, and answers what f has become.
func apply(all []edit, f message.Fields) message.Fields {
	for i := range all {
		e := &all[i]
		named := func(name string) bool { return e.same(name, e.name) }
		there := slices.ContainsFunc(f, func(field message.Field) bool { return named(field.Name) })
		switch {
		case e.kind == editAppend, e.kind == editAddIfAbsent && !there:
			f = append(f, message.Field{Name: e.name, Value: e.value})
		case e.kind == editOverwrite, e.kind == editOverwriteIfExists && there:
			f = append(f.Remove(named), message.Field{Name: e.name, Value: e.value})
		case e.kind == editRemove:
			f = f.Remove(named)
		}
	}
	return f
}
