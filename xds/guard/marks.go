package guard

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Versioned is a resource whose versions are in an order.
type Versioned struct {
	Type, Name string
	Serial     uint64 // above 0
	Content    []byte // the same for what means the same
}

// Marks are the highest serials that were accepted. What was taken back stays known by them: an older one is not accepted afterwards
// either. The zero Marks have seen nothing.
type Marks struct{ seen map[markKey]mark }

type markKey struct{ typ, name string }

type mark struct {
	serial uint64
	digest [sha256.Size]byte
}

// MaxMarks is how many resources are known at most. Others are refused after that: none is forgotten.
const MaxMarks = 1 << 15

// Check reports whether none of the resources is older than what was accepted, or something else under the same serial. The error joins
// a *Violation for each, the first 20 of them, whose Part is the last word of the type. Nothing is changed.
func (m *Marks) Check(offered []Versioned) error {
	var k check
	added := map[markKey]mark{}
	for _, v := range offered {
		k.part, k.name = Part(v.Type[strings.LastIndexByte(v.Type, '.')+1:]), v.Name
		now := mark{v.Serial, sha256.Sum256(v.Content)}
		key := markKey{v.Type, v.Name}
		before, known := m.seen[key]
		if again, ok := added[key]; ok {
			before, known = again, true
		}
		added[key] = now
		switch {
		case v.Serial == 0:
			k.add("serial", attest.CodeRollback, "serial", "0", "a number above 0")
		case !known && len(m.seen)+len(added) > MaxMarks:
			k.add("serial", attest.CodeLimitCount, "", "a resource that was not seen before", fmt.Sprintf("at most %d, ever", MaxMarks))
		case now.serial < before.serial:
			k.add("serial", attest.CodeRollback, "serial", strconv.FormatUint(now.serial, 10), "at least "+strconv.FormatUint(before.serial, 10)+", which was accepted")
		case now.serial == before.serial && now.digest != before.digest:
			k.add("serial", attest.CodeRollback, "serial", strconv.FormatUint(now.serial, 10)+", with other content than before", "a serial that grows with every change")
		}
	}
	return errors.Join(k.errs...)
}

// Raise notes what was accepted, and reports whether any of it was new.
func (m *Marks) Raise(accepted []Versioned) (raised bool) {
	if m.seen == nil {
		m.seen = map[markKey]mark{}
	}
	for _, v := range accepted {
		key := markKey{v.Type, v.Name}
		if v.Serial > m.seen[key].serial {
			m.seen[key], raised = mark{v.Serial, sha256.Sum256(v.Content)}, true
		}
	}
	return raised
}

// Clone answers marks that do not change with m.
func (m *Marks) Clone() *Marks { return &Marks{maps.Clone(m.seen)} }

// Len is how many resources are known.
func (m *Marks) Len() int { return len(m.seen) }

// document is what Marks are kept as.
type document struct {
	Marks []entry `json:"marks"`
}

type entry struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Serial uint64 `json:"serial"`
	Digest string `json:"digest"` // SHA-256 of the content, in hex
}

// Encode answers marks as bytes for ParseMarks, the same for the same marks. Whoever can write them where they are kept can take marks
// away: they have to be sealed.
func (m *Marks) Encode() []byte {
	d := document{Marks: make([]entry, 0, len(m.seen))}
	for k, v := range m.seen {
		d.Marks = append(d.Marks, entry{k.typ, k.name, v.serial, hex.EncodeToString(v.digest[:])})
	}
	slices.SortFunc(d.Marks, func(a, b entry) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name)) })
	raw, _ := json.Marshal(d) // texts and numbers
	return raw
}

// maxMarksSize bounds encoded marks in bytes.
const maxMarksSize = 64 << 20

// ParseMarks reads what Encode wrote.
func ParseMarks(raw []byte) (*Marks, error) {
	bad := func(err error) (*Marks, error) {
		return nil, &attest.Error{Code: attest.CodeConfigSyntax, Check: "limits.serial", Got: "marks that cannot be read", Err: err}
	}
	if err := strictjson.Check(raw, strictjson.Limits{Size: maxMarksSize, Depth: 3, Key: func(key string) bool {
		return slices.Contains([]string{"marks", "type", "name", "serial", "digest"}, key)
	}}); err != nil {
		return bad(err)
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return bad(err)
	}
	m := &Marks{seen: map[markKey]mark{}}
	for _, e := range d.Marks {
		digest, _ := hex.DecodeString(e.Digest)
		key := markKey{e.Type, e.Name}
		if _, twice := m.seen[key]; len(digest) != sha256.Size || twice || e.Serial == 0 || len(m.seen) == MaxMarks {
			return bad(fmt.Errorf("the entry of %.100q", e.Name))
		}
		m.seen[key] = mark{e.Serial, [sha256.Size]byte(digest)}
	}
	return m, nil
}
