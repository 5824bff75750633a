package endorse

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// MaxBundle bounds a bundle in bytes.
const MaxBundle = 16 << 20

// The key by which a bundle is known, and its version.
const (
	bundleKey     = "jurat_endorsements"
	bundleVersion = 1
)

// Bundle is a file of endorsements for a place that cannot reach the vendors. Nothing in it is trusted: the verifier checks
// everything as if it had come from the network.
type Bundle struct{ Entries []Entry }

type bundleJSON struct {
	Version int         `json:"jurat_endorsements"`
	Entries []entryJSON `json:"entries"`
}

// Encode writes a bundle. The same entries give the same bytes, in whatever order they were fetched; of two answers to one
// question the later stays.
func (b *Bundle) Encode() ([]byte, error) {
	entries := slices.Clone(b.Entries)
	slices.SortStableFunc(entries, func(a, b Entry) int {
		return cmp.Or(order(a.Ref, b.Ref), b.Fetched.Compare(a.Fetched))
	})
	entries = slices.CompactFunc(entries, func(a, b Entry) bool { return a.Ref == b.Ref })
	out := bundleJSON{Version: bundleVersion, Entries: []entryJSON{}}
	for _, e := range entries {
		out.Entries = append(out.Entries, e.pack())
	}
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err := enc.Encode(out)
	_, unreadable := DecodeBundle(raw.Bytes()) // never write what cannot be read
	return raw.Bytes(), cmp.Or(err, unreadable)
}

func order(a, b attest.Ref) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind))
}

// DecodeBundle reads a bundle.
func DecodeBundle(raw []byte) (*Bundle, error) {
	b, err := decodeBundle(raw)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "endorsements", Err: err}
	}
	return b, nil
}

func decodeBundle(raw []byte) (*Bundle, error) {
	if len(raw) > MaxBundle {
		return nil, fmt.Errorf("a bundle of more than %d bytes", MaxBundle)
	}
	var in bundleJSON
	if err := strict(raw, &in); err != nil {
		return nil, err
	}
	if in.Version != bundleVersion {
		return nil, fmt.Errorf("bundle version %d, not %d", in.Version, bundleVersion)
	}
	if len(in.Entries) > maxParsed {
		return nil, fmt.Errorf("a bundle of %d entries, more than %d", len(in.Entries), maxParsed)
	}
	b := new(Bundle)
	for i := range in.Entries {
		e, err := in.Entries[i].unpack()
		if err != nil {
			return nil, fmt.Errorf("%.40q %.200q: %w", in.Entries[i].Service, in.Entries[i].Path, err)
		}
		b.Entries = append(b.Entries, e)
	}
	return b, nil
}

func parseBundle(raw []byte) ([]attest.Endorsement, error) {
	b, err := decodeBundle(raw)
	if err != nil {
		return nil, err
	}
	var list []attest.Endorsement
	for _, e := range b.Entries {
		list = append(list, e.Endorsements...)
	}
	return unique(list), nil
}

// Import puts a bundle into the cache at dir, where a Service finds it, and answers which entries it took: those that are
// valid at now, unless the cache has a later answer.
func (b *Bundle) Import(dir string, now time.Time) ([]Entry, error) {
	c, err := newCache(dir)
	if err != nil {
		return nil, err
	}
	var taken []Entry
	for _, e := range b.Entries {
		if end, _ := e.Expires(); now.After(end) {
			continue
		}
		// What claims to come from the future is no later than anything.
		if have, _ := c.read(e.Ref); have.Fetched.After(e.Fetched) && !have.Fetched.After(now) {
			continue
		}
		if err := c.write(&e); err != nil {
			return taken, &attest.Error{Code: attest.CodeConfigValue, Check: "endorser", Subject: dir, Want: "a directory to cache endorsements in", Err: err}
		}
		taken = append(taken, e)
	}
	return taken, nil
}
