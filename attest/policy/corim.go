package policy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Tags and labels of an unsigned CoRIM (draft-ietf-rats-corim). Its signed form is not read: whoever put the file beside
// the policy vouches for both.
const (
	tagCoRIM       = 501
	tagCoMID       = 506
	tagRaw         = 560
	tagTime        = 1
	corimTags      = 1
	corimValidity  = 4
	notBefore      = 0
	notAfter       = 1
	comidIdentity  = 1
	comidTriples   = 4
	referenceOnes  = 0
	environment    = 0 // class of an environment
	classModel     = 2
	measurementKey = 0
	measurementVal = 1
	valueDigests   = 2
	valueRaw       = 4
	valueRegisters = 14
)

var corimLimits = strictcbor.Limits{Depth: 16, Items: maxReferences, AnyLength: true}

// isCoRIM tells CBOR from text: tag 501, in the only way to write it.
func isCoRIM(raw []byte) bool { return bytes.HasPrefix(raw, []byte{0xd9, 0x01, 0xf5}) }

// readCoRIM reads the reference values of a CoRIM: one set for each reference triple, whose registers are the measurement
// keys that are text, and the integrity registers, of which number n is pcrN. What it cannot read it refuses: a reference
// value that is left out would accept more than its writer meant.
func readCoRIM(raw []byte) ([]set, error) {
	v, err := strictcbor.Parse(raw, corimLimits)
	if err != nil {
		return nil, err
	}
	_, corim, _ := v.Tag()
	window, err := validity(corim.Get(corimValidity))
	if err != nil {
		return nil, err
	}
	var all []set
	tags, _ := corim.Get(corimTags).Array()
	for _, t := range tags {
		number, content, _ := t.Tag()
		if number != tagCoMID {
			return nil, fmt.Errorf("a tag of kind %d: only CoMID (506) is read", number)
		}
		body, _ := content.Bytes() // what is no byte string is empty, which Parse refuses
		mid, err := strictcbor.Parse(body, corimLimits)
		if err != nil {
			return nil, err
		}
		triples := mid.Get(comidTriples)
		for i := range triples.Len() {
			key, list := triples.Entry(i)
			if n, ok := key.Uint(); !ok || n != referenceOnes {
				return nil, fmt.Errorf("triples of kind %s: only reference values are read", key)
			}
			some, err := referenceTriples(mid, list)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	if len(all) == 0 || len(all) > maxReferences {
		return nil, fmt.Errorf("%d reference triples", len(all))
	}
	for i := range all {
		all[i].terms = window
	}
	return all, nil
}

// validity reads a validity-map: how long the values count. Without one they do always.
func validity(v strictcbor.Value) (window terms, err error) {
	if !v.Present() {
		return window, nil
	}
	if v.Get(notBefore).Present() {
		if window.from, err = seconds(v.Get(notBefore)); err != nil {
			return window, err
		}
	}
	last, err := seconds(v.Get(notAfter))
	if err != nil {
		return window, err
	}
	if last.Before(window.from) {
		return window, errors.New("a validity that ends before it begins")
	}
	window.until = last.Add(time.Second)
	return window, nil
}

// seconds reads a time of whole seconds (RFC 8949 §3.4.2).
func seconds(v strictcbor.Value) (time.Time, error) {
	number, content, _ := v.Tag()
	n, ok := content.Uint()
	if number != tagTime || !ok || n > math.MaxUint32 {
		return time.Time{}, errors.New("a validity that is no time in seconds")
	}
	return time.Unix(int64(n), 0).UTC(), nil
}

func referenceTriples(mid, list strictcbor.Value) ([]set, error) {
	triples, _ := list.Array()
	var all []set
	for i, t := range triples {
		pair, _ := t.Array()
		if len(pair) != 2 {
			return nil, errors.New("a reference triple that is no pair")
		}
		if !only(pair[0], environment) { // an instance or a group, whose values are not those of others
			return nil, fmt.Errorf("reference triple %d: an environment with more than a class", i+1)
		}
		name, _ := mid.Get(comidIdentity).Get(0).Text()
		model, _ := pair[0].Get(environment).Get(classModel).Text()
		if name = strings.TrimSpace(name + " " + model); name == "" {
			name = fmt.Sprintf("reference triple %d", i+1)
		}
		s := set{name: name, text: name, registers: map[string][]byte{}}
		measurements, _ := pair[1].Array()
		for _, m := range measurements {
			if err := s.measurement(m); err != nil {
				return nil, fmt.Errorf("%.60q: %w", name, err)
			}
		}
		if len(s.registers) == 0 {
			return nil, fmt.Errorf("%.60q: no register", name)
		}
		all = append(all, s)
	}
	return all, nil
}

// only reports whether a map has no labels but these. What is no map has none.
func only(m strictcbor.Value, labels ...uint64) bool {
	for i := range m.Len() {
		label, _ := m.Entry(i)
		if n, ok := label.Uint(); !ok || !slices.Contains(labels, n) {
			return false
		}
	}
	return true
}

// measurement reads one measurement-map. A key that is no text names no register, and neither does "".
func (s *set) measurement(m strictcbor.Value) error {
	if !only(m, measurementKey, measurementVal) {
		return errors.New("a measurement with more than a key and a value")
	}
	key := m.Get(measurementKey)
	value := m.Get(measurementVal)
	if value.Len() == 0 { // nothing, or no map: the register it was meant to name would not be compared
		return errors.New("a measurement without a value")
	}
	for i := range value.Len() {
		label, v := value.Entry(i)
		switch n, _ := label.Uint(); n {
		case valueDigests:
			name, _ := key.Text()
			if err := s.digests(name, v); err != nil {
				return err
			}
		case valueRaw:
			name, _ := key.Text()
			number, content, _ := v.Tag()
			if number != tagRaw {
				return errors.New("a raw value of another kind")
			}
			raw, _ := content.Bytes()
			if err := s.register(name, raw); err != nil {
				return err
			}
		case valueRegisters:
			if v.Len() == 0 {
				return errors.New("integrity registers of which there is none")
			}
			for j := range v.Len() {
				register, digests := v.Entry(j)
				name, _ := register.Text()
				if n, isNumber := register.Uint(); isNumber {
					name = fmt.Sprintf("pcr%d", n)
				}
				if err := s.digests(name, digests); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("a measured value of kind %s", label)
		}
	}
	return nil
}

// digests reads [[algorithm, value]], of which there is one: a register has one value.
func (s *set) digests(name string, v strictcbor.Value) error {
	list, _ := v.Array()
	if len(list) != 1 {
		return fmt.Errorf("%.40q has %d digests, not one", name, len(list))
	}
	pair, _ := list[0].Array()
	if len(pair) != 2 {
		return errors.New("a digest that is no pair")
	}
	raw, _ := pair[1].Bytes()
	return s.register(name, raw)
}

// register adds a register. It refuses the empty name and the empty value, and so what was no text or no byte string.
func (s *set) register(name string, raw []byte) error {
	switch {
	case !namePattern.MatchString(name):
		return fmt.Errorf("register %.40q", name)
	case len(raw) < 20 || len(raw) > 64 || bytes.Count(raw, []byte{0}) == len(raw):
		return fmt.Errorf("%s: a value of %d bytes, or of zeros", name, len(raw))
	case s.registers[name] != nil:
		return fmt.Errorf("%s twice", name)
	}
	s.registers[name] = bytes.Clone(raw)
	return nil
}
