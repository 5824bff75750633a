package public

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/test/pebble"
)

// What is wrong with files that were replaced costs nothing, and what is right with them is taken.
func TestFilesReplaced(t *testing.T) {
	chain, key := pebble.SelfSigned(t, "shop.example")
	var fails error
	var log bytes.Buffer
	f, err := NewFiles([]string{"shop.example"}, func() ([]byte, []byte, error) { return chain, key, fails }, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := f.Certificate("shop.example")
	same := func() bool {
		now, err := f.Certificate("shop.example")
		return err == nil && now.Leaf.Equal(first.Leaf)
	}
	_, otherKey := pebble.SelfSigned(t, "shop.example")
	oldKey := key
	if key = otherKey; f.look() == nil || !same() {
		t.Fatal("a key of another certificate")
	}
	oldChain := chain
	if chain, key = pebble.SelfSigned(t, "other.example"); f.look() == nil || !same() {
		t.Fatal("a certificate for another name")
	}
	chain, key = oldChain, oldKey
	if fails = errors.New("gone"); f.look() == nil || !same() {
		t.Fatal("no file")
	}
	fails = nil
	if chain, key = pebble.SelfSigned(t, "shop.example"); f.look() != nil || same() {
		t.Fatal("another certificate is not taken")
	}
	if err := f.look(); err != nil { // the same again
		t.Fatal(err)
	}
	more, _ := pebble.SelfSigned(t, "shop.example")
	if chain = append(bytes.Clone(chain), more...); f.look() != nil {
		t.Fatal("another chain under the same key")
	}
	if cert, err := f.Certificate("shop.example"); err != nil || len(cert.Certificate) != 2 {
		t.Fatal("another chain under the same key is not taken", err)
	}
	if n := strings.Count(log.String(), "new public certificate"); n != 3 {
		t.Errorf("told of %d", n)
	}
	if st := f.Status()[0]; st.Obtained != 3 || st.Name != "shop.example" || st.Err != nil {
		t.Fatalf("%+v", st)
	}
}
