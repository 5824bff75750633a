package evlog

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest/merkle"
)

func begun(t *testing.T) (*Log, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.TempDir(), key, DefaultLimits, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return l, key
}

func (l *Log) mustAppend(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := l.Append([]byte(text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// fails checks what is said about a disk that fails.
func fails(t *testing.T, err error, reason string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("got %v, want %s", err, reason)
	}
}

func closed(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "closed"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return f
}

// A disk that was full for a moment loses the record that did not fit, and no other.
func TestFullDisk(t *testing.T) {
	l, _ := begun(t)
	full, err := os.Open(os.DevNull) // refuses to be written to
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	l.mustAppend(t, "one")
	hashes := l.hashes
	l.hashes = full
	_, err = l.Append([]byte("does not fit"))
	fails(t, err, "write ")
	l.hashes = hashes
	l.mustAppend(t, "two")
	segment := l.segment
	l.segment = full
	_, err = l.Append([]byte("does not fit either"))
	fails(t, err, "write ")
	l.segment = segment
	heads := l.heads
	l.heads = full
	fails(t, l.Commit(), "write ")
	l.heads = heads
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	l.mustAppend(t, "three")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := Check(l.dir, UnsafeTrustAnybody())
	if err != nil || a.Kept != 3 {
		t.Fatalf("%+v, %v", a, err)
	}
}

// A disk that fails is told of, and nothing counts as kept that it did not keep.
func TestFailingDisk(t *testing.T) {
	for name, c := range map[string]struct {
		act    func(*testing.T, *Log) error
		reason string
	}{
		"a segment that can't be ended": {func(t *testing.T, l *Log) error {
			l.segment = closed(t)
			return l.roll()
		}, "sync "},
		"none for the next record": {func(t *testing.T, l *Log) error {
			l.limits.Segment, l.segment = 1, closed(t)
			_, err := l.Append([]byte("two"))
			return err
		}, "sync "},
		"leaves that can't be mended": {func(t *testing.T, l *Log) error {
			l.torn, l.hashes = true, closed(t)
			_, err := l.Append([]byte("two"))
			return err
		}, "truncate "},
		"leaves that can't be mended before a head": {func(t *testing.T, l *Log) error {
			l.torn, l.hashes = true, closed(t)
			return l.Commit()
		}, "truncate "},
		"a segment that can't be mended": {func(t *testing.T, l *Log) error {
			l.torn, l.segment = true, closed(t)
			_, err := l.Append([]byte("two"))
			return err
		}, "sync "},
		"records that do not reach it": {func(t *testing.T, l *Log) error {
			l.segment = closed(t)
			return l.Commit()
		}, "sync "},
		"leaves that do not reach it": {func(t *testing.T, l *Log) error {
			l.hashes = closed(t)
			return l.Commit()
		}, "sync "},
		"heads that are not to be had": {func(t *testing.T, l *Log) error {
			l.heads = closed(t)
			return l.Commit()
		}, "stat "},
		"a head that does not reach it": {func(t *testing.T, l *Log) error {
			r, w, err := os.Pipe() // takes what is written, and can't keep it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			l.heads = w
			return l.Commit()
		}, "sync "},
		"an oldest segment that can't go": {func(t *testing.T, l *Log) error {
			l.limits = Limits{Bytes: 1, Segment: 1}
			name := segmentName(l.dir, 0)
			if err := os.Rename(name, name+".gone"); err != nil {
				t.Fatal(err)
			}
			return l.roll()
		}, "remove "},
		"half a head that can't be cut off": {func(t *testing.T, _ *Log) error { return endLine(closed(t)) }, "read "},
		"a directory that is gone": {func(t *testing.T, _ *Log) error {
			_, err := listSegments(filepath.Join(t.TempDir(), "gone"))
			return err
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := begun(t)
			l.mustAppend(t, "one")
			fails(t, c.act(t, l), c.reason)
			if l.last != nil {
				t.Error("a head over what was not kept")
			}
		})
	}
}

// What is left after a segment could not be begun can be closed.
func TestCloseWithoutSegment(t *testing.T) {
	l, _ := begun(t)
	l.mustAppend(t, "one")
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	l.segment.Close()
	l.segment = nil
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A log that is opened and closed again does not count its segment twice.
func TestSegmentAgain(t *testing.T) {
	l, key := begun(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Open(l.dir, key, DefaultLimits, time.Now)
	if err != nil || len(l.segments) != 1 {
		t.Fatalf("%v, %v", l.segments, err)
	}
}

// The log's own key can't take a head back by another one behind it.
func TestHeadsGoBack(t *testing.T) {
	l, key := begun(t)
	l.mustAppend(t, "one", "two", "three")
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(l.dir, "heads")
	first, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	l.mustAppend(t, "four")
	hashes, err := readHashes(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for name2, c := range map[string]struct {
		size   uint64
		later  time.Duration
		first  bool // as if there were none before
		reason string
	}{
		"goes on":             {size: 4},
		"later":               {size: 4, later: time.Hour},
		"the same again":      {size: 3, reason: "head 2 goes back"},
		"fewer":               {size: 2, reason: "head 2 goes back"},
		"earlier":             {size: 4, later: -time.Hour, reason: "head 2 goes back"},
		"as if it were first": {size: 4, first: true, reason: "head 2 does not continue the one before"},
	} {
		h := Head{Size: c.size, Time: l.last.Time.Add(c.later), Key: spki}
		root, _ := merkle.New(hashes).RootAt(c.size)
		h.Root = root[:]
		if !c.first {
			h.Previous = l.last.digest()
		}
		if h.Signature, err = key.Sign(rand.Reader, h.digest(), crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(append(first[:len(first):len(first)], line...), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = Check(l.dir, TrustKeys(h.KeyID()))
		if c.reason == "" && err != nil || !strings.Contains(fmt.Sprint(err), c.reason) {
			t.Errorf("%s: got %v, want %s", name2, err, c.reason)
		}
	}
}
