package public

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
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

// Files are looked at again and again. What is wrong with them is told until it is put right.
func TestFilesRun(t *testing.T) {
	chain, key := pebble.SelfSigned(t, "shop.example")
	var fails atomic.Bool
	f, err := NewFiles(nil, func() ([]byte, []byte, error) {
		if fails.Load() {
			return nil, nil, &attest.Error{Code: attest.CodeConfigValue}
		}
		return chain, key, nil
	}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	fails.Store(true)
	soon(t, "two failures", func() bool { return f.Status()[0].Failures >= 2 })
	if st := f.Status()[0]; attest.CodeOf(st.Err) != attest.CodeConfigValue || st.ErrAt.IsZero() || st.Leaf == nil {
		t.Errorf("%+v", st)
	}
	fails.Store(false)
	soon(t, "all well again", func() bool { return f.Status()[0].Err == nil })
	n := f.Status()[0].Failures
	cancel()
	<-done
	if st := f.Status()[0]; st.Failures != n || st.Obtained != 1 {
		t.Errorf("%+v", st)
	}
}
