// Package strictjson refuses JSON that two readers could read as two different things. encoding/json takes the last of
// repeated keys, and takes "TCBINFO" for "tcbInfo"; a reader that verified a signature over one key and decoded another
// would believe what nobody signed.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrDuplicate is within the error for a key that occurs twice in one object, whether or not in the same case.
var ErrDuplicate = errors.New("twice")

// Limits are what a document may be like at most.
type Limits struct {
	Size  int               // in bytes
	Depth int               // of objects and arrays within one another
	Key   func(string) bool // whether a key is acceptable as it is spelt; all of them have passed as printable ASCII
}

// Check reports why raw is not exactly one JSON value within limits, every object of which has each key once.
func Check(raw []byte, limits Limits) error {
	if len(raw) > limits.Size {
		return fmt.Errorf("%d bytes, more than %d", len(raw), limits.Size)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := limits.value(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the document")
	}
	return nil
}

func (l *Limits) value(dec *json.Decoder, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth == l.Depth {
		return fmt.Errorf("nested deeper than %d", l.Depth)
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			if err := l.key(dec, seen); err != nil {
				return err
			}
		}
		if err := l.value(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func (l *Limits) key(dec *json.Decoder, seen map[string]bool) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	key, _ := tok.(string)
	for _, c := range []byte(key) {
		// encoding/json folds letters outside ASCII too: it takes "\u017f" for "s".
		if c < ' ' || c > '~' {
			return fmt.Errorf("key %.40q", key)
		}
	}
	if !l.Key(key) {
		return fmt.Errorf("key %.40q", key)
	}
	folded := strings.ToLower(key)
	if seen[folded] {
		return fmt.Errorf("key %.40q %w", key, ErrDuplicate)
	}
	seen[folded] = true
	return nil
}
