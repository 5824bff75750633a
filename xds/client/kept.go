package client

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// What is kept is a header with the version of the format, and then for each type: its URL, the version, the number of resources,
// and for each of those its name, version, number of aliases, aliases and body. Numbers and lengths are uvarints.
const header = "jurat xds kept 1\n"

func encode(all []protocol.Kept) []byte {
	size := len(header) + 10
	for i := range all {
		size += len(all[i].Type) + len(all[i].Version) + 30
		for j := range all[i].Resources {
			r := &all[i].Resources[j]
			size += len(r.Name) + len(r.Version) + len(r.Body) + 40
			for _, a := range r.Aliases {
				size += len(a) + 10
			}
		}
	}
	b := append(make([]byte, 0, size), header...)
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	text := func(s string) { number(len(s)); b = append(b, s...) }
	number(len(all))
	for i := range all {
		text(all[i].Type)
		text(all[i].Version)
		number(len(all[i].Resources))
		for j := range all[i].Resources {
			r := &all[i].Resources[j]
			text(r.Name)
			text(r.Version)
			number(len(r.Aliases))
			for _, a := range r.Aliases {
				text(a)
			}
			number(len(r.Body))
			b = append(b, r.Body...)
		}
	}
	return b
}

// decode reads what encode wrote, with as little faith as in anything else: whoever sealed it may have been another build.
func decode(raw []byte, limits Limits) (all []protocol.Kept, err error) {
	broken := func(what string) error { return &attest.Error{Code: attest.CodeXDSKept, Got: what} }
	if len(raw) < len(header) || string(raw[:len(header)]) != header {
		return nil, broken("another format")
	}
	d := decoder{rest: raw[len(header):]}
	for range d.count(limits.Types, 3) {
		k := protocol.Kept{Type: d.text(resource.MaxType), Version: d.text(resource.MaxVersion)}
		for range d.count(limits.Resources, 4) {
			r := resource.Resource{Type: k.Type, Name: d.text(resource.MaxName), Version: d.text(resource.MaxVersion)}
			for range d.count(resource.MaxAliases, 1) {
				r.Aliases = append(r.Aliases, d.text(resource.MaxName))
			}
			r.Body = bytes.Clone(d.bytes(resource.MaxBody))
			if d.bad != "" {
				return nil, broken(d.bad)
			}
			if err := r.Validate(); err != nil {
				return nil, broken(err.Error())
			}
			k.Resources = append(k.Resources, r)
		}
		all = append(all, k)
	}
	if d.bad == "" && len(d.rest) > 0 {
		d.bad = fmt.Sprintf("%d bytes too many", len(d.rest))
	}
	if d.bad != "" {
		return nil, broken(d.bad)
	}
	return all, nil
}

type decoder struct {
	rest []byte
	bad  string // what is wrong, once something is
}

func (d *decoder) number() int {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > math.MaxInt32 {
		d.bad = "a number that is cut short or too large"
	}
	if d.bad != "" {
		return 0
	}
	d.rest = d.rest[size:]
	return int(n)
}

// count reads how many of something follow, each of which takes least bytes.
func (d *decoder) count(most, least int) int {
	n := d.number()
	if d.bad == "" && (n > most || n > len(d.rest)/least) {
		d.bad = fmt.Sprintf("%d of something, of at most %d", n, min(most, len(d.rest)/least))
	}
	if d.bad != "" {
		return 0
	}
	return n
}

func (d *decoder) bytes(most int) []byte {
	n := d.number()
	if d.bad == "" && (n > most || n > len(d.rest)) {
		d.bad = fmt.Sprintf("%d bytes of something, of at most %d", n, min(most, len(d.rest)))
	}
	if d.bad != "" {
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) text(most int) string { return string(d.bytes(most)) }
