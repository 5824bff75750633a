package endorse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Entry is one answer of a vendor's service: what was asked, when, and what came. It is what the cache keeps in a file and
// what a Bundle consists of.
type Entry struct {
	Ref          attest.Ref
	Fetched      time.Time
	Endorsements []attest.Endorsement
}

// entryJSON is an Entry in a file: a fixed order of keys, bytes in base64.
type entryJSON struct {
	Service      string            `json:"service"`
	Path         string            `json:"path"`
	Kind         string            `json:"kind"`
	Fetched      time.Time         `json:"fetched"`
	Endorsements []endorsementJSON `json:"endorsements"`
}

type endorsementJSON struct {
	Kind string `json:"kind"`
	Raw  []byte `json:"raw"`
}

func (e *Entry) pack() entryJSON {
	out := entryJSON{Service: e.Ref.Service, Path: e.Ref.Path, Kind: string(e.Ref.Kind), Fetched: e.Fetched.UTC().Round(0)}
	for _, one := range e.Endorsements {
		out.Endorsements = append(out.Endorsements, endorsementJSON{string(one.Kind), one.Raw})
	}
	return out
}

func (e *entryJSON) unpack() (Entry, error) {
	out := Entry{Ref: attest.Ref{Service: e.Service, Path: e.Path, Kind: attest.Kind(e.Kind)}, Fetched: e.Fetched.UTC()}
	for _, one := range e.Endorsements {
		out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.Kind(one.Kind), Raw: one.Raw})
	}
	_, err := out.Expires()
	return out, err
}

// Expires is the first moment at which something in the entry is no longer valid. An error means that the entry is not what
// a service answers; such a one has expired at all times.
func (e *Entry) Expires() (time.Time, error) {
	if len(e.Endorsements) > attest.MaxEndorsements {
		return time.Time{}, fmt.Errorf("%d endorsements, more than %d", len(e.Endorsements), attest.MaxEndorsements)
	}
	var first time.Time
	asked := false
	for i, one := range e.Endorsements {
		if len(one.Raw) > attest.MaxEndorsement {
			return time.Time{}, fmt.Errorf("an endorsement of %d bytes, more than %d", len(one.Raw), attest.MaxEndorsement)
		}
		end, err := expiry(one)
		if err != nil {
			return time.Time{}, err
		}
		if i == 0 || end.Before(first) {
			first = end
		}
		asked = asked || one.Kind == e.Ref.Kind
	}
	if !asked {
		return time.Time{}, errors.New("no " + string(e.Ref.Kind) + " among the endorsements")
	}
	return first, nil
}

func decodeEntry(raw []byte) (Entry, error) {
	var in entryJSON
	if err := strict(raw, &in); err != nil {
		return Entry{}, err
	}
	return in.unpack()
}

// strict decodes one JSON value that holds nothing unknown.
func strict(raw []byte, into any) error {
	if !json.Valid(raw) { // the decoder alone would not see what follows the value
		return errors.New("not one JSON value")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}
