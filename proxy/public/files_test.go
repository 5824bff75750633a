package public

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/test/pebble"
)

// What is wrong with files that were replaced costs nothing, and what is right with them is taken.
func TestFilesReplaced(t *testing.T) {
	chain, key := pebble.SelfSigned(t, "shop.example")
	var fails error
	f, err := NewFiles([]string{"shop.example"}, func() ([]byte, []byte, error) { return chain, key, fails }, time.Now, slog.New(slog.DiscardHandler))
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
	if st := f.Status()[0]; st.Obtained != 2 || st.Name != "shop.example" || st.Err != nil {
		t.Fatalf("%+v", st)
	}
}
